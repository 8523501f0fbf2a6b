"""Held messages are tried again by the schedule; what the broker gave up becomes a parked message."""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from aiormq.abc import DeliveredMessage
from sqlalchemy import Row, select
from sqlalchemy.orm import aliased

from clinic_shared import held, tracing
from clinic_shared.consumer import context_of
from clinic_shared.database import Database, Transaction
from clinic_shared.dead_letters.handling import envelope_of, handle
from clinic_shared.deliveries import (
    Subscriber,
    durably,
    milliseconds_since,
    raw_message,
    until_it_answers,
)
from clinic_shared.failures import Failure, Verdict, fingerprint, judge
from clinic_shared.health import Health
from clinic_shared.held import held_table
from clinic_shared.lookout import Lookout
from clinic_shared.loops import keep_running
from clinic_shared.topology import parking_queue

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

POLL_SECONDS = 0.5
_DUE = "SELECT 1 FROM held WHERE state = 'held' AND next_attempt_at <= now() AND run_id IS NULL"
KILLED_ERROR = "DeliveryLimit: processes died on this message until the broker gave up"


class HeldWorker:
    """Tries held messages again when they are due, each key's in order."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._database = runtime.database
        self._duty = Lookout.of(runtime).duty("held", _DUE, every_seconds=POLL_SECONDS)

    async def run(self, stop: asyncio.Event) -> None:
        health = Health.of(self._runtime)
        await keep_running("held", stop, partial(self._work, stop, health), health)

    async def _work(self, stop: asyncio.Event, health: Health) -> None:
        while not stop.is_set():
            if not await self.retry_next():
                health.report("held", None)
                await self._duty.wait(stop)

    async def retry_next(self) -> bool:
        """Try the message that is due the longest. Returns False when none is."""
        row = await self._next_due()
        if row is None:
            return False
        started_at = time.monotonic()
        try:
            await self._apply(row, started_at)
        except Exception as error:  # judged and noted, or raised again
            verdict = judge(error)
            if verdict is Verdict.DISCONNECTED and not await answers(self._database):
                raise
            await self._failed(row, error, verdict, milliseconds_since(started_at))
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
                .where(
                    held_table.c.state == "held",
                    held_table.c.next_attempt_at <= tx.shared_now,
                    held_table.c.run_id.is_(None),  # otherwise a redrive run has it in hand
                    first_of_its_key,
                )
                .order_by(held_table.c.next_attempt_at, held_table.c.id)
                .limit(1)
            )

    async def _apply(self, row: Row[Any], started_at: float) -> None:
        envelope = envelope_of(row)
        mine = select(held_table.c.id).where(held_table.c.id == row.id, held_table.c.state == "held")
        with tracing.processing(envelope, consumer=self._runtime.service.name):
            async with self._database.transaction(context_of(envelope)) as tx:
                if await tx.fetch_one(mine.with_for_update(skip_locked=True)) is None:
                    return
                disposition = await handle(tx, self._runtime.service.handlers, row)
                await held.took_effect(tx, row, disposition, duration_ms=milliseconds_since(started_at))

    async def _failed(self, row: Row[Any], error: Exception, verdict: Verdict, duration_ms: int) -> None:
        failure = Failure.of(row.type, error, consumer=self._database.service)
        async with self._database.transaction() as tx:
            state = await held.failed_again(
                tx,
                row,
                cause=failure.cause,
                error=failure.error,
                hopeless=verdict is Verdict.HOPELESS,
                duration_ms=duration_ms,
            )
        log.warning("held_message_failed", event_id=row.event_id, disposition=state, exc_info=error)


async def answers(database: Database) -> bool:
    """Tell whether the database answers, after an error that looked as if it didn't."""
    once = asyncio.Event()
    waiting = asyncio.create_task(until_it_answers(database, once))
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
            cause = fingerprint(tx.service, message.type, KILLED_ERROR)
            await held.park(tx, message, cause=cause, error=KILLED_ERROR)

        await durably(self._database, write, over)
        log.error("message_dead_lettered", event_id=message.event_id, queue=message.queue)
