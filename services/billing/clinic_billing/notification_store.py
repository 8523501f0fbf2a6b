"""The queries of provider notifications: which event was claimed by which item, and what became of it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.intake import intake_table
from clinic_shared.ledger import Dispositions
from sqlalchemy import Row, Select, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_billing.domain import STRIPE
from clinic_billing.tables import notification, provider_event


async def claim_event(tx: Transaction, provider: str, event_id: str, intake_id: UUID) -> bool:
    """Return False when the provider's event has taken effect, through whatever item."""
    # RETURNING, since SQLAlchemy doesn't promise a row count for an INSERT.
    row = await tx.fetch_one(
        upsert(provider_event)
        .values(provider=provider, event_id=event_id, intake_id=intake_id)
        .on_conflict_do_nothing()
        .returning(provider_event.c.event_id)
    )
    return row is not None


async def record(
    tx: Transaction,
    *,
    intake_id: UUID,
    event_id: str,
    event_type: str,
    disposition: str,
    reason: str | None,
    payment_id: UUID | None,
) -> None:
    await tx.execute(
        insert(notification).values(
            intake_id=intake_id,
            provider=STRIPE,
            event_id=event_id,
            event_type=event_type,
            disposition=disposition,
            reason=reason,
            payment_id=payment_id,
            decided_at=tx.now,
        )
    )


async def take_parked(tx: Transaction, intake_id: UUID) -> Row[Any]:
    """Take a parked item off the work list. Raises NotFoundError."""
    row = await tx.fetch_one(
        update(intake_table)
        .where(
            intake_table.c.id == intake_id,
            intake_table.c.interface == STRIPE,
            intake_table.c.state == "parked",
        )
        .values(state="processed", processed_at=tx.now)
        .returning(intake_table.c.body)
    )
    if row is None:
        raise NotFoundError
    return row


async def list_notifications(
    tx: Transaction, *, disposition: str | None, after: UUID | None, limit: int
) -> Sequence[Row[Any]]:
    """Return notifications by their ids, which is the order in which they came."""
    stands = func.coalesce(notification.c.disposition, _state_as_disposition())
    statement: Select[Any] = (
        select(
            intake_table.c.id.label("notification_id"),
            intake_table.c.received_at,
            intake_table.c.via,
            intake_table.c.last_error.label("error"),
            stands.label("disposition"),
            notification.c.reason,
            notification.c.event_id,
            notification.c.event_type,
            notification.c.payment_id,
        )
        .outerjoin(notification, notification.c.intake_id == intake_table.c.id)
        .where(intake_table.c.interface == STRIPE)
        .order_by(intake_table.c.id)
        .limit(limit)
    )
    if disposition is not None:
        statement = statement.where(stands == disposition)
    if after is not None:
        statement = statement.where(intake_table.c.id > after)
    return await tx.fetch_all(statement)


def _state_as_disposition() -> Any:
    return func.replace(intake_table.c.state, "received", "in-flight")


async def count_dispositions(tx: Transaction) -> Dispositions:
    """Count what was answered, and on its own what became of it; a copy of the same bytes is a duplicate."""
    taken = select(
        func.count().label("items"),
        func.coalesce(func.sum(intake_table.c.duplicates), 0).label("copies"),
        func.count().filter(intake_table.c.state == "parked").label("parked"),
        func.count().filter(intake_table.c.state == "received").label("in_flight"),
    ).where(intake_table.c.interface == STRIPE)
    [row] = await tx.fetch_all(taken)
    decided = select(notification.c.disposition, func.count().label("items"))
    counts = {
        found.disposition: found.items
        for found in await tx.fetch_all(decided.group_by(notification.c.disposition))
    }
    return Dispositions(
        answered=row.items + int(row.copies),
        applied=counts.get("applied", 0),
        parked=row.parked,
        rejected=counts.get("rejected", 0),
        superseded=counts.get("superseded", 0),
        duplicate=counts.get("duplicate", 0) + int(row.copies),
        discarded=counts.get("discarded", 0),
        in_flight=row.in_flight,
    )
