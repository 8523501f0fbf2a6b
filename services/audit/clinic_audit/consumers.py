"""Events in: whose names staff and patients have, for detection, and which records are one patient's.

What is logged arrives on a stream of its own (`intake.py`).
"""

from uuid import UUID

from clinic_shared import merges
from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.merges import TOLD_BY, ToldMerge
from pydantic import BaseModel

from clinic_audit import export, people, tables
from clinic_audit.people import PersonName

handlers = Handlers("audit")
handlers.include(export.handlers)


class StaffMember(BaseModel):
    staff_id: UUID
    version: int
    active: bool
    name: PersonName | None = None


class Patient(BaseModel):
    patient_id: UUID
    version: int
    name: PersonName | None = None


@handlers.on(
    "identity.staff-member-added.v1", "identity.staff-member-moved.v1", "identity.staff-member-deactivated.v1"
)
async def keep_staff(tx: Transaction, _: Envelope, member: StaffMember) -> None:
    await people.keep_staff(tx, member.staff_id, member.version, member.name, active=member.active)


@handlers.on("patients.patient-registered.v1", "patients.patient-updated.v1")
async def keep_patient(tx: Transaction, _: Envelope, patient: Patient) -> None:
    await people.keep_patient(tx, patient.patient_id, patient.version, patient.name)


@handlers.on(*TOLD_BY)
async def keep_merge(tx: Transaction, _: Envelope, told: ToldMerge) -> None:
    """The log keeps the ids that it was told; searching goes by person."""
    await merges.keep_told(tx, tables.patient_merge, told)
