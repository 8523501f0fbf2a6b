"""What is known of received items beyond the intake itself: what followed, and what two people decide."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, Identity, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import ARRAY

from clinic_shared.bulk import InsertRows
from clinic_shared.database import Transaction
from clinic_shared.events import runtime_metadata

history_table = Table(
    "intake_history",
    runtime_metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("intake_id", Uuid, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("step", Text, nullable=False),
    Column("error", Text),
    Column("decided_by", Uuid),
    Column("reason", Text),
    Column("other_id", Uuid),
)
"""Only what isn't the ordinary way: failures, and what people decided. The rest stands in the item's row."""
ADD_STEP = InsertRows(
    history_table, named={"intake_id", "at", "step", "error", "decided_by", "reason", "other_id"}
)
decision_table = Table(
    "intake_decision",
    runtime_metadata,
    Column("decision_id", Uuid, primary_key=True),
    Column("state", Text, nullable=False),
    Column("intake_ids", ARRAY(Uuid), nullable=False),
    Column("cause", Text),
    Column("reason", Text, nullable=False),
    Column("requested_by", Uuid, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("decided_by", Uuid),
    Column("decided_at", DateTime(timezone=True)),
    Column("decision_reason", Text),
)


def note(
    tx: Transaction,
    *item_ids: UUID,
    step: str,
    error: str | None = None,
    decided_by: UUID | None = None,
    reason: str | None = None,
    other_id: UUID | None = None,
    at: datetime | None = None,
) -> None:
    """Add a step to the history of items."""
    step_taken = {
        "at": at or tx.now,
        "step": step,
        "error": error,
        "decided_by": decided_by,
        "reason": reason,
        "other_id": other_id,
    }
    for item_id in item_ids:
        tx.write_later(ADD_STEP, {"intake_id": item_id, **step_taken})
