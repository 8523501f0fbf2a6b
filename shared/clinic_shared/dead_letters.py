"""Held and parked messages: tried again by the schedule, shown, redriven or discarded by a person.

Redriving handles the message again with its origin unchanged; a person's decision is audited.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from aiormq.abc import DeliveredMessage
from sqlalchemy import ColumnElement, Row, delete, func, select, update
from sqlalchemy.orm import aliased

from clinic_shared import held, tracing
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.consumer import context_of, take_effect
from clinic_shared.database import Transaction
from clinic_shared.deliveries import Subscriber, durably, raw_message, until_it_answers
from clinic_shared.envelope import Envelope
from clinic_shared.errors import NotFoundError
from clinic_shared.failures import Failure, Verdict, judge
from clinic_shared.health import Health
from clinic_shared.held import held_table
from clinic_shared.loops import keep_running, pause
from clinic_shared.topology import parking_queue

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

POLL_SECONDS = 0.5
REDRIVE_INTERVAL = timedelta(milliseconds=20)
"""Redriven messages become due one after the other, so that a thousand don't drown live ones."""
KILLED_CAUSE = "delivery-limit"
KILLED_ERROR = "processes died on this message until the broker gave up"


class HeldWorker:
    """Tries held messages again when they are due, each key's in order."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._database = runtime.database

    async def run(self, stop: asyncio.Event) -> None:
        health = Health.of(self._runtime)
        await keep_running("held", stop, partial(self._work, stop, health), health)

    async def _work(self, stop: asyncio.Event, health: Health) -> None:
        while not stop.is_set():
            if not await self.retry_next():
                health.report("held", None)
                await pause(stop, POLL_SECONDS)

    async def retry_next(self) -> bool:
        """Try the message that is due the longest. Returns False when none is."""
        row = await self._next_due()
        if row is None:
            return False
        try:
            await self._apply(row)
        except Exception as error:  # judged and noted, or raised again
            verdict = judge(error)
            if verdict is Verdict.DISCONNECTED and not await self._answers():
                raise
            await self._failed(row, error, verdict)
        return True

    async def _next_due(self) -> Row[Any] | None:
        earlier = aliased(held_table)
        first_of_its_key = (
            ~select(earlier.c.id)
            .where(
                earlier.c.partition_key == held_table.c.partition_key,
                earlier.c.state == "held",
                earlier.c.id < held_table.c.id,
            )
            .exists()
        )
        async with self._database.transaction() as tx:
            return await tx.fetch_one(
                select(held_table)
                .where(held_table.c.state == "held", held_table.c.next_attempt_at <= tx.now, first_of_its_key)
                .order_by(held_table.c.next_attempt_at, held_table.c.id)
                .limit(1)
            )

    async def _apply(self, row: Row[Any]) -> None:
        envelope = Envelope.from_headers(row.headers)
        mine = held_table.c.id == row.id
        with tracing.processing(envelope, consumer=self._runtime.service.name):
            async with self._database.transaction(context_of(envelope)) as tx:
                claim = select(held_table.c.id).where(mine, held_table.c.state == "held")
                if await tx.fetch_one(claim.with_for_update(skip_locked=True)) is None:
                    return
                await take_effect(tx, self._runtime.service.handlers, envelope, row.body)
                await tx.execute(delete(held_table).where(mine))

    async def _failed(self, row: Row[Any], error: Exception, verdict: Verdict) -> None:
        failure = Failure.of(row.type, error)
        async with self._database.transaction() as tx:
            state = await held.failed_again(
                tx, row, cause=failure.cause, error=failure.error, hopeless=verdict is Verdict.HOPELESS
            )
        log.warning("held_message_failed", event_id=row.event_id, disposition=state, exc_info=error)

    async def _answers(self) -> bool:
        once = asyncio.Event()
        waiting = asyncio.create_task(until_it_answers(self._database, once))
        done, _ = await asyncio.wait({waiting}, timeout=POLL_SECONDS)
        once.set()
        await waiting
        return bool(done)


class ParkingDrain:
    """Takes what the broker dead-lettered out of the parking queue, into the table, as parked."""

    def __init__(self, runtime: "Runtime") -> None:
        self._database = runtime.database
        self._subscriber = Subscriber(runtime, parking_queue(runtime.service.name), self._park)

    async def run(self, stop: asyncio.Event) -> None:
        await self._subscriber.run(stop)

    async def _park(self, delivery: DeliveredMessage, over: asyncio.Event) -> None:
        headers = delivery.header.properties.headers or {}
        message = raw_message(delivery, str(headers.get("x-first-death-queue", "")))

        async def write(tx: Transaction) -> None:
            await held.park(tx, message, cause=KILLED_CAUSE, error=KILLED_ERROR)

        await durably(self._database, write, over)
        log.error("message_dead_lettered", event_id=message.event_id, queue=message.queue)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Messages that wait for the same reason."""

    state: str
    cause: str
    type: str
    error: str
    count: int
    oldest_at: datetime


async def count_by_state(tx: Transaction) -> dict[str, int]:
    statement = select(held_table.c.state, func.count().label("messages")).group_by(held_table.c.state)
    return {row.state: row.messages for row in await tx.fetch_all(statement)}


async def groups(tx: Transaction) -> list[Group]:
    """Return what waits, grouped by cause, the largest group first."""
    rows = await tx.fetch_all(
        select(
            held_table.c.state,
            held_table.c.cause,
            held_table.c.type,
            func.max(held_table.c.error).label("error"),
            func.count().label("count"),
            func.min(held_table.c.first_failed_at).label("oldest_at"),
        )
        .where(held_table.c.state != "discarded")
        .group_by(held_table.c.state, held_table.c.cause, held_table.c.type)
        .order_by(func.count().desc())
    )
    return [Group(**row._mapping) for row in rows]  # noqa: SLF001  # SQLAlchemy's public name for it


def selection(
    *, ids: Sequence[int] = (), cause: str | None = None, state: str | None = None
) -> list[ColumnElement[bool]]:
    """Return the condition for these rows: given ones, all of a cause, all in a state."""
    conditions: list[ColumnElement[bool]] = []
    if ids:
        conditions.append(held_table.c.id.in_(ids))
    if cause is not None:
        conditions.append(held_table.c.cause == cause)
    if state is not None:
        conditions.append(held_table.c.state == state)
    return conditions


async def listed(
    tx: Transaction, where: Sequence[ColumnElement[bool]] = (), *, limit: int = 100, after_id: int = 0
) -> Sequence[Row[Any]]:
    """Return rows without their bodies, oldest first."""
    columns = [column for column in held_table.c if column.name != "body"]
    statement = select(*columns).where(held_table.c.id > after_id, *where).order_by(held_table.c.id)
    return await tx.fetch_all(statement.limit(limit))


async def shown(tx: Transaction, row_id: int) -> Row[Any]:
    """Return one row without its body. Raises NotFoundError."""
    rows = await listed(tx, selection(ids=[row_id]))
    if not rows:
        raise NotFoundError
    return rows[0]


async def redrive(tx: Transaction, where: Sequence[ColumnElement[bool]]) -> int:
    """Let held, parked or discarded messages be handled again, in order per key, at a limited rate.

    Returns how many. The attempts start anew.
    """
    ids = (await tx.execute(select(held_table.c.id).where(*where).order_by(held_table.c.id))).scalars().all()
    for position, row_id in enumerate(ids):
        await tx.execute(
            update(held_table)
            .where(held_table.c.id == row_id)
            .values(
                state="held",
                attempt=0,
                next_attempt_at=tx.now + position * REDRIVE_INTERVAL,
                decided_by=tx.context.principal.subject,
                decided_at=tx.now,
            )
        )
        _audit(tx, row_id, "redrive", reason=None)
    return len(ids)


async def discard(tx: Transaction, where: Sequence[ColumnElement[bool]], *, reason: str) -> int:
    """Let messages be, for a reason that a person gives. They stay visible. Returns how many."""
    decided = await tx.execute(
        update(held_table)
        .where(held_table.c.state != "discarded", *where)
        .values(
            state="discarded",
            next_attempt_at=None,
            decided_by=tx.context.principal.subject,
            decided_at=tx.now,
            reason=reason,
        )
        .returning(held_table.c.id)
    )
    ids = decided.scalars().all()
    for row_id in ids:
        _audit(tx, row_id, "discard", reason=reason)
    return len(ids)


def _audit(tx: Transaction, row_id: int, decision: str, *, reason: str | None) -> None:
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="DeadLetter",
            resource_id=str(row_id),
            reason=reason,
            details={"decision": decision},
        )
    )


class _RehearsedError(Exception):
    """Ends a dry run's transaction without a commit."""


async def dry_run(runtime: "Runtime", row_id: int) -> str | None:
    """Handle a message and roll everything back. Returns the error it would end with, or None."""
    async with runtime.database.transaction() as tx:
        row = await tx.fetch_one(select(held_table).where(held_table.c.id == row_id))
    if row is None:
        raise NotFoundError
    try:
        await _rehearse(runtime, row)
    except _RehearsedError:
        return None
    except Exception as error:  # noqa: BLE001  # the answer to the question that was asked
        return Failure.of(row.type, error).error


async def _rehearse(runtime: "Runtime", row: Row[Any]) -> NoReturn:
    envelope = Envelope.from_headers(row.headers)
    async with runtime.database.transaction(context_of(envelope)) as tx:
        await take_effect(tx, runtime.service.handlers, envelope, row.body)
        await tx.flush()
        raise _RehearsedError
