"""Events in: which patients there are and which are one, for their logins; links and codes that are being sent."""

import base64
from typing import Annotated
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.merges import TOLD_BY, ToldMerge
from clinic_shared.projections import keep_newer
from pydantic import BaseModel, Field

from clinic_identity import code_store, export, merging
from clinic_identity.access_links import LinkAttempt, take_attempt
from clinic_identity.tables import patient as patient_table

handlers = Handlers("identity")
handlers.include(export.handlers)


class Patient(BaseModel):
    patient_id: UUID
    version: int
    status: str


class AttemptedLink(BaseModel):
    request_id: UUID
    version: int
    state: str
    channel: str
    failure_code: str | None
    digest: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None


class AttemptedCode(BaseModel):
    request_id: UUID
    version: int
    box: str | None = None


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


@handlers.on("notifications.access-link-attempted.v1")
async def let_sent_link_work(tx: Transaction, _: Envelope, attempt: AttemptedLink) -> None:
    await take_attempt(tx, LinkAttempt(**attempt.model_dump()))


@handlers.on("notifications.one-time-code-attempted.v1")
async def take_code(tx: Transaction, _: Envelope, sent: AttemptedCode) -> None:
    """Let a code count that is on its way, as far as it was asked for; without its box none does."""
    if sent.box is not None:
        await code_store.take_box(tx, sent.request_id, box=base64.b64decode(sent.box), version=sent.version)


@handlers.on(*TOLD_BY)
async def take_merge(tx: Transaction, _: Envelope, told: ToldMerge) -> None:
    await merging.take(tx, told)
