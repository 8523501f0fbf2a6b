"""Working off what was taken in: the buffer queue first, then the rows, in the order of acceptance (`intake_order`).

An item that fails steps aside and is tried again by the schedule, then parked: one bad message of a
lab doesn't stop its others. Items that wait are processed several in one transaction; where one of them
fails, none has been, and each is processed by itself.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from aio_pika.abc import AbstractIncomingMessage, AbstractQueue
from sqlalchemy import ColumnElement, Row, func, select, true, update

from clinic_shared import held, tracing
from clinic_shared.broker import (
    ACKNOWLEDGE_SECONDS,
    Broker,
    BrokerUnavailableError,
    EntityMissingError,
    broker_errors,
)
from clinic_shared.context import Context
from clinic_shared.crash import crash_point
from clinic_shared.database import Transaction
from clinic_shared.encryption.ciphers import SealBrokenError
from clinic_shared.errors import NotFoundError
from clinic_shared.failures import Failure, Verdict, judge
from clinic_shared.health import Health
from clinic_shared.held import SCHEDULE, RawMessage
from clinic_shared.inbound.registry import Prepares, Process, work_off
from clinic_shared.inbound.tables import note
from clinic_shared.intake import decode
from clinic_shared.intake_custody import HOLD_SECONDS, LOST_SECONDS, Custody
from clinic_shared.intake_marks import all_marks, forget, is_unmarked
from clinic_shared.intake_order import by_turn
from clinic_shared.intake_roll import forget_silent, is_sure, somebody_is_silent
from clinic_shared.intake_store import Entry, Item, intake_table, item_of, store
from clinic_shared.lookout import INTAKE, Lookout
from clinic_shared.loops import keep_running, pause
from clinic_shared.topology import intake_queue

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

POLL_SECONDS = 0.2
GATHER_SECONDS = 0.1
"""What comes so shortly after a batch waits for the next: ten in one transaction cost hardly more than one."""
DRAIN_BATCH = 50
FETCH_SECONDS = 5.0
DRAIN_SECONDS = 1.0
STANDBY_SECONDS = 0.5
PATIENCE_SECONDS = 20.0
"""So long rows wait for a broker that can't be reached, and for marks of what is on its queue (`intake_marks`): with a
mark they wait for as long as it takes."""
TOGETHER = 16
TRIES = 3
_LOCK = 0x0C11_71C2
_DUE = "SELECT 1 FROM intake WHERE state = 'received' AND next_attempt_at <= now()"


@dataclass(frozen=True)
class _Seen:
    """What there was at one moment, before the queue is emptied."""

    up_to: Decimal | None
    """The place up to which rows may be processed then: what is durable came after what was confirmed onto the
    queue before it, and that is on the queue by now."""
    marks: Sequence[UUID]
    silence: bool


class IntakeWorker:
    """Hands items to their interface's function, each in one transaction with its new state."""

    def __init__(self, runtime: "Runtime", interfaces: Mapping[str, Process]) -> None:
        self._runtime = runtime
        self._database = runtime.database
        self._connection = Broker.of(runtime).consuming
        self._queue_name = intake_queue(runtime.service.name)
        self._queue: AbstractQueue | None = None
        self._interfaces = interfaces
        self._duty = Lookout.of(runtime).duty(INTAKE, _DUE, every_seconds=POLL_SECONDS)
        self._custody = Custody(runtime.settings.database_url.get_secret_value(), runtime.service.name)
        self._drained_at = 0.0
        self._unreachable_since: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        health = Health.of(self._runtime)
        await keep_running("intake", stop, partial(self._work, stop, health), health)
        if self._queue is not None:
            await self._queue.channel.close()

    async def _work(self, stop: asyncio.Event, health: Health) -> None:
        # After the database was away, other processes need a moment, too, before they can leave their marks.
        self._unreachable_since = None
        async with self._custody.session():
            while not stop.is_set():
                if await self._custody.take():
                    await self._take_turn(stop, health)
                else:
                    health.report("intake", None)
                    await pause(stop, STANDBY_SECONDS)

    async def _take_turn(self, stop: asyncio.Event, health: Health) -> None:
        seen = await self._look()
        drained = await self._drain_if_possible(stop, seen)
        waits, begun = self._waits_for_queue(seen), time.monotonic()
        # Told to stop, it may have left something on the queue.
        processed = 0 if waits or stop.is_set() else await self._process_seen(seen)
        self._report(health, seen, waits=waits)
        if waits:
            await pause(stop, POLL_SECONDS)
        elif not drained and not processed:
            await self._duty.wait(stop, at_most=DRAIN_SECONDS)
        elif not drained and processed < TOGETHER:
            await pause(stop, GATHER_SECONDS - (time.monotonic() - begun))

    async def _look(self) -> _Seen:
        async with self._database.transaction() as tx:
            place, _ = by_turn(intake_table)
            last = select(func.max(place)).where(*self._due(tx))
            row = await tx.fetch_one(
                select(
                    last.scalar_subquery().label("last"),
                    all_marks().scalar_subquery().label("marks"),
                    somebody_is_silent().label("silence"),
                )
            )
        return _Seen(None, (), False) if row is None else _Seen(row.last, row.marks or (), row.silence)

    async def _process_seen(self, seen: _Seen) -> int:
        return 0 if seen.up_to is None else await self.process_waiting(seen.up_to)

    async def _drain_if_possible(self, stop: asyncio.Event, seen: _Seen) -> int:
        """Empty the buffer queue. Returns how many items were in it."""
        is_urgent = seen.up_to is not None and self._unreachable_since is None
        if time.monotonic() - self._drained_at < DRAIN_SECONDS and not is_urgent:
            return 0
        drained, begun = 0, time.monotonic()
        try:
            while not stop.is_set() and (batch := await self.drain_batch()):
                drained += batch
                await self._custody.take()
            self._unreachable_since = None
        except (BrokerUnavailableError, EntityMissingError):
            log.info("intake_queue_unreachable", queue=self._queue_name)
            self._unreachable_since = self._unreachable_since or begun
        else:
            # It was empty only if nobody else could have had something of it until then.
            await self._custody.take()
            if (seen.marks or seen.silence) and not stop.is_set() and not self._custody.is_doubtful:
                async with self._database.transaction() as tx:
                    await forget(tx, seen.marks)
                    await forget_silent(tx)
        self._drained_at = time.monotonic()
        return drained

    def _waits_for_queue(self, seen: _Seen) -> bool:
        """What is on the queue may be older than the rows. With a mark it is; without, they lose patience."""
        if self._custody.is_doubtful and seen.marks:
            return True
        since = self._unreachable_since
        return since is not None and (bool(seen.marks) or time.monotonic() - since < PATIENCE_SECONDS)

    @property
    def _may_be_overtaking(self) -> bool:
        return self._unreachable_since is not None or self._custody.is_doubtful

    def _report(self, health: Health, seen: _Seen, *, waits: bool) -> None:
        if not waits or seen.up_to is None:
            health.report("intake", None)
            return
        reason = f"waits for {self._queue_name}, which may hold what is older than the rows"
        if health.reasons.get("intake") != reason:
            log.warning("intake_waits_for_queue", queue=self._queue_name, is_marked=bool(seen.marks))
        health.report("intake", reason)

    async def drain_batch(self) -> int:
        """Move up to a batch of items from the queue into the table; returns how many."""
        try:
            async with asyncio.timeout(HOLD_SECONDS):
                return await self._drain_batch()
        except Exception:
            # What was fetched and not stored must go back, or a later acknowledgement would cover it.
            if self._queue is not None:
                self._custody.doubt(LOST_SECONDS)
                self._connection.discard(self._queue.channel)
                self._queue = None
            raise

    async def _drain_batch(self) -> int:
        messages = await self._fetch()
        if not messages:
            return 0
        async with self._database.transaction() as tx:
            entries = [entry for message in messages if (entry := await self._read(tx, message))]
            await store(tx, entries, "queue")
        crash_point("intake.drain.after")
        with broker_errors():
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                # The last one's tag stands for all: they were fetched on this channel and all stored.
                await messages[-1].ack(multiple=True)
        return len(messages)

    async def _read(self, tx: Transaction, message: AbstractIncomingMessage) -> Entry | None:
        try:
            return decode(message.body, tx.keyring, tx.service)
        except (ValueError, KeyError, TypeError, SealBrokenError) as error:
            raw = RawMessage(
                queue=self._queue_name, headers={}, body=message.body, message_id=message.message_id
            )
            failure = Failure.of("intake", error, consumer=tx.service)
            await held.park(tx, raw, cause=failure.cause, error=failure.error)
            return None

    async def _fetch(self) -> list[AbstractIncomingMessage]:
        if self._queue is None or self._queue.channel.is_closed:
            channel = await self._connection.channel()
            with broker_errors():
                self._queue = await channel.get_queue(self._queue_name, ensure=False)
        messages: list[AbstractIncomingMessage] = []
        begun = time.monotonic()
        with broker_errors():
            while len(messages) < DRAIN_BATCH and time.monotonic() - begun < FETCH_SECONDS:
                message = await self._queue.get(fail=False)
                if message is None:
                    break
                messages.append(message)
        return messages

    async def process_waiting(self, up_to: Decimal | None = None) -> int:
        """Process the first items that are due, `up_to` a place; returns how many."""
        try:
            return await self._process([], TOGETHER, up_to)
        except Exception as error:
            if judge(error) is Verdict.DISCONNECTED:
                raise
            log.info("processed_one_by_one", exc_info=error)
        processed = 0
        while processed < TOGETHER and await self.process_next(up_to):
            processed += 1
        return processed

    async def process_next(self, up_to: Decimal | None = None) -> int:
        """Process the first item that is due. Returns 0 when none is."""
        for attempt in range(1, TRIES + 1):
            seen: list[Row[Any]] = []
            try:
                return await self._process(seen, 1, up_to)
            except Exception as error:  # judged and noted, or raised again
                verdict = judge(error)
                if verdict is Verdict.DISCONNECTED or not seen:
                    raise
                if verdict is not Verdict.TRANSIENT or attempt == TRIES:
                    await self._failed(seen[0], error, verdict)
                    return 1
        return 1

    async def _process(self, seen: list[Row[Any]], most: int, up_to: Decimal | None) -> int:
        with ExitStack() as traces:  # their spans end after the commit
            async with self._database.transaction() as tx:
                seen += await self._claim(tx, most, up_to)
                if not seen:
                    return 0
                items = [item_of(tx, row) for row in seen]
                await self._prepare(tx, items)
                for row, item in zip(seen, items, strict=True):
                    traces.enter_context(tracing.taking_up(item))
                    tx.context = Context(correlation_id=item.correlation_id, traceparent=item.traceparent)
                    crash_point("intake.process.before")
                    await work_off(self._interfaces[item.interface], tx, row, item)
                done = update(intake_table).where(intake_table.c.id.in_([row.id for row in seen]))
                await tx.execute(done.values(state="processed", processed_at=tx.now, last_error=None))
        crash_point("intake.process.commit")
        return len(seen)

    async def _prepare(self, tx: Transaction, items: Sequence[Item]) -> None:
        together: dict[Process, list[Item]] = {}
        for item in items:
            together.setdefault(self._interfaces[item.interface], []).append(item)
        for process, of_one in together.items():
            if isinstance(process, Prepares):
                await process.prepare(tx, of_one)

    async def _claim(self, tx: Transaction, most: int, up_to: Decimal | None) -> Sequence[Row[Any]]:
        # One worker at a time: two of them would overtake each other within a sender's messages.
        mine = await tx.fetch_one(select(func.pg_try_advisory_xact_lock(_LOCK)))
        if mine is None or not mine[0]:
            return []
        place, item_id = by_turn(intake_table)
        return await tx.fetch_all(
            select(intake_table)
            .where(
                *self._due(tx),
                true() if up_to is None else place <= up_to,
                # In one look with the rows: a mark is committed with the row that must wait, or before it.
                is_unmarked() if self._may_be_overtaking else true(),
                true() if self._unreachable_since is None else is_sure(),
            )
            .order_by(place, item_id)
            .limit(most)
            .with_for_update()
        )

    def _due(self, tx: Transaction) -> Sequence[ColumnElement[bool]]:
        return (
            intake_table.c.state == "received",
            intake_table.c.next_attempt_at <= tx.shared_now,
            intake_table.c.interface.in_(self._interfaces),
        )

    async def _failed(self, row: Row[Any], error: Exception, verdict: Verdict) -> None:
        parked = verdict is Verdict.HOPELESS or row.attempts >= len(SCHEDULE)
        failure = Failure.of(row.interface, error, consumer=self._database.service)
        async with self._database.transaction() as tx:
            await tx.execute(
                update(intake_table)
                .where(intake_table.c.id == row.id)
                .values(
                    state="parked" if parked else "received",
                    attempts=row.attempts + 1,
                    next_attempt_at=tx.shared_now + SCHEDULE[min(row.attempts, len(SCHEDULE) - 1)],
                    last_error=failure.error,
                    cause=failure.cause,
                )
            )
            note(tx, row.id, step="parked" if parked else "failed", error=failure.error)
        log.warning(
            "intake_item_failed",
            item_id=row.id,
            interface=row.interface,
            disposition="parked" if parked else "received",
            exc_info=error,
        )


async def waiting(tx: Transaction) -> dict[str, int]:
    """Return how many items stand in which state, those processed left out."""
    statement = select(intake_table.c.state, func.count().label("items")).where(
        intake_table.c.state != "processed"
    )
    return {row.state: row.items for row in await tx.fetch_all(statement.group_by(intake_table.c.state))}


async def redrive_item(tx: Transaction, item_id: UUID) -> None:
    """Let a parked item be processed again. Raises NotFoundError."""
    result = await tx.execute(
        update(intake_table)
        .where(intake_table.c.id == item_id, intake_table.c.state == "parked")
        .values(state="received", attempts=0, next_attempt_at=tx.shared_now)
    )
    if result.rowcount == 0:
        raise NotFoundError
    note(tx, item_id, step="reprocess", decided_by=tx.context.principal.subject)
