"""Events in: lab results to file, whom to register, what is known of identity; the timeline's and exports' are included."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.projections import keep_newer
from pydantic import BaseModel, BeforeValidator

from clinic_patients import registry, results, tables, timeline_consumers
from clinic_patients.chart_domain import (
    Observation,
    ResultVersion,
)
from clinic_patients.domain import Identifier, PersonName, Sex, is_plausible_birth
from clinic_patients.exports import consumers as export_consumers
from clinic_patients.settings import RegistrySettings

handlers = Handlers("patients")
handlers.include(timeline_consumers.handlers)
handlers.include(export_consumers.handlers)

Texts = Annotated[tuple[str, ...], BeforeValidator(lambda value: value or ())]
"""Private lists may be missing, null or erased."""


# -- identity


class Centre(BaseModel):
    centre_id: UUID
    version: int
    status: str


class Department(BaseModel):
    department_id: UUID
    version: int
    centre_id: UUID
    status: str


class StaffName(BaseModel):
    family: str | None = None
    given: str | None = None
    patronymic: str | None = None

    def full(self) -> str | None:
        return " ".join(part for part in (self.family, self.given, self.patronymic) if part) or None


class StaffMember(BaseModel):
    staff_id: UUID
    version: int
    active: bool
    name: StaffName | None = None


@handlers.on("identity.centre-opened.v1", "identity.centre-changed.v1")
async def keep_centre(tx: Transaction, _: Envelope, centre: Centre) -> None:
    await keep_newer(
        tx,
        tables.centre,
        {
            "centre_id": centre.centre_id,
            "version": centre.version,
            "active": centre.status == "active",
        },
    )


@handlers.on(
    "identity.department-opened.v1", "identity.department-changed.v1", "identity.department-closed.v1"
)
async def keep_department(tx: Transaction, _: Envelope, department: Department) -> None:
    await keep_newer(
        tx,
        tables.department,
        {
            "department_id": department.department_id,
            "version": department.version,
            "centre_id": department.centre_id,
            "active": department.status == "active",
        },
    )


@handlers.on(
    "identity.staff-member-added.v1", "identity.staff-member-moved.v1", "identity.staff-member-deactivated.v1"
)
async def keep_staff_member(tx: Transaction, _: Envelope, member: StaffMember) -> None:
    """Names of those who wrote into charts, also after they have left."""
    await keep_newer(
        tx,
        tables.staff,
        {
            "staff_id": member.staff_id,
            "version": member.version,
            "name": member.name.full() if member.name else None,
            "active": member.active,
        },
    )


# -- who is to be registered


class RequestedName(BaseModel):
    family: str | None = None
    given: str | None = None
    patronymic: str | None = None


class RequestedIdentifier(BaseModel):
    authority: str
    value: str


class RequestedPatient(BaseModel):
    patient_id: UUID
    centre_id: UUID | None
    name: RequestedName | None = None
    birth_on: date | None = None
    sex: Sex | None = None
    identifiers: list[RequestedIdentifier] | None = None

    def demographics(self, now: datetime) -> registry.Demographics:
        """What a laboratory writes is taken as far as it can be true."""
        name = self.name or RequestedName()
        return registry.Demographics(
            name=PersonName(family=name.family or "", given=name.given, patronymic=name.patronymic),
            birth_on=self.birth_on if is_plausible_birth(self.birth_on, now=now) else None,
            sex=self.sex or Sex.UNKNOWN,
            phones=(),
            emails=(),
            language=None,
            identifiers=tuple(
                Identifier(authority=i.authority, type=None, value=i.value) for i in self.identifiers or []
            ),
        )


@handlers.on("lab-integration.patient-requested.v1")
async def register_requested(tx: Transaction, _: Envelope, requested: RequestedPatient) -> None:
    await registry.register_requested(
        tx,
        requested.patient_id,
        requested.demographics(tx.now),
        centre_id=requested.centre_id,
        settings=RegistrySettings(),
    )


# -- lab results


class Coding(BaseModel):
    code: str | None
    system: str | None
    display: str | None


class ObservationPayload(BaseModel):
    code: str | None
    system: str | None
    display: str | None
    value_type: str | None
    value: str | None
    units: str | None
    reference_range: str | None
    interpretation: Texts
    status: str | None
    observed_at: datetime | None
    sub_id: str | None
    notes: Texts
    meaning: dict[str, Any] | None = None


class LabResult(BaseModel):
    result_id: UUID
    version: int
    status: str
    lab_order_id: UUID | None
    placer_order_number: str | None
    filler_order_number: str | None
    parent_filler_order_number: str | None = None
    patient_id: UUID
    partner_id: UUID
    message_id: UUID
    group_index: int
    report_index: int
    practitioner_id: UUID | None
    centre_id: UUID | None
    department_id: UUID | None
    report: Coding
    observation_count: int
    abnormal_count: int
    critical_count: int
    collected_at: datetime | None
    reported_at: datetime | None
    received_at: datetime
    retraction_reason_code: str | None
    observations: Annotated[list[ObservationPayload], BeforeValidator(lambda value: value or [])] = []
    conclusion: str | None = None
    notes: Texts = ()

    def as_filed(self, filed_at: datetime) -> ResultVersion:
        values = self.model_dump(exclude={"report", "observations"})
        return ResultVersion(
            **values,
            report_code=self.report.code,
            report_system=self.report.system,
            report_display=self.report.display,
            observations=tuple(Observation(**line.model_dump()) for line in self.observations),
            filed_at=filed_at,
        )


async def read_results_ahead(tx: Transaction, several: Sequence[LabResult]) -> None:
    keys = [(result.result_id, result.version) for result in several]
    await results.read_ahead(tx, keys, [result.patient_id for result in several])


@handlers.on(
    "lab-integration.lab-result-received.v1",
    "lab-integration.lab-result-corrected.v1",
    "lab-integration.lab-result-retracted.v1",
    ahead=read_results_ahead,
)
async def file_result(tx: Transaction, _: Envelope, result: LabResult) -> None:
    await results.file_result(tx, result.as_filed(tx.now))
