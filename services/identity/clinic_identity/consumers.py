"""Events in: which patients there are, so that they can be given a login."""

from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.projections import keep_newer
from pydantic import BaseModel

from clinic_identity import export
from clinic_identity.tables import patient as patient_table

handlers = Handlers("identity")
handlers.include(export.handlers)


class Patient(BaseModel):
    patient_id: UUID
    version: int
    status: str


@handlers.on("patients.patient-registered.v1")
async def keep_patient(tx: Transaction, _: Envelope, patient: Patient) -> None:
    await keep_newer(
        tx,
        patient_table,
        {
            "patient_id": patient.patient_id,
            "version": patient.version,
            "active": patient.status == "active",
        },
    )
