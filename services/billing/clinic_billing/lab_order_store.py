"""The queries of lab orders: whether one is invoiced, or cancelled and never will be."""

from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_billing.tables import cancelled_lab_order, invoice


async def lock(tx: Transaction, lab_order_id: UUID) -> None:
    """Let an order and its cancellation not miss each other: one that is redriven comes beside the other."""
    key = func.hashtextextended(str(lab_order_id), 0)
    await tx.execute(select(func.pg_advisory_xact_lock(key)))


async def is_settled(tx: Transaction, lab_order_id: UUID) -> bool:
    """Return whether there is nothing to invoice any more."""
    invoiced = select(invoice.c.lab_order_id).where(invoice.c.lab_order_id == lab_order_id)
    cancelled = cancelled_lab_order.c.lab_order_id
    either = invoiced.union_all(select(cancelled).where(cancelled == lab_order_id))
    return bool(await tx.fetch_all(either))


async def keep_cancelled(tx: Transaction, lab_order_id: UUID) -> None:
    kept = upsert(cancelled_lab_order).values(lab_order_id=lab_order_id, recorded_at=tx.now)
    await tx.execute(kept.on_conflict_do_nothing())
