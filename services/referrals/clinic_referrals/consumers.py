"""Events in: departments, practitioners, patients; appointments and encounters of referrals."""

from uuid import UUID

from clinic_shared import merges
from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.merges import TOLD_BY, ToldMerge
from clinic_shared.projections import keep_newer
from pydantic import BaseModel

from clinic_referrals import export, referring, tables

handlers = Handlers("referrals")
handlers.include(export.handlers)


class Department(BaseModel):
    department_id: UUID
    version: int
    centre_id: UUID
    status: str


class StaffMember(BaseModel):
    staff_id: UUID
    version: int
    practitioner: bool
    active: bool
    department_ids: list[UUID]


class Patient(BaseModel):
    patient_id: UUID
    version: int
    status: str


class Appointment(BaseModel):
    appointment_id: UUID
    status: str
    referral_id: UUID | None


class Encounter(BaseModel):
    encounter_id: UUID
    referral_id: UUID | None


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
    await keep_newer(
        tx,
        tables.practitioner,
        {
            "practitioner_id": staff.staff_id,
            "version": staff.version,
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


@handlers.on(*TOLD_BY)
async def keep_merge(tx: Transaction, _: Envelope, told: ToldMerge) -> None:
    """Nothing is moved: a referral keeps the record that it was made for, and is read by person."""
    await merges.keep_told(tx, tables.patient_merge, told)


@handlers.on(
    "scheduling.appointment-booked.v1",
    "scheduling.appointment-rescheduled.v1",
    "scheduling.appointment-confirmed.v1",
    "scheduling.appointment-cancelled.v1",
    "scheduling.appointment-completed.v1",
    "scheduling.appointment-missed.v1",
)
async def follow_appointment(tx: Transaction, _: Envelope, appointment: Appointment) -> None:
    """Only appointments that name a referral concern us."""
    if appointment.referral_id is not None:
        await referring.hear_of_appointment(
            tx,
            appointment.referral_id,
            appointment_id=appointment.appointment_id,
            appointment_status=appointment.status,
        )


@handlers.on("patients.encounter-recorded.v1")
async def follow_encounter(tx: Transaction, _: Envelope, encounter: Encounter) -> None:
    if encounter.referral_id is not None:
        await referring.hear_of_encounter(tx, encounter.referral_id, encounter_id=encounter.encounter_id)
