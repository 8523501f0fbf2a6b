"""One way in: an event takes effect here at most once.

The row is inserted first in the transaction of the effect. The table is partitioned by the range of
the event id, which a redelivery doesn't change (by time of arrival an event could apply twice).
"""

from uuid import UUID

from sqlalchemy import Column, DateTime, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import insert

from clinic_shared.database import Transaction
from clinic_shared.events import runtime_metadata

inbox = Table(
    "inbox",
    runtime_metadata,
    Column("consumer", Text, primary_key=True),
    Column("event_id", Uuid, primary_key=True),
    Column("processed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)


async def claim(transaction: Transaction, *, consumer: str, event_id: UUID) -> bool:
    """Return False when the event has taken effect here before."""
    # RETURNING, since SQLAlchemy doesn't promise a row count for an INSERT.
    row = await transaction.fetch_one(
        insert(inbox)
        .values(consumer=consumer, event_id=event_id)
        .on_conflict_do_nothing()
        .returning(inbox.c.event_id)
    )
    return row is not None
