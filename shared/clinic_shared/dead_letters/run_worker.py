"""Works redrive runs off: one message at a time, each in a transaction that also says what became of it.

Live messages wait for nothing of this: they have connections, lanes and transactions of their own.
"""

import asyncio
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from sqlalchemy import Row, case, exists, func, select, update
from sqlalchemy.orm import aliased

from clinic_shared import held, tracing
from clinic_shared.consumer import context_of
from clinic_shared.crash import crash_point
from clinic_shared.database import Transaction
from clinic_shared.dead_letters.handling import envelope_of, handle
from clinic_shared.dead_letters.selection import order
from clinic_shared.dead_letters.tables import item_table, run_table
from clinic_shared.dead_letters.workers import answers
from clinic_shared.deliveries import milliseconds_since
from clinic_shared.failures import Failure, Verdict, fingerprint, judge
from clinic_shared.health import Health
from clinic_shared.held import held_table
from clinic_shared.ids import uuid7
from clinic_shared.lookout import Lookout
from clinic_shared.loops import keep_running
from clinic_shared.metrics import REDRIVEN_MESSAGES

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

POLL_SECONDS = 0.5
TRIES = 3
MOST_TAKEN = 3
"""So often may processes take a message in hand and die; after that it fails like any other."""
KILLER_ERROR = "WorkerDied: processes ended while they handled this message"
LEASE = timedelta(seconds=2)
_GOING_ON = """
    SELECT 1 FROM redrive_run WHERE state = 'running' UNION ALL SELECT 1 FROM redrive_item WHERE state = 'waiting'
"""
_LOCKS = 0x0C11_7ED0
"""The class of the advisory locks without which nobody handles a message, however late with a lease."""


class RedriveWorker:
    """Takes the run that is due the longest, handles its next message, and looks again."""

    def __init__(self, runtime: "Runtime") -> None:
        self._database = runtime.database
        self._handlers = runtime.service.handlers
        self._health = Health.of(runtime)
        self._duty = Lookout.of(runtime).duty("redrive", _GOING_ON, every_seconds=POLL_SECONDS)
        self._id = uuid7()
        mine = run_table.c.worker.is_(None) | (run_table.c.worker == self._id)
        # What another worker has begun is its own until its lease is over: then it died.
        self._due_at = case(
            (mine, run_table.c.next_item_at),
            else_=func.greatest(run_table.c.next_item_at, run_table.c.leased_until),
        )

    async def run(self, stop: asyncio.Event) -> None:
        await keep_running("redrive", stop, partial(self._work, stop), self._health)

    async def _work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if await self.step():
                continue
            self._health.report("redrive", None)
            seconds = await self._seconds_to_next()
            if seconds is None:
                await self._release_left_behind()
            await self._duty.wait(stop, at_most=None if seconds is None else min(seconds, POLL_SECONDS))

    async def step(self) -> bool:
        """Handle one message of a run whose rate allows it now. Returns False when there is none."""
        async with self._database.transaction() as tx:
            run_id = await self._take_turn(tx)
            item = await _take_next(tx, run_id) if run_id is not None else None
            row = await _letter_of(tx, item) if item is not None else None
        if item is not None:
            crash_point("redrive.item.before")
            await self._settle(item, row)
        return run_id is not None

    async def _take_turn(self, tx: Transaction) -> UUID | None:
        """Return a run that may go on, put its next turn off by its rate, and keep others away from it."""
        now = func.clock_timestamp()
        due = (
            select(run_table.c.run_id)
            .where(run_table.c.state == "running", self._due_at <= now)
            .order_by(run_table.c.next_item_at)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        interval = func.make_interval(0, 0, 0, 0, 0, 0, 1.0 / run_table.c.rate_per_second)
        row = await tx.fetch_one(
            update(run_table)
            .where(run_table.c.run_id == due)
            .values(next_item_at=now + interval, worker=self._id, leased_until=now + LEASE)
            .returning(run_table.c.run_id)
        )
        return row.run_id if row is not None else None

    async def _seconds_to_next(self) -> float | None:
        """Return when there may be a turn; None when no run goes on."""
        seconds = func.extract("epoch", func.min(self._due_at) - func.clock_timestamp())
        async with self._database.transaction() as tx:
            row = await tx.fetch_one(select(seconds).where(run_table.c.state == "running"))
        return None if row is None or row[0] is None else max(float(row[0]), 0.0)

    async def _release_left_behind(self) -> None:
        """Release what a process held that died while its run was being cancelled."""
        left = (
            select(item_table.c.run_id, item_table.c.held_id)
            .join(run_table, run_table.c.run_id == item_table.c.run_id)
            .where(item_table.c.state == "waiting", run_table.c.state == "cancelled")
            .with_for_update(of=item_table, skip_locked=True)
        )
        async with self._database.transaction() as tx:
            for item in await tx.fetch_all(left):
                await _release(tx, item)
                await _record(tx, item, "cancelled")

    async def _settle(self, item: Row[Any], seen: Row[Any] | None) -> None:
        """Bring one message to an outcome; raise only when the database is gone."""
        if seen is None:
            await self._gone(item)
            return
        if item.tries > MOST_TAKEN:
            cause = fingerprint(self._database.service, seen.type, KILLER_ERROR)
            killer = Failure(cause=cause, error=KILLER_ERROR)
            await self._note(item, seen, killer, hopeless=True, duration_ms=None)
            return
        started_at = time.monotonic()
        for attempt in range(1, TRIES + 1):
            try:
                await self._apply(item, seen, started_at)
            except Exception as error:  # judged and noted, or raised again
                verdict = judge(error)
                if verdict is Verdict.DISCONNECTED and not await answers(self._database):
                    raise
                if verdict in {Verdict.TRANSIENT, Verdict.DISCONNECTED} and attempt < TRIES:
                    continue
                await self._failed(item, seen, error, verdict, milliseconds_since(started_at))
            return

    async def _gone(self, item: Row[Any]) -> None:
        """The schedule was faster."""
        async with self._database.transaction() as tx:
            if await _is_mine(tx, item):
                await _record(tx, item, "duplicate")

    async def _apply(self, item: Row[Any], seen: Row[Any], started_at: float) -> None:
        envelope = envelope_of(seen)
        with tracing.processing(envelope, consumer=self._database.service):
            async with self._database.transaction(context_of(envelope)) as tx:
                if await _is_mine(tx, item):
                    await self._apply_in(tx, item, started_at)
                    crash_point("redrive.commit.before")
        crash_point("redrive.commit.after")

    async def _apply_in(self, tx: Transaction, item: Row[Any], started_at: float) -> None:
        row = await tx.fetch_one(select(held_table).where(held_table.c.id == item.held_id).with_for_update())
        if row is None:
            await _record(tx, item, "duplicate")
            return
        if obstacle := await _obstacle(tx, item, row):
            await _release(tx, item)
            await _record(tx, item, "skipped", obstacle)
            return
        disposition = await handle(tx, self._handlers, row)
        await held.took_effect(tx, row, disposition, duration_ms=milliseconds_since(started_at))
        await _record(tx, item, disposition)

    async def _failed(
        self, item: Row[Any], row: Row[Any], error: Exception, verdict: Verdict, duration_ms: int
    ) -> None:
        failure = Failure.of(row.type, error, consumer=self._database.service)
        hopeless = verdict is Verdict.HOPELESS
        await self._note(item, row, failure, hopeless=hopeless, duration_ms=duration_ms)
        log.warning("redriven_message_failed", event_id=row.event_id, run_id=item.run_id, exc_info=error)

    async def _note(
        self, item: Row[Any], row: Row[Any], failure: Failure, *, hopeless: bool, duration_ms: int | None
    ) -> None:
        async with self._database.transaction() as tx:
            if not await _is_mine(tx, item):
                return
            await held.failed_again(
                tx,
                row,
                cause=failure.cause,
                error=failure.error,
                hopeless=hopeless,
                duration_ms=duration_ms,
            )
            await _record(tx, item, "failed", failure.error)


async def _take_next(tx: Transaction, run_id: UUID) -> Row[Any] | None:
    """Return a run's next message and count that it was taken; None while another process has the run."""
    if not await _has_run(tx, run_id):
        return None
    first = (
        select(item_table.c.held_id)
        .where(item_table.c.run_id == run_id, item_table.c.state == "waiting")
        .order_by(item_table.c.place, item_table.c.held_id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return await tx.fetch_one(
        update(item_table)
        .where(item_table.c.run_id == run_id, item_table.c.held_id == first)
        .values(tries=item_table.c.tries + 1)
        .returning(item_table)
    )


async def _letter_of(tx: Transaction, item: Row[Any]) -> Row[Any] | None:
    return await tx.fetch_one(select(held_table).where(held_table.c.id == item.held_id))


async def _has_run(tx: Transaction, run_id: UUID) -> bool:
    """Tell whether this process has the run until the transaction ends."""
    locked = await tx.fetch_one(select(func.pg_try_advisory_xact_lock(_LOCKS, func.hashtext(str(run_id)))))
    return bool(locked and locked[0])


async def _is_mine(tx: Transaction, item: Row[Any]) -> bool:
    """Tell whether this process has the run, and the message still waits in it."""
    if not await _has_run(tx, item.run_id):
        return False
    waiting = select(item_table.c.held_id).where(
        item_table.c.run_id == item.run_id,
        item_table.c.held_id == item.held_id,
        item_table.c.state == "waiting",
    )
    return await tx.fetch_one(waiting.with_for_update(skip_locked=True)) is not None


async def _obstacle(tx: Transaction, item: Row[Any], row: Row[Any]) -> str | None:
    """Return why a message must not be handled in this run, or None."""
    if row.run_id != item.run_id or row.state == "discarded":
        return "DecidedOtherwise"
    earlier = aliased(item_table)
    failed_before = exists().where(
        earlier.c.run_id == item.run_id,
        earlier.c.partition_key == item.partition_key,
        earlier.c.place < item.place,
        earlier.c.state.in_(("failed", "skipped")),
    )
    held_before = exists().where(
        held_table.c.partition_key == item.partition_key,
        held_table.c.state == "held",
        held_table.c.id != row.id,
        order < item.place,
    )
    found = await tx.fetch_one(select(failed_before.label("failed"), held_before.label("held")))
    if found is not None and found.failed:
        return "EarlierFailed"
    return "EarlierIsHeld" if found is not None and found.held else None


async def _release(tx: Transaction, item: Row[Any]) -> None:
    await tx.execute(
        update(held_table)
        .where(held_table.c.id == item.held_id, held_table.c.run_id == item.run_id)
        .values(run_id=None)
    )


async def _record(tx: Transaction, item: Row[Any], outcome: str, error: str | None = None) -> None:
    await tx.execute(
        update(item_table)
        .where(item_table.c.run_id == item.run_id, item_table.c.held_id == item.held_id)
        .values(state=outcome, error=error, settled_at=tx.now)
    )
    waiting = exists().where(item_table.c.run_id == item.run_id, item_table.c.state == "waiting")
    await tx.execute(
        update(run_table)
        .where(run_table.c.run_id == item.run_id, run_table.c.state == "running", ~waiting)
        .values(state="finished", finished_at=tx.now)
    )
    REDRIVEN_MESSAGES.labels(outcome).inc()
