"""What reports say, pure: cells of departments folded to lines of departments or of centres.

Both levels are folded from the same cells by the same functions, so a centre is the sum of its
departments (and of what belongs to none of them). Spreads (medians) are not sums; see `Spread`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Protocol, TypeVar
from uuid import UUID

from clinic_reporting.domain import AppointmentStatus, Level, Place


class Placed(Protocol):
    @property
    def place(self) -> Place: ...


Cell = TypeVar("Cell", bound=Placed)
Key = TypeVar("Key")
Value = TypeVar("Value")


def by_place(cells: Iterable[Cell], level: Level) -> dict[Place, list[Cell]]:
    groups = grouped(cells, lambda cell: cell.place.at(level))
    return {place: groups[place] for place in sorted(groups, key=lambda place: place.order)}


def grouped(values: Iterable[Value], key: Callable[[Value], Key]) -> dict[Key, list[Value]]:
    groups: dict[Key, list[Value]] = defaultdict(list)
    for value in values:
        groups[key(value)].append(value)
    return dict(groups)


def ratio(part: int, whole: int) -> float | None:
    """Return part of whole; None where there is nothing to divide by."""
    return round(part / whole, 4) if whole else None


# -- appointments


@dataclass(frozen=True, kw_only=True)
class AppointmentCell:
    """Appointments of one department, service and status."""

    place: Place
    service_code: str
    status: AppointmentStatus
    appointments: int
    seconds: int


@dataclass(frozen=True, kw_only=True)
class AppointmentLine:
    place: Place
    by_status: Mapping[AppointmentStatus, int]
    by_service: Mapping[str, Mapping[AppointmentStatus, int]]
    seconds: "SecondsByUse"

    @property
    def total(self) -> int:
        return sum(self.by_status.values())

    @property
    def missed_rate(self) -> float | None:
        """Return missed of those whose time has come and who were not called off."""
        missed = self.by_status[AppointmentStatus.MISSED]
        return ratio(missed, missed + self.by_status[AppointmentStatus.COMPLETED])


@dataclass(frozen=True, kw_only=True)
class SecondsByUse:
    """Appointment time: given to patients (all but cancelled), and of that used and lost."""

    booked: int
    completed: int
    missed: int

    @property
    def used_rate(self) -> float | None:
        return ratio(self.completed, self.booked)


class Timed(Protocol):
    @property
    def status(self) -> AppointmentStatus: ...
    @property
    def seconds(self) -> int: ...


def seconds_by_use(cells: Sequence[Timed]) -> SecondsByUse:
    return SecondsByUse(
        booked=sum(c.seconds for c in cells if c.status is not AppointmentStatus.CANCELLED),
        completed=sum(c.seconds for c in cells if c.status is AppointmentStatus.COMPLETED),
        missed=sum(c.seconds for c in cells if c.status is AppointmentStatus.MISSED),
    )


def count_by_status(cells: Iterable[AppointmentCell]) -> dict[AppointmentStatus, int]:
    """Return a count for every status of the taxonomy, zeros included."""
    counts = dict.fromkeys(AppointmentStatus, 0)
    for cell in cells:
        counts[cell.status] += cell.appointments
    return counts


def fold_appointments(cells: Iterable[AppointmentCell], level: Level) -> list[AppointmentLine]:
    return [
        AppointmentLine(
            place=place,
            by_status=count_by_status(own),
            by_service={
                code: count_by_status(of_service)
                for code, of_service in sorted(grouped(own, lambda cell: cell.service_code).items())
            },
            seconds=seconds_by_use(own),
        )
        for place, own in by_place(cells, level).items()
    ]


# -- utilisation


@dataclass(frozen=True, kw_only=True)
class DayCell:
    """Appointment time of one department on one day of its centre's calendar."""

    place: Place
    on: date
    status: AppointmentStatus
    seconds: int


@dataclass(frozen=True, kw_only=True)
class PostCell:
    """Posts of one department: a practitioner who works in two departments has two."""

    place: Place
    posts: int


@dataclass(frozen=True, kw_only=True)
class UtilisationLine:
    place: Place
    practitioner_posts: int
    seconds: SecondsByUse
    by_day: Mapping[date, SecondsByUse]


def fold_utilisation(
    cells: Iterable[DayCell], posts: Iterable[PostCell], level: Level
) -> list[UtilisationLine]:
    """Return a line for each place with appointments or practitioners."""
    times, staffed = by_place(cells, level), by_place(posts, level)
    return [
        UtilisationLine(
            place=place,
            practitioner_posts=sum(cell.posts for cell in staffed.get(place, ())),
            seconds=seconds_by_use(times.get(place, [])),
            by_day={
                day: seconds_by_use(own)
                for day, own in sorted(grouped(times.get(place, []), lambda cell: cell.on).items())
            },
        )
        for place in sorted(times.keys() | staffed.keys(), key=lambda place: place.order)
    ]


# -- referrals


class ReferralStage(StrEnum):
    ACCEPTED = "accepted"
    DECLINED = "declined"
    BOOKED = "booked"
    SEEN = "seen"
    REPORTED = "reported"
    CLOSED = "closed"


@dataclass(frozen=True)
class Edge:
    """From the department (or centre) that refers to the one that is asked."""

    sender: Place
    receiver: Place

    @property
    def order(self) -> tuple[str, ...]:
        return *self.sender.order, *self.receiver.order

    def at(self, level: Level) -> "Edge":
        return Edge(self.sender.at(level), self.receiver.at(level))


@dataclass(frozen=True, kw_only=True)
class ReferralCell:
    """Referrals of one edge, and how many of them reached each stage."""

    edge: Edge
    created: int
    reached: Mapping[ReferralStage, int]


@dataclass(frozen=True, kw_only=True)
class ReferralLine:
    edge: Edge
    created: int
    reached: Mapping[ReferralStage, int]
    median_seconds: Mapping[ReferralStage, int | None] = field(default_factory=dict)

    @property
    def conversion_to_visit(self) -> float | None:
        return ratio(self.reached[ReferralStage.SEEN], self.created)


Medians = Mapping[Edge, Mapping[ReferralStage, int | None]]


def fold_referrals(cells: Iterable[ReferralCell], level: Level, medians: Medians) -> list[ReferralLine]:
    """`medians` are those of the level's own edges."""
    edges = grouped(cells, lambda cell: cell.edge.at(level))
    return [
        ReferralLine(
            edge=edge,
            created=sum(cell.created for cell in own),
            reached={stage: sum(cell.reached[stage] for cell in own) for stage in ReferralStage},
            median_seconds=medians.get(edge, {}),
        )
        for edge, own in sorted(edges.items(), key=lambda each: each[0].order)
    ]


# -- laboratory


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How long something took: of all cases of the place together, so a centre's is not a sum."""

    median_seconds: int | None = None
    p90_seconds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Turnaround:
    placed_to_received: Spread = Spread()
    received_to_filed: Spread = Spread()
    placed_to_filed: Spread = Spread()


class LaboratoryStage(StrEnum):
    """Where the time of a result goes, from the order to the chart."""

    PLACED_TO_COLLECTED = "placed_to_collected"
    COLLECTED_TO_REPORTED = "collected_to_reported"
    REPORTED_TO_RECEIVED = "reported_to_received"
    RECEIVED_TO_FILED = "received_to_filed"
    PLACED_TO_FILED = "placed_to_filed"


@dataclass(frozen=True, kw_only=True)
class AnalysisLine:
    """Results of one test of one laboratory, with the spread of each stage; `suppressed`: of several rare ones."""

    partner_id: UUID | None
    test_code: str | None
    test_system: str | None
    results: int | None
    stages: Mapping[LaboratoryStage, Spread]
    suppressed: bool = False


SMALLEST_CELL = 5
"""Fewer results of one test than this could be told apart by who knows whom it was made for."""


def without_rare_tests(counted: Sequence[tuple[int, AnalysisLine]]) -> list[AnalysisLine]:
    """Put rare tests, which could point at somebody, into one line that names none of them.

    The next more frequent ones join them until the line stands for enough results: what is missing from the
    laboratory's total is then never the figure of one rare test.
    """
    told = sorted(counted, key=lambda each: each[0], reverse=True)
    hidden = 0
    while told and (told[-1][0] < SMALLEST_CELL or 0 < hidden < SMALLEST_CELL):
        hidden += told.pop()[0]
    lines = [line for _, line in told]
    if hidden:
        lines.append(_rare(hidden if hidden >= SMALLEST_CELL else None))
    return lines


def _rare(results: int | None) -> AnalysisLine:
    return AnalysisLine(
        partner_id=None,
        test_code=None,
        test_system=None,
        results=results,
        stages=dict.fromkeys(LaboratoryStage, Spread()),
        suppressed=True,
    )


@dataclass(frozen=True, kw_only=True)
class LaboratoryCell:
    """Some orders or results of one department."""

    place: Place
    orders: int = 0
    results: int = 0
    corrected: int = 0
    retracted: int = 0
    critical: int = 0
    obligations: int = 0


@dataclass(frozen=True, kw_only=True)
class LaboratoryLine(LaboratoryCell):
    turnaround: Turnaround = Turnaround()


LABORATORY_COUNTS = ("orders", "results", "corrected", "retracted", "critical", "obligations")


def fold_laboratory(
    cells: Iterable[LaboratoryCell], level: Level, turnarounds: Mapping[Place, Turnaround]
) -> list[LaboratoryLine]:
    """`turnarounds` are those of the level's own places."""
    return [
        LaboratoryLine(
            place=place,
            turnaround=turnarounds.get(place, Turnaround()),
            **{name: sum(getattr(cell, name) for cell in own) for name in LABORATORY_COUNTS},
        )
        for place, own in by_place(cells, level).items()
    ]


# -- revenue


class Movement(StrEnum):
    INVOICED = "invoiced"
    PAID = "paid"
    REFUNDED = "refunded"


@dataclass(frozen=True, kw_only=True)
class MoneyCell:
    """One kind of movement of one department in one currency."""

    place: Place
    currency: str
    movement: Movement
    documents: int
    amount_minor: int


@dataclass(frozen=True, kw_only=True)
class RevenueLine:
    """Amounts of different currencies are never added."""

    place: Place
    currency: str
    documents: Mapping[Movement, int]
    amount_minor: Mapping[Movement, int]

    @property
    def net_minor(self) -> int:
        return self.amount_minor[Movement.PAID] - self.amount_minor[Movement.REFUNDED]


def fold_revenue(cells: Iterable[MoneyCell], level: Level) -> list[RevenueLine]:
    groups = grouped(cells, lambda cell: (cell.place.at(level), cell.currency))
    return [
        RevenueLine(
            place=place,
            currency=currency,
            documents={m: sum(c.documents for c in own if c.movement is m) for m in Movement},
            amount_minor={m: sum(c.amount_minor for c in own if c.movement is m) for m in Movement},
        )
        for (place, currency), own in sorted(groups.items(), key=lambda each: (each[0][0].order, each[0][1]))
    ]


# -- activity


class Activity(StrEnum):
    REGISTRATIONS = "registrations"
    ENCOUNTERS = "encounters"
    PRESCRIPTIONS = "prescriptions"
    MESSAGES = "messages"
    CONSENTS = "consents"


@dataclass(frozen=True, kw_only=True)
class ActivityCell:
    """How many of something have a status in one place."""

    place: Place
    activity: Activity
    status: str
    count: int


@dataclass(frozen=True, kw_only=True)
class ActivityLine:
    place: Place
    by_status: Mapping[Activity, Mapping[str, int]]


def fold_activity(cells: Iterable[ActivityCell], level: Level) -> list[ActivityLine]:
    return [
        ActivityLine(
            place=place,
            by_status={
                activity: {
                    status: sum(cell.count for cell in same)
                    for status, same in sorted(grouped(of_kind, lambda cell: cell.status).items())
                }
                for activity, of_kind in grouped(own, lambda cell: cell.activity).items()
            },
        )
        for place, own in by_place(cells, level).items()
    ]
