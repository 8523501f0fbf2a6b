"""Events in: the projections that booking needs of identity, patients and referrals."""

from typing import Literal
from uuid import UUID

from clinic_shared import care, merges
from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.merges import TOLD_BY, ToldMerge
from clinic_shared.projections import keep_newer
from pydantic import BaseModel

from clinic_scheduling import export, tables
from clinic_scheduling.domain import ResourceKind

handlers = Handlers("scheduling")
handlers.include(export.handlers)


class Centre(BaseModel):
    centre_id: UUID
    version: int
    time_zone: str
    status: str


class Department(BaseModel):
    department_id: UUID
    version: int
    centre_id: UUID
    status: str


class PersonName(BaseModel):
    family: str
    given: str | None = None
    patronymic: str | None = None

    def short(self) -> str:
        """Return the name as a sign on a door has it: family name and initials."""
        initials = "".join(f" {part[0]}." for part in (self.given, self.patronymic) if part)
        return f"{self.family}{initials}"


class StaffMember(BaseModel):
    staff_id: UUID
    version: int
    practitioner: bool
    active: bool
    department_ids: list[UUID]
    name: PersonName | None = None


class Patient(BaseModel):
    patient_id: UUID
    version: int
    status: str


class Referral(BaseModel):
    referral_id: UUID
    version: int
    status: Literal["accepted"]
    patient_id: UUID
    to_department_id: UUID


@handlers.on("identity.centre-opened.v1", "identity.centre-changed.v1")
async def keep_centre(tx: Transaction, _: Envelope, centre: Centre) -> None:
    await keep_newer(
        tx,
        tables.centre,
        {
            "centre_id": centre.centre_id,
            "version": centre.version,
            "time_zone": centre.time_zone,
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
async def keep_practitioner(tx: Transaction, _: Envelope, staff: StaffMember) -> None:
    """Only those who see patients have a calendar; one who no longer does keeps what is booked."""
    await keep_newer(
        tx,
        tables.resource,
        {
            "resource_id": staff.staff_id,
            "version": staff.version,
            "kind": ResourceKind.PRACTITIONER.value,
            "name": staff.name.short() if staff.name else None,
            "department_ids": staff.department_ids,
            "active": staff.active and staff.practitioner,
        },
    )


@handlers.on("patients.patient-registered.v1")
async def keep_patient(tx: Transaction, _: Envelope, patient: Patient) -> None:
    await keep_newer(
        tx,
        tables.patient,
        {
            "patient_id": patient.patient_id,
            "version": patient.version,
            "active": patient.status == "active",
        },
    )


@handlers.on("referrals.referral-accepted.v1")
async def keep_referral(tx: Transaction, _: Envelope, referral: Referral) -> None:
    """An accepted referral may be booked."""
    await keep_newer(
        tx,
        tables.referral,
        {
            "referral_id": referral.referral_id,
            "version": referral.version,
            "status": referral.status,
            "patient_id": referral.patient_id,
            "to_department_id": referral.to_department_id,
        },
    )


@handlers.on("patients.care-relationship-started.v1", "patients.care-relationship-ended.v1")
async def keep_care_relationship(tx: Transaction, _: Envelope, told: care.ToldRelationship) -> None:
    await care.keep_told(tx, tables.care_relationship, told)


@handlers.on(*TOLD_BY)
async def keep_merge(tx: Transaction, _: Envelope, told: ToldMerge) -> None:
    """Nothing is moved: rows keep the record that they were written to, and are read by person."""
    await merges.keep_told(tx, tables.patient_merge, told)
