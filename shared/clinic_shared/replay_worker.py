"""The owner's side of a replay: its own log, read by id in bounded steps, into the asker's queue.

The place in the log, count and checksum are committed after each batch, so a worker that dies goes on
where it was; what it had sent beyond that is sent again, and changes nothing there.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from sqlalchemy import select

from clinic_shared import replay
from clinic_shared.broker import (
    Broker,
    BrokerUnavailableError,
    Outcome,
    OutgoingMessage,
    Publisher,
    broker_errors,
)
from clinic_shared.context import Context
from clinic_shared.crash import crash_point
from clinic_shared.envelope import Envelope, body_of_row
from clinic_shared.event_sealing import JOIN_KEY, opened
from clinic_shared.events import Origin
from clinic_shared.health import Health
from clinic_shared.ids import uuid7
from clinic_shared.lookout import Lookout
from clinic_shared.loops import keep_running, pause
from clinic_shared.metrics import REPLAYED_EVENTS
from clinic_shared.rebuild_worker import AFTER_ID, PRODUCER, REPLAY_ID
from clinic_shared.relay_leases import Db, session, try_lock
from clinic_shared.replay import FIRST_ID, ReplayPurpose, job_table
from clinic_shared.topology import RPC_SECONDS, event_queue, replay_queue

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

BATCH = 500
POLL_SECONDS = 1.0
_ASKED_FOR = "SELECT 1 FROM replay_job WHERE state = 'running'"
LEADER_LOCK = 0x0C11_7202
BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"
FULL = {ReplayPurpose.REBUILD: 40, ReplayPurpose.RESEND: 5_000}
"""So many messages in the asker's queue, and the owner waits: the log can keep them better."""
DEFAULT_RATE = {ReplayPurpose.REBUILD: None, ReplayPurpose.RESEND: 500, ReplayPurpose.COUNT: None}

_SELECTED = """
    type = ANY(%(types)s) AND event_id >= %(first)s AND event_id <= %(high)s
    AND (%(end)s::uuid IS NULL OR event_id < %(end)s) AND (%(subject)s::uuid IS NULL OR subject = %(subject)s)
    AND (%(purpose)s = 'rebuild' OR carries IS NULL)
"""
_BEGIN = """
    UPDATE replay_job SET begun_at = now(), cursor_id = %s,
        high_water_id = (SELECT event_id FROM event ORDER BY event_id DESC LIMIT 1)
    WHERE replay_id = %s
"""
_COUNT = (
    f"UPDATE replay_job SET total = (SELECT count(*) FROM event WHERE {_SELECTED}) WHERE replay_id = %(id)s"  # noqa: S608
)
_NEXT = f"""
    SELECT event_id AS place, coalesce(carries, event_id) AS event_id, type, subject, aggregate_version,
           partition_key, occurred_at, recorded_at, origin, correlation_id, causation_id, traceparent, seal,
           data::text, CASE WHEN %(purpose)s = 'resend' THEN private::text END AS private,
           event_key.data_key AS event_key
    FROM event {JOIN_KEY} WHERE {_SELECTED} AND event_id > %(cursor)s ORDER BY place LIMIT %(batch)s
"""  # noqa: S608  # conditions of our own
_ADVANCE = """
    UPDATE replay_job SET cursor_id = %s, event_count = event_count + %s, checksum = %s
    WHERE replay_id = %s AND state = 'running'
"""


class NotTakenError(Exception):
    """The asker's queue isn't there or doesn't take more; the job goes on from its place later."""


class ReplayWorker:
    """Answers what this service was asked for, one replay after the other, the oldest first."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._service = runtime.service.name
        self._connection = Broker.of(runtime).publishing
        self._publisher = Publisher(self._connection)
        self._health = Health.of(runtime)
        self._duty = Lookout.of(runtime).duty("replay", _ASKED_FOR, every_seconds=POLL_SECONDS)

    async def run(self, stop: asyncio.Event) -> None:
        await keep_running("replay", stop, partial(self._lead, stop), self._health)
        self._publisher.close()

    async def _lead(self, stop: asyncio.Event) -> None:
        dsn = self._runtime.settings.database_url.get_secret_value()
        async with session(dsn, self._service) as db:
            # The log of years is read: a step may be longer than a request's statement.
            await db.execute("SET statement_timeout = '10min'")
            leads = False
            while not stop.is_set():
                leads = leads or await try_lock(db, LEADER_LOCK)
                if not (leads and await self.step(db, stop)):
                    await self._duty.wait(stop)
                self._health.report("replay", None)

    async def step(self, db: Db, stop: asyncio.Event) -> bool:
        """Send one batch of the oldest replay. Returns False when nobody waits for one."""
        job = await self._next_job()
        if job is None:
            return False
        if job.begun_at is None:
            await self._begin(db, job)
            return True
        if job.purpose == ReplayPurpose.COUNT:
            await self._complete(job, event_count=job.total or 0)
            return True
        begun = time.monotonic()
        rows = await (await db.execute(_NEXT, _parameters(job) | {"batch": BATCH})).fetchall()
        if not rows:
            await self._complete(job, event_count=job.event_count)
            return True
        await self._wait_for_room(job, stop)
        keyring = self._runtime.database.keyring
        await self._send(job, [opened(keyring, self._service, row) for row in rows])
        crash_point("replay.batch.sent")
        await self._advance(db, job, rows)
        rate = job.events_per_second or DEFAULT_RATE[ReplayPurpose(job.purpose)]
        if rate is not None:
            await pause(stop, len(rows) / rate - (time.monotonic() - begun))
        return True

    async def _next_job(self) -> Any:
        async with self._runtime.database.transaction() as tx:
            running = select(job_table).where(job_table.c.state == "running")
            return await tx.fetch_one(
                running.order_by(job_table.c.requested_at, job_table.c.replay_id).limit(1)
            )

    async def _begin(self, db: Db, job: Any) -> None:
        await db.execute(_BEGIN, (FIRST_ID, job.replay_id))
        begun = await self._next_job()
        if begun is not None and begun.replay_id == job.replay_id and begun.high_water_id is not None:
            await db.execute(_COUNT, _parameters(begun) | {"id": job.replay_id})
        log.info("replay_begun", replay_id=job.replay_id, purpose=job.purpose)

    async def _wait_for_room(self, job: Any, stop: asyncio.Event) -> None:
        while await self._depth(self._queue(job)) > FULL[ReplayPurpose(job.purpose)] and not stop.is_set():
            await pause(stop, 0.1)

    def _queue(self, job: Any) -> str:
        if job.purpose == ReplayPurpose.REBUILD:
            return replay_queue(job.consumer)
        return event_queue(job.consumer, self._service)

    async def _depth(self, queue: str) -> int:
        channel = await self._connection.channel()
        try:
            with broker_errors():
                declared = await channel.declare_queue(queue, passive=True, timeout=RPC_SECONDS)
            return declared.declaration_result.message_count or 0
        finally:
            self._connection.discard(channel)

    async def _send(self, job: Any, rows: Sequence[Any]) -> None:
        messages = (
            [self._batch(job, rows)] if job.purpose == ReplayPurpose.REBUILD else self._singles(job, rows)
        )
        outcomes = await asyncio.gather(*(self._publisher.publish(message) for message in messages))
        if any(outcome is Outcome.UNKNOWN for outcome in outcomes):
            raise BrokerUnavailableError
        if any(outcome is not Outcome.CONFIRMED for outcome in outcomes):
            raise NotTakenError(self._queue(job))

    def _batch(self, job: Any, rows: Sequence[Any]) -> OutgoingMessage:
        events = [
            self._envelope(row, Origin.REPLAY).attributes() | {"data": orjson.Fragment(body_of_row(row))}
            for row in rows
        ]
        return OutgoingMessage(
            exchange="",
            routing_key=replay_queue(job.consumer),
            message_id=str(uuid7()),
            headers={
                REPLAY_ID: str(job.replay_id),
                PRODUCER: self._service,
                AFTER_ID: str(job.cursor_id),
            },
            body=orjson.dumps(events),
            content_type=BATCH_CONTENT_TYPE,
        )

    def _singles(self, job: Any, rows: Sequence[Any]) -> list[OutgoingMessage]:
        origin = None if job.keep_origin else Origin.REPLAY
        return [
            OutgoingMessage(
                exchange="",
                routing_key=self._queue(job),
                message_id=str(row.event_id),
                headers=self._envelope(row, origin).headers() | {REPLAY_ID: str(job.replay_id)},
                body=body_of_row(row),
            )
            for row in rows
        ]

    def _envelope(self, row: Any, origin: Origin | None) -> Envelope:
        return Envelope.of_row(row, source=self._service, origin=origin)

    async def _advance(self, db: Db, job: Any, rows: Sequence[Any]) -> None:
        checksum = replay.add_up(int(job.checksum), [row.event_id for row in rows])
        await db.execute(_ADVANCE, (rows[-1].place, len(rows), checksum, job.replay_id))
        REPLAYED_EVENTS.labels(purpose=job.purpose).inc(len(rows))

    async def _complete(self, job: Any, *, event_count: int) -> None:
        context = Context(correlation_id=job.correlation_id)
        async with self._runtime.database.transaction(context) as tx:
            done = await tx.fetch_one(
                job_table.update()
                .where(job_table.c.replay_id == job.replay_id, job_table.c.state == "running")
                .values(state="complete", finished_at=tx.now, event_count=event_count)
                .returning(job_table)
            )
            if done is not None:
                tx.emit(replay.completed(done, producer=self._service, now=tx.now))
        log.info("replay_complete", replay_id=job.replay_id, event_count=event_count)


def _parameters(job: Any) -> dict[str, Any]:
    return {
        "types": job.event_types,
        "first": job.first_id,
        "high": job.high_water_id,
        "end": job.end_id,
        "subject": job.subject,
        "purpose": job.purpose,
        "cursor": job.cursor_id,
    }
