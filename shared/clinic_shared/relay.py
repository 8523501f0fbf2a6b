"""From the outbox to the broker: every committed event and audit record, at least once, in order per key.

Pending rows are picked by being there, never by "id greater than the last", which would skip a
transaction that committed late. A row goes when the broker has confirmed it *and* the queues that
must get it were there: a missing queue loses its copy while the broker confirms the others'.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import httpx
import psycopg
import structlog
from psycopg.rows import namedtuple_row

from clinic_shared import contracts
from clinic_shared.broker import Broker, Outcome, OutgoingMessage, Publisher
from clinic_shared.crash import crash_point
from clinic_shared.envelope import Envelope
from clinic_shared.events import Origin
from clinic_shared.health import Health
from clinic_shared.ids import uuid7_time
from clinic_shared.loops import keep_running, pause
from clinic_shared.management import Management
from clinic_shared.telemetry import OUTBOX_OLDEST_SECONDS, OUTBOX_PENDING, RELAY_OUTCOMES
from clinic_shared.topology import AUDIT_EXCHANGE, QueueProbe, Topology, event_exchange, installed

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

Db = psycopg.AsyncConnection[Any]

BATCH = 1000
POLL_SECONDS = (0.05, 1.0)
STANDBY_SECONDS = 1.0
ROUTES_SECONDS = 5.0
LOCK = 0x0C11_71C1

_CONNECT_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "tcp_user_timeout": 10_000,
    # The planner must not take stale statistics of a table that is now empty, now full as a reason
    # to hash the whole event log.
    "options": "-c statement_timeout=15000 -c enable_hashjoin=off -c enable_mergejoin=off",
}

_PENDING = """
    WITH waiting AS MATERIALIZED (
        SELECT DISTINCT partition_key FROM outbox WHERE attempts > 0 AND next_attempt_at > now()
    ), next AS MATERIALIZED (
        SELECT id, event_id, last_error FROM outbox
        WHERE partition_key NOT IN (SELECT partition_key FROM waiting)
        ORDER BY id LIMIT %s
    )
    SELECT next.id, next.last_error, event.event_id, event.type, event.subject, event.aggregate_version,
           event.partition_key, event.occurred_at, event.recorded_at, event.origin, event.correlation_id,
           event.causation_id, event.traceparent, event.seal, event.data::text, event.private::text
    FROM next JOIN event USING (event_id) ORDER BY next.id
"""
_DELETE = "DELETE FROM outbox WHERE id = ANY(%s)"
_POSTPONE = """
    UPDATE outbox SET attempts = attempts + 1, last_error = %s,
        next_attempt_at = now() + least(300, 0.5 * power(2, least(attempts, 12))) * interval '1 second'
    WHERE id = ANY(%s)
"""
_NUMBER_AUDIT_RECORDS = """
    WITH fresh AS MATERIALIZED (
        SELECT id, row_number() OVER (ORDER BY id) AS position FROM audit_outbox WHERE pseq IS NULL
    ), producer AS (
        UPDATE audit_producer SET next_pseq = next_pseq + (SELECT count(*) FROM fresh)
        WHERE EXISTS (SELECT 1 FROM fresh) RETURNING next_pseq
    )
    UPDATE audit_outbox SET pseq = producer.next_pseq - (SELECT count(*) FROM fresh) + fresh.position - 1
    FROM fresh, producer WHERE audit_outbox.id = fresh.id
"""
_PENDING_AUDIT = """
    SELECT id, pseq, record, leaf_hash FROM audit_outbox WHERE pseq IS NOT NULL ORDER BY pseq LIMIT %s
"""
_DELETE_AUDIT = "DELETE FROM audit_outbox WHERE id = ANY(%s)"
_BACKLOG = (
    "SELECT count(*) AS pending, (SELECT event_id FROM outbox ORDER BY id LIMIT 1) AS oldest FROM outbox"
)


class RouteMissingError(Exception):
    """A queue or binding that must get our events isn't there: publishing would lose its copy."""


class _Pending(NamedTuple):
    row_id: int
    key: UUID
    suspect: bool
    message: OutgoingMessage


class Relay:
    """One per service: whoever holds the advisory lock publishes, others stand by."""

    def __init__(self, runtime: "Runtime") -> None:
        settings = runtime.settings
        self._service = runtime.service.name
        self._dsn = settings.database_url.get_secret_value()
        self._health = Health.of(runtime)
        self._connection = Broker.of(runtime).publishing
        self._publisher = Publisher(self._connection)
        self._routes = _Routes(runtime)
        self._bell = asyncio.Event()
        self._broadcast = {event.type for event in contracts.load().events.values() if event.broadcast}

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until told to stop; what is in flight is confirmed and marked first."""
        async with _companion(self._listen(stop)):
            await keep_running("relay", stop, partial(self._lead, stop), self._health)
        await self.aclose()

    async def aclose(self) -> None:
        self._publisher.close()
        await self._routes.aclose()

    async def _lead(self, stop: asyncio.Event) -> None:
        # Marking happens on the connection that holds the lock: who lost one can't do the other.
        async with session(self._dsn, self._service) as db:
            while not stop.is_set():
                if await _try_lock(db):
                    await self._relay(db, stop)
                self._health.report("relay", None)
                await pause(stop, STANDBY_SECONDS)

    async def _relay(self, db: Db, stop: asyncio.Event) -> None:
        idle, measured_at = POLL_SECONDS[0], 0.0
        while not stop.is_set():
            self._bell.clear()
            moved = await self.relay_once(db)
            if time.monotonic() - measured_at > ROUTES_SECONDS:
                measured_at = time.monotonic()
                await _measure(db)
            if moved:
                idle = POLL_SECONDS[0]
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_first_of(self._bell, stop), idle)
            idle = min(POLL_SECONDS[1], idle * 2)

    async def relay_once(self, db: Db) -> bool:
        """Publish one batch of events and of audit records. Returns whether anything was confirmed."""
        await self._connection.get()
        await self._routes.verify_now_and_then()
        self._health.report("relay", None)
        events = await self._relay_events(db)
        audit = await self._relay_audit_records(db)
        return events or audit

    async def _relay_events(self, db: Db) -> bool:
        rows = await (await db.execute(_PENDING, (BATCH,))).fetchall()
        if not rows:
            return False
        outcomes = await self._publish([self._event(row) for row in rows])
        crash_point("relay.confirm.after")
        await self._routes.must_exist(event_exchange(self._service))
        await db.execute(_DELETE, (_with_outcome(outcomes, Outcome.CONFIRMED),))
        for outcome in (Outcome.RETURNED, Outcome.NACKED, Outcome.PERMANENT):
            if ids := _with_outcome(outcomes, outcome):
                log.error("events_not_published", outcome=outcome, count=len(ids))
                await db.execute(_POSTPONE, (outcome.value, ids))
        crash_point("relay.mark.after")
        return Outcome.CONFIRMED in outcomes.values()

    async def _publish(self, pending: Sequence[_Pending]) -> dict[int, Outcome]:
        """Publish, one key's events one after the other and the keys side by side."""
        crash_point("relay.publish.before")
        outcomes: dict[int, Outcome] = {}
        by_key: dict[UUID, list[_Pending]] = {}
        for one in pending:
            by_key.setdefault(one.key, []).append(one)
        chains = list(by_key.values())
        await asyncio.gather(*(self._publish_chain(c, outcomes) for c in chains if not c[0].suspect))
        # The broker closes the channel on what it refuses for good, which fails everything in
        # flight with it: what failed so before goes alone, so that only the culprit fails again.
        for chain in chains:
            if chain[0].suspect:
                await self._publish_chain(chain, outcomes)
        for outcome, group in groupby(sorted(outcomes.values())):
            RELAY_OUTCOMES.labels(outcome=outcome).inc(len(list(group)))
        return outcomes

    async def _publish_chain(self, chain: Sequence[_Pending], outcomes: dict[int, Outcome]) -> None:
        for one in chain:
            outcome = await self._publisher.publish(one.message)
            crash_point("relay.publish.after")
            outcomes[one.row_id] = outcome
            if outcome is not Outcome.CONFIRMED:
                return

    def _event(self, row: Any) -> _Pending:
        envelope = Envelope(
            id=row.event_id,
            source=self._service,
            type=row.type,
            subject=row.subject,
            time=row.occurred_at,
            recorded_at=row.recorded_at,
            aggregate_version=row.aggregate_version,
            partition_key=row.partition_key,
            correlation_id=row.correlation_id,
            causation_id=row.causation_id,
            traceparent=row.traceparent,
            origin=Origin(row.origin),
            seal=row.seal,
        )
        private = f',"private":{row.private}' if row.private is not None else ""
        message = OutgoingMessage(
            exchange=event_exchange(self._service),
            routing_key=row.type,
            message_id=str(row.event_id),
            headers=envelope.headers(),
            # PostgreSQL's own JSON text: parsing it only to write it again would cost the most here.
            body=f'{{"data":{row.data}{private}}}'.encode(),
            mandatory=row.type not in self._broadcast,
        )
        return _Pending(row.id, row.partition_key, row.last_error == Outcome.PERMANENT.value, message)

    async def _relay_audit_records(self, db: Db) -> bool:
        await db.execute(_NUMBER_AUDIT_RECORDS)
        rows = await (await db.execute(_PENDING_AUDIT, (BATCH,))).fetchall()
        if not rows:
            return False
        messages = [self._audit_record(row) for row in rows]
        results = await asyncio.gather(*(self._publisher.publish(message) for message in messages))
        await self._routes.must_exist(AUDIT_EXCHANGE)
        confirmed = [
            row.id for row, outcome in zip(rows, results, strict=True) if outcome is Outcome.CONFIRMED
        ]
        await db.execute(_DELETE_AUDIT, (confirmed,))
        return bool(confirmed)

    def _audit_record(self, row: Any) -> OutgoingMessage:
        return OutgoingMessage(
            exchange=AUDIT_EXCHANGE,
            routing_key=self._service,
            message_id=f"{self._service}:{row.pseq}",
            headers={"producer": self._service, "pseq": row.pseq, "leaf_hash": row.leaf_hash.hex()},
            body=row.record,
        )

    async def _listen(self, stop: asyncio.Event) -> None:
        """Ring the bell when a transaction has left something. Only a hint: polling is the guarantee."""
        while not stop.is_set():
            try:
                async with session(self._dsn, self._service) as db:
                    await db.execute("LISTEN outbox")
                    self._bell.set()
                    async for _ in db.notifies():
                        self._bell.set()
            except psycopg.Error:
                await pause(stop, STANDBY_SECONDS)


class _Routes:
    """Are the queues and bindings there that must get what this service publishes?"""

    def __init__(self, runtime: "Runtime") -> None:
        settings = runtime.settings
        self._topology = Topology.of(installed(runtime))
        self._exchanges = (event_exchange(runtime.service.name), AUDIT_EXCHANGE)
        self._probe = QueueProbe(Broker.of(runtime).publishing)
        url = settings.amqp_management_url
        self._management = (
            Management(url.get_secret_value(), settings.amqp_url.get_secret_value()) if url else None
        )
        self._verified_at = 0.0

    async def must_exist(self, exchange: str) -> None:
        """Raise RouteMissingError unless every queue behind the exchange exists."""
        missing = await self._probe.missing(self._topology.queues_behind(exchange))
        if missing:
            self._verified_at = 0.0
            raise RouteMissingError(f"missing: {', '.join(missing)}")

    async def verify_now_and_then(self) -> None:
        """Before publishing: queues always after a failure, else every few seconds; bindings too."""
        if time.monotonic() - self._verified_at < ROUTES_SECONDS:
            return
        for exchange in self._exchanges:
            await self.must_exist(exchange)
            await self._must_be_bound(exchange)
        self._verified_at = time.monotonic()

    async def _must_be_bound(self, exchange: str) -> None:
        if self._management is None:
            return
        try:
            bound = await self._management.bindings_from(exchange)
        except httpx.HTTPError as error:
            # Without the management API the queues' existence is what can be known.
            log.warning("bindings_not_verified", exchange=exchange, exc_info=error)
            return
        missing = self._topology.bindings_of(exchange) - bound
        if missing:
            raise RouteMissingError(f"not bound: {', '.join(sorted(queue for queue, _ in missing))}")

    async def aclose(self) -> None:
        if self._management is not None:
            await self._management.close()


def _with_outcome(outcomes: dict[int, Outcome], wanted: Outcome) -> list[int]:
    return [row_id for row_id, outcome in outcomes.items() if outcome is wanted]


@contextlib.asynccontextmanager
async def session(dsn: str, service: str) -> AsyncIterator[Db]:
    """Open a connection of the relay's own, outside the pool: locks and LISTEN belong to a session."""
    name = f"clinic-{service}-relay"
    async with await psycopg.AsyncConnection.connect(
        dsn, row_factory=namedtuple_row, application_name=name, **_CONNECT_OPTIONS
    ) as db:
        yield db


async def _try_lock(db: Db) -> bool:
    row = await (await db.execute("SELECT pg_try_advisory_lock(%s) AS locked", (LOCK,))).fetchone()
    return bool(row and row.locked)


async def _measure(db: Db) -> None:
    row = await (await db.execute(_BACKLOG)).fetchone()
    if row is not None:
        OUTBOX_PENDING.set(row.pending)
        OUTBOX_OLDEST_SECONDS.set(time.time() - uuid7_time(row.oldest).timestamp() if row.oldest else 0)


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


@contextlib.asynccontextmanager
async def _companion(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
