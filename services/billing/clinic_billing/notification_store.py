"""The queries of provider notifications: which event was claimed by which item, and what became of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.inbound.accounts import Interface
from clinic_shared.intake import intake_table
from sqlalchemy import Row, Select, Update, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_billing.providers.port import Notice
from clinic_billing.settings import KNOWN_PROVIDERS
from clinic_billing.tables import notification, provider_event

if TYPE_CHECKING:
    from clinic_billing.notifications import Outcome


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
    tx: Transaction, *, intake_id: UUID, provider: str, notice: Notice, outcome: "Outcome"
) -> None:
    await tx.execute(
        insert(notification).values(
            intake_id=intake_id,
            provider=provider,
            event_id=notice.event_id,
            event_type=notice.event_type,
            claim=notice.claim.value,
            payment_reference=notice.payment_reference,
            disposition=outcome.disposition.value,
            reason=outcome.reason,
            error=outcome.error,
            payment_id=outcome.payment_id,
            decided_at=tx.now,
        )
    )


async def conclude(tx: Transaction, intake_id: UUID, outcome: "Outcome") -> None:
    """Note what became of a notification in flight."""
    await tx.execute(
        _of(intake_id, "in-flight").values(
            disposition=outcome.disposition.value,
            reason=outcome.reason,
            error=outcome.error,
            payment_id=outcome.payment_id,
            decided_at=tx.now,
        )
    )


async def find(tx: Transaction, intake_id: UUID) -> Row[Any] | None:
    """Return a notification with the instant at which it came."""
    return await tx.fetch_one(
        select(notification, intake_table.c.received_at)
        .join(intake_table, intake_table.c.id == notification.c.intake_id)
        .where(notification.c.intake_id == intake_id)
    )


async def reopen_parked(tx: Transaction, intake_id: UUID) -> bool:
    """Return False when it isn't parked after a reading."""
    reopened = _of(intake_id, "parked").values(disposition="in-flight", error=None, decided_at=tx.now)
    return await tx.fetch_one(reopened.returning(notification.c.intake_id)) is not None


async def discard_parked(tx: Transaction, intake_id: UUID, *, reason: str) -> bool:
    """Return False when it isn't parked after a reading."""
    discarded = _of(intake_id, "parked").values(disposition="discarded", reason=reason, decided_at=tx.now)
    return await tx.fetch_one(discarded.returning(notification.c.intake_id)) is not None


def _of(intake_id: UUID, disposition: str) -> Update:
    mine = update(notification).where(notification.c.intake_id == intake_id)
    return mine.where(notification.c.disposition == disposition)


async def take_parked(tx: Transaction, intake_id: UUID) -> str | None:
    """Take an item that couldn't be read off the work list; returns whose it was, None if it isn't parked."""
    row = await tx.fetch_one(
        update(intake_table)
        .where(
            intake_table.c.id == intake_id,
            intake_table.c.interface.in_(KNOWN_PROVIDERS),
            intake_table.c.state == "parked",
        )
        .values(state="processed", processed_at=tx.now)
        .returning(intake_table.c.interface)
    )
    return None if row is None else str(row.interface)


async def list_notifications(
    tx: Transaction, *, disposition: str | None, after: UUID | None, limit: int
) -> Sequence[Row[Any]]:
    """Return notifications by their ids: as they came, by the clocks of those who took them in."""
    stands = func.coalesce(notification.c.disposition, _state_as_disposition())
    statement: Select[Any] = (
        select(
            intake_table.c.id.label("notification_id"),
            intake_table.c.interface.label("provider"),
            intake_table.c.received_at,
            intake_table.c.via,
            func.coalesce(notification.c.error, intake_table.c.last_error).label("error"),
            stands.label("disposition"),
            notification.c.reason,
            notification.c.event_id,
            notification.c.event_type,
            notification.c.payment_id,
        )
        .outerjoin(notification, notification.c.intake_id == intake_table.c.id)
        .where(intake_table.c.interface.in_(KNOWN_PROVIDERS))
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


NOTIFICATIONS = Interface(
    fates=select(notification.c.intake_id.label("item_id"), notification.c.disposition, notification.c.reason)
)
"""How they are counted: each has one disposition, once it has been processed."""
