"""Messages that could not take effect yet, kept in the consumer's own database.

A held row blocks its partition key: later messages of the key queue up behind it and are applied in
order once it is through. A parked row waits for a person and blocks nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    Row,
    Table,
    Text,
    Uuid,
    exists,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from clinic_shared.database import Transaction
from clinic_shared.envelope import PREFIX
from clinic_shared.events import runtime_metadata

SCHEDULE = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 3600))
"""When a held message is tried again; after the last time it is parked."""

_UNREADABLE = UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")

held_table = Table(
    "held",
    runtime_metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Uuid, nullable=False, unique=True),
    Column("partition_key", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("next_attempt_at", DateTime(timezone=True)),
    Column("first_failed_at", DateTime(timezone=True), nullable=False),
    Column("last_failed_at", DateTime(timezone=True), nullable=False),
    Column("decided_by", Uuid),
    Column("decided_at", DateTime(timezone=True)),
    Column("reason", Text),
)


class KeyIsWaitingError(Exception):
    """Earlier messages of the same key are held, so this one must queue up behind them."""


@dataclass(frozen=True, kw_only=True)
class RawMessage:
    """A delivery before it is understood: even what can't be read must be kept."""

    queue: str
    headers: Mapping[str, Any]
    body: bytes
    message_id: str | None = None

    @property
    def type(self) -> str:
        return str(self.headers.get(PREFIX + "type") or "unknown")

    @property
    def event_id(self) -> UUID:
        """The event's id, or one made of the content, which a redelivery doesn't change."""
        return _uuid(self.headers.get(PREFIX + "id")) or _uuid(self.message_id) or self._digest

    @property
    def partition_key(self) -> UUID:
        return _uuid(self.headers.get(PREFIX + "partitionkey")) or self.event_id

    @property
    def _digest(self) -> UUID:
        return uuid5(_UNREADABLE, f"{self.queue}:{self.type}:{self.body.hex()}")

    def kept_headers(self) -> dict[str, Any]:
        """Return the event's own attributes, without what brokers added on the way."""
        return {name: value for name, value in self.headers.items() if name.startswith(PREFIX)}


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(str(value))
    except ValueError:
        return None


async def is_waiting(tx: Transaction, *partition_keys: UUID) -> bool:
    """Tell whether earlier messages of one of these keys are held."""
    of_these = held_table.c.partition_key == func.any(literal(list(partition_keys), ARRAY(Uuid)))
    row = await tx.fetch_one(select(exists().where(of_these, held_table.c.state == "held")))
    return bool(row and row[0])


async def hold(tx: Transaction, message: RawMessage, *, cause: str, error: str) -> None:
    """Keep a message that failed; it is tried again by the schedule. Keeping it twice changes nothing."""
    await _keep(tx, message, state="held", attempt=1, next_at=tx.now + SCHEDULE[0], cause=cause, error=error)


async def hold_behind(tx: Transaction, message: RawMessage) -> None:
    """Keep a message that hasn't failed but must wait for earlier ones of its key."""
    await _keep(tx, message, state="held", attempt=0, next_at=tx.now, cause="waiting", error="KeyIsWaiting")


async def park(tx: Transaction, message: RawMessage, *, cause: str, error: str) -> None:
    """Keep a message for a person to decide about."""
    await _keep(tx, message, state="parked", attempt=1, next_at=None, cause=cause, error=error)


async def _keep(
    tx: Transaction,
    message: RawMessage,
    *,
    state: str,
    attempt: int,
    next_at: datetime | None,
    cause: str,
    error: str,
) -> None:
    row = {
        "event_id": message.event_id,
        "partition_key": message.partition_key,
        "type": message.type,
        "queue": message.queue,
        "headers": message.kept_headers(),
        "body": message.body,
        "state": state,
        "cause": cause,
        "error": error,
        "attempt": attempt,
        "next_attempt_at": next_at,
        "first_failed_at": tx.now,
        "last_failed_at": tx.now,
    }
    await tx.execute(insert(held_table).values(**row).on_conflict_do_nothing(index_elements=["event_id"]))


async def failed_again(tx: Transaction, row: Row[Any], *, cause: str, error: str, hopeless: bool) -> str:
    """Note another failed attempt of a held row. Returns its state from now on."""
    attempt = row.attempt + 1
    parked = hopeless or attempt > len(SCHEDULE)
    state = "parked" if parked else "held"
    await tx.execute(
        update(held_table)
        .where(held_table.c.id == row.id, held_table.c.state == "held")
        .values(
            state=state,
            attempt=attempt,
            next_attempt_at=None if parked else tx.now + SCHEDULE[attempt - 1],
            last_failed_at=tx.now,
            cause=cause,
            error=error,
        )
    )
    return state
