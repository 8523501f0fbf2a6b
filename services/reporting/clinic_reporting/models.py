"""What readers of reports ask and get. The descriptions are the figures' definitions."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from clinic_reporting.domain import AppointmentStatus, Level, Period, Place
from clinic_reporting.figures import (
    Activity,
    ActivityLine,
    AnalysisLine,
    AppointmentLine,
    LaboratoryLine,
    Movement,
    ReferralLine,
    ReferralStage,
    RevenueLine,
    SecondsByUse,
    Spread,
    UtilisationLine,
)
from clinic_reporting.reports import Names, Question, Report

Item = TypeVar("Item")
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float | None, Field(description="From 0 to 1; null where there is nothing to divide by")]
ByStatus = Annotated[
    dict[AppointmentStatus, Count],
    Field(description="Appointments by their newest status; every status of the taxonomy is there"),
]


class ReportQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    level: Annotated[Level, Field(description="A line per department, or per centre")] = Level.DEPARTMENT
    starts_on: Annotated[
        date, Field(description="First day, in each centre's own time zone", examples=["2026-03-02"])
    ]
    ends_on: Annotated[
        date, Field(description="First day after the period; at most 366 days later", examples=["2026-03-09"])
    ]
    centre_id: Annotated[UUID | None, Field(description="This centre only")] = None

    def question(self) -> Question:
        return Question(
            level=self.level, period=Period(self.starts_on, self.ends_on), centre_id=self.centre_id
        )


class ReportResponse(BaseModel, Generic[Item]):
    """One report. A centre's line is the sum of its departments' lines, medians and rates excepted."""

    level: Level
    starts_on: date
    ends_on: date
    as_of: Annotated[
        datetime | None,
        Field(description="Time of the newest event that the figures know of; null before the first"),
    ]
    items: list[Item]


class PlaceResponse(BaseModel):
    centre_id: Annotated[UUID | None, Field(description="Null: belongs to no centre")]
    department_id: Annotated[
        UUID | None,
        Field(description="Null at centre level, and for what belongs to none of the departments"),
    ]
    name: Annotated[str | None, Field(description="Of the department or centre, as it is called now")]


class SecondsResponse(BaseModel):
    booked_seconds: Annotated[Count, Field(description="Time of all appointments that are not cancelled")]
    completed_seconds: Annotated[Count, Field(description="Of that: completed ones")]
    missed_seconds: Annotated[Count, Field(description="Of that: missed ones")]


def _place_fields(place: Place, names: Names) -> dict[str, Any]:
    return {"centre_id": place.centre_id, "department_id": place.department_id, "name": names.of(place)}


def _seconds_fields(seconds: SecondsByUse) -> dict[str, int]:
    return {
        "booked_seconds": seconds.booked,
        "completed_seconds": seconds.completed,
        "missed_seconds": seconds.missed,
    }


class ServiceFigures(BaseModel):
    service_code: str
    name: Annotated[str | None, Field(description="As the catalogue calls it now")]
    by_status: ByStatus


class AppointmentFigures(PlaceResponse, SecondsResponse):
    total: Count
    by_status: ByStatus
    by_service: list[ServiceFigures]
    missed_rate: Annotated[Share, Field(description="missed / (missed + completed)")]

    @classmethod
    def of(cls, line: AppointmentLine, names: Names) -> "AppointmentFigures":
        return cls(
            **_place_fields(line.place, names),
            **_seconds_fields(line.seconds),
            total=line.total,
            by_status=dict(line.by_status),
            by_service=[
                ServiceFigures(service_code=code, name=names.services.get(code), by_status=dict(counts))
                for code, counts in line.by_service.items()
            ],
            missed_rate=line.missed_rate,
        )


class DayFigures(SecondsResponse):
    on: date


class UtilisationFigures(PlaceResponse, SecondsResponse):
    practitioner_posts: Annotated[
        Count,
        Field(description="Now, not in the period: one who works in two departments has two posts"),
    ]
    used_rate: Annotated[Share, Field(description="completed_seconds / booked_seconds")]
    by_day: Annotated[list[DayFigures], Field(description="Days of the centre's calendar that have any")]

    @classmethod
    def of(cls, line: UtilisationLine, names: Names) -> "UtilisationFigures":
        return cls(
            **_place_fields(line.place, names),
            **_seconds_fields(line.seconds),
            practitioner_posts=line.practitioner_posts,
            used_rate=line.seconds.used_rate,
            by_day=[DayFigures(on=day, **_seconds_fields(seconds)) for day, seconds in line.by_day.items()],
        )


class ReferralFigures(BaseModel):
    sender: Annotated[PlaceResponse, Field(serialization_alias="from", description="Who refers")]
    receiver: Annotated[PlaceResponse, Field(serialization_alias="to", description="Who is asked")]
    created: Annotated[Count, Field(description="Referrals created in the period, whatever became of them")]
    accepted: Count
    declined: Count
    booked: Count
    seen: Count
    reported: Count
    closed: Count
    conversion_to_visit: Annotated[Share, Field(description="seen / created")]
    median_seconds: Annotated[
        dict[ReferralStage, int | None],
        Field(description="From creation to the stage, of those that reached it"),
    ]

    @classmethod
    def of(cls, line: ReferralLine, names: Names) -> "ReferralFigures":
        return cls(
            sender=PlaceResponse(**_place_fields(line.edge.sender, names)),
            receiver=PlaceResponse(**_place_fields(line.edge.receiver, names)),
            created=line.created,
            **{stage.value: count for stage, count in line.reached.items()},
            conversion_to_visit=line.conversion_to_visit,
            median_seconds=dict(line.median_seconds),
        )


class SpreadFigures(BaseModel):
    median_seconds: int | None
    p90_seconds: int | None

    @classmethod
    def of(cls, spread: Spread) -> "SpreadFigures":
        return cls(median_seconds=spread.median_seconds, p90_seconds=spread.p90_seconds)


class TurnaroundFigures(BaseModel):
    """Of results first received in the period: order placed, first received, first in the chart."""

    placed_to_received: SpreadFigures
    received_to_filed: SpreadFigures
    placed_to_filed: SpreadFigures


class LaboratoryFigures(PlaceResponse):
    orders: Annotated[Count, Field(description="Placed in the period")]
    results: Annotated[Count, Field(description="Reports first received in the period")]
    corrected: Annotated[Count, Field(description="Of the results: now amended or corrected")]
    retracted: Annotated[Count, Field(description="Of the results: now cancelled or entered in error")]
    critical: Annotated[
        Count, Field(description="Of the results: with critical values in the newest version")
    ]
    obligations: Annotated[Count, Field(description="Critical results raised to someone in the period")]
    turnaround: TurnaroundFigures

    @classmethod
    def of(cls, line: LaboratoryLine, names: Names) -> "LaboratoryFigures":
        times = line.turnaround
        return cls(
            **_place_fields(line.place, names),
            orders=line.orders,
            results=line.results,
            corrected=line.corrected,
            retracted=line.retracted,
            critical=line.critical,
            obligations=line.obligations,
            turnaround=TurnaroundFigures(
                placed_to_received=SpreadFigures.of(times.placed_to_received),
                received_to_filed=SpreadFigures.of(times.received_to_filed),
                placed_to_filed=SpreadFigures.of(times.placed_to_filed),
            ),
        )


class StagesResponse(BaseModel):
    """Collected and reported are the laboratory's own times; the rest are ours."""

    placed_to_collected: SpreadFigures
    collected_to_reported: SpreadFigures
    reported_to_received: SpreadFigures
    received_to_filed: SpreadFigures
    placed_to_filed: SpreadFigures


class AnalysisFigures(BaseModel):
    """Reports of one test (as the laboratory codes it) first received in the period."""

    partner_id: UUID | None
    test_code: str | None
    test_system: str | None
    results: Annotated[Count | None, Field(description="Null: suppressed, and fewer than five in all")]
    stages: StagesResponse
    suppressed: Annotated[
        bool,
        Field(description="Tests with fewer than five reports each, or too few beside them, in one line"),
    ]

    @classmethod
    def of(cls, line: AnalysisLine) -> "AnalysisFigures":
        stages = {stage.value: SpreadFigures.of(spread) for stage, spread in line.stages.items()}
        return cls(**{**vars(line), "stages": StagesResponse(**stages)})


class RevenueFigures(PlaceResponse):
    currency: Annotated[str, Field(description="ISO 4217; a line per currency, never added up")]
    invoices: Annotated[Count, Field(description="Issued in the period")]
    payments: Annotated[Count, Field(description="Received in the period, whenever they were invoiced")]
    refunds: Annotated[Count, Field(description="Made in the period, whenever they were paid")]
    invoiced_minor: Annotated[Count, Field(description="In minor units, as all amounts")]
    paid_minor: Count
    refunded_minor: Count
    net_minor: Annotated[int, Field(description="paid_minor - refunded_minor")]

    @classmethod
    def of(cls, line: RevenueLine, names: Names) -> "RevenueFigures":
        return cls(
            **_place_fields(line.place, names),
            currency=line.currency,
            invoices=line.documents[Movement.INVOICED],
            payments=line.documents[Movement.PAID],
            refunds=line.documents[Movement.REFUNDED],
            invoiced_minor=line.amount_minor[Movement.INVOICED],
            paid_minor=line.amount_minor[Movement.PAID],
            refunded_minor=line.amount_minor[Movement.REFUNDED],
            net_minor=line.net_minor,
        )


class ActivityFigures(PlaceResponse):
    """How many have which status now, of those that began in the period."""

    registrations: Annotated[dict[str, int], Field(description="Patients; of a centre, of no department")]
    encounters: dict[str, int]
    prescriptions: dict[str, int]
    messages: Annotated[dict[str, int], Field(description="To patients, in the department's name")]
    consents: Annotated[dict[str, int], Field(description="Of the network, of no centre")]

    @classmethod
    def of(cls, line: ActivityLine, names: Names) -> "ActivityFigures":
        counts: Mapping[str, dict[str, int]] = {
            activity.value: dict(line.by_status.get(activity, {})) for activity in Activity
        }
        return cls(**_place_fields(line.place, names), **counts)


class WitnessResponse(BaseModel):
    """A checkpoint of the audit log as it arrived here, outside the audit database."""

    checkpoint_id: UUID
    log_origin: str
    tree_size: Count
    root_hash: Annotated[str, Field(description="SHA-256, hexadecimal")]
    key_id: str
    algorithm: str
    signature: Annotated[str, Field(description="base64url without padding")]
    signed_at: datetime
    witnessed_at: datetime


class ForkResponse(BaseModel):
    log_origin: str
    tree_size: Count
    root_hashes: list[str]


class WitnessesResponse(BaseModel):
    items: list[WitnessResponse]
    next_cursor: str | None
    forks: Annotated[
        list[ForkResponse],
        Field(description="Sizes signed with different root hashes: the log was rewritten"),
    ]


def response_fields(report: Report[Any]) -> dict[str, Any]:
    """Return what every report's answer says beside its items."""
    question = report.question
    return {
        "level": question.level,
        "starts_on": question.period.starts_on,
        "ends_on": question.period.ends_on,
        "as_of": report.as_of,
    }
