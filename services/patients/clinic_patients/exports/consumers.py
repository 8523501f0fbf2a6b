"""Events in: the parts of others."""

import base64
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.exporting import INCLUDED, Piece
from pydantic import BaseModel

from clinic_patients.exports import exporting, store

handlers = Handlers("patients")


class ExportPiece(BaseModel):
    export_id: UUID
    version: int
    piece_count: int
    outcome: str
    content: str | None = None


@handlers.on(
    "identity.export-part-ready.v1",
    "scheduling.export-part-ready.v1",
    "referrals.export-part-ready.v1",
    "notifications.export-part-ready.v1",
    "lab-integration.export-part-ready.v1",
    "billing.export-part-ready.v1",
    "audit.export-part-ready.v1",
)
async def keep_piece(tx: Transaction, envelope: Envelope, told: ExportPiece) -> None:
    content = None if told.content is None else base64.b64decode(told.content)
    outcome = store.ERASED if content is None and told.outcome == INCLUDED else told.outcome
    piece = Piece(number=told.version, count=told.piece_count, outcome=outcome, content=content)
    await exporting.keep_piece(tx, told.export_id, envelope.source, piece)
