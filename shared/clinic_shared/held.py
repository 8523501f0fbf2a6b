"""Messages that could not take effect yet, kept in the consumer's own database.

A held row blocks its partition key: later messages of the key queue up behind it and are applied in
order once it is through. A parked row waits for a person and blocks nothing.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    Row,
    Table,
    Text,
    Uuid,
    delete,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from clinic_shared.database import Transaction
from clinic_shared.encryption.ciphers import Place
from clinic_shared.envelope import EVENT_TYPE, PREFIX
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
    Column("place", BigInteger),
    Column("root_event_id", Uuid),
    Column("corrects", BigInteger),
    Column("superseded_by", BigInteger),
    Column("run_id", Uuid),
    Column("settled_at", DateTime(timezone=True)),
    Column("data_key", LargeBinary),
)
"""A corrected copy has the `place` of its original in the order of the key, the original's `root_event_id`
and, in `corrects`, its row; `superseded_by` points back, and `settled_at` says when the copy took effect.
`run_id` is the redrive run that a message waits in. With a `data_key`, `body` is sealed with it."""

attempt_table = Table(
    "held_attempt",
    runtime_metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("held_id", BigInteger, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("attempted_at", DateTime(timezone=True), nullable=False),
    Column("duration_ms", Integer),
    Column("outcome", Text, nullable=False),
    Column("cause", Text),
    Column("error", Text),
    Column("release", Text, nullable=False),
    Column("run_id", Uuid),
)
"""What was tried when, by which release. Outlives the message's row, for whoever asks what became of it."""


class KeyIsWaitingError(Exception):
    """Earlier messages of the same key are held, so this one must queue up behind them."""


@dataclass(frozen=True, kw_only=True)
class RawMessage:
    """A delivery before it is understood: even what can't be read must be kept."""

    queue: str
    headers: Mapping[str, Any]
    body: bytes
    message_id: str | None = None
    sender: str | None = None

    @property
    def type(self) -> str:
        given = str(self.headers.get(PREFIX + "type"))
        return given if EVENT_TYPE.fullmatch(given) else "unknown"

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


async def hold(
    tx: Transaction, message: RawMessage, *, cause: str, error: str, duration_ms: int | None = None
) -> None:
    """Keep a message that failed; it is tried again by the schedule. Keeping it twice changes nothing."""
    held_id = await _keep(
        tx, message, state="held", attempt=1, next_at=tx.shared_now + SCHEDULE[0], cause=cause, error=error
    )
    await _note_first(tx, held_id, message, cause=cause, error=error, duration_ms=duration_ms)


async def hold_behind(tx: Transaction, message: RawMessage) -> None:
    """Keep a message that hasn't failed but must wait for earlier ones of its key."""
    await _keep(
        tx, message, state="held", attempt=0, next_at=tx.shared_now, cause="waiting", error="KeyIsWaiting"
    )


async def park(
    tx: Transaction, message: RawMessage, *, cause: str, error: str, duration_ms: int | None = None
) -> None:
    """Keep a message for a person to decide about."""
    held_id = await _keep(tx, message, state="parked", attempt=1, next_at=None, cause=cause, error=error)
    await _note_first(tx, held_id, message, cause=cause, error=error, duration_ms=duration_ms)


async def _keep(
    tx: Transaction,
    message: RawMessage,
    *,
    state: str,
    attempt: int,
    next_at: ColumnElement[datetime] | None,
    cause: str,
    error: str,
) -> int | None:
    """Return the new row's id, or None when the message is kept already."""
    row = {
        **sealed_body(tx, message.event_id, message.body),
        "event_id": message.event_id,
        "partition_key": message.partition_key,
        "type": message.type,
        "queue": message.queue,
        "headers": message.kept_headers(),
        "state": state,
        "cause": cause,
        "error": error,
        "attempt": attempt,
        "next_attempt_at": next_at,
        "first_failed_at": tx.now,
        "last_failed_at": tx.now,
    }
    statement = insert(held_table).values(**row).on_conflict_do_nothing(index_elements=["event_id"])
    kept = await tx.fetch_one(statement.returning(held_table.c.id))
    return None if kept is None else int(kept.id)


def sealed_body(tx: Transaction, event_id: UUID, body: bytes) -> dict[str, bytes | None]:
    """Return the columns that hold what a message says."""
    sealed = tx.keyring.seal_row(place_of_letter(tx.service, event_id), {"body": body})
    return {"body": sealed.values["body"], "data_key": sealed.data_key}


def body_of(tx: Transaction, row: Row[Any]) -> bytes:
    """Return what a kept message says, of a row with `event_id`, `data_key` and `body`."""
    return (
        tx.keyring.open_row(place_of_letter(tx.service, row.event_id), row.data_key, {"body": row.body})[
            "body"
        ]
        or b""
    )


def place_of_letter(service: str, event_id: UUID) -> Place:
    # Not the row's own id: the database gives that, and here it must be known before.
    return Place(service, "held", str(event_id))


async def _note_first(
    tx: Transaction,
    held_id: int | None,
    message: RawMessage,
    *,
    cause: str,
    error: str,
    duration_ms: int | None,
) -> None:
    if held_id is None:
        return
    await tx.execute(
        insert(attempt_table).values(
            **_attempt(tx, held_id, message.event_id, duration_ms), outcome="failed", cause=cause, error=error
        )
    )


def _attempt(tx: Transaction, held_id: int, event_id: UUID, duration_ms: int | None) -> dict[str, Any]:
    return {
        "held_id": held_id,
        "event_id": event_id,
        "attempted_at": tx.now,
        "duration_ms": duration_ms,
        "release": os.environ.get("CLINIC_RELEASE", "unreleased"),
    }


async def failed_again(
    tx: Transaction, row: Row[Any], *, cause: str, error: str, hopeless: bool, duration_ms: int | None = None
) -> str:
    """Note another failed attempt. Returns the row's state from now on.

    A held row goes on by the schedule or is parked after its last time; what a person let be handled
    again is parked at once: they look at what became of it.
    """
    attempt = row.attempt + 1
    parked = row.state != "held" or hopeless or attempt > len(SCHEDULE)
    state = "parked" if parked else "held"
    noted = await tx.fetch_one(
        update(held_table)
        .where(held_table.c.id == row.id, held_table.c.state == row.state)
        .values(
            state=state,
            attempt=attempt,
            next_attempt_at=None if parked else tx.shared_now + SCHEDULE[attempt - 1],
            last_failed_at=tx.now,
            cause=cause,
            error=error,
            run_id=None,
        )
        .returning(held_table.c.id)
    )
    if noted is not None:
        await tx.execute(
            insert(attempt_table).values(
                **_attempt(tx, row.id, row.event_id, duration_ms),
                outcome="failed",
                cause=cause,
                error=error,
                run_id=row.run_id,
            )
        )
    return state


async def took_effect(
    tx: Transaction, row: Row[Any], outcome: str, *, duration_ms: int | None = None
) -> None:
    """Let a row go whose message took effect (`applied`, or before this: `duplicate`)."""
    await tx.execute(delete(held_table).where(held_table.c.id == row.id))
    await tx.execute(
        insert(attempt_table).values(
            **_attempt(tx, row.id, row.event_id, duration_ms), outcome=outcome, run_id=row.run_id
        )
    )
    root = row.root_event_id
    if root is not None:
        originals = (held_table.c.event_id == root) | (held_table.c.root_event_id == root)
        await tx.execute(update(held_table).where(originals).values(settled_at=tx.now))
