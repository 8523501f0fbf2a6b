"""From the outbox to the broker: every committed event and audit record, at least once, in order per key.

Pending rows are picked by being there, never by "id greater than the last", which would skip a
transaction that committed late. A row goes when the broker has confirmed it *and* the queues that
must get it were there: a missing queue loses its copy while the broker confirms the others'.

Several relays share the work by shards of keys (`relay_leases.py`). Leases bound how much is sent twice
when one of them stalls or dies; the order rests on less: an event is sent only after all older ones of its
key were confirmed, to this relay or, since their rows are gone, to another. So the first copies of a key's
events reach every queue in order whoever sends them, and the inbox knows the other copies.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import psycopg
import structlog

from clinic_shared import tracing
from clinic_shared.broker import WINDOW, Broker, Outcome, OutgoingMessage, Publisher
from clinic_shared.crash import crash_point, mutated
from clinic_shared.envelope import Envelope, body_of_row
from clinic_shared.event_sealing import JOIN_KEY, opened_in_order
from clinic_shared.gathering import Gathering
from clinic_shared.health import Health
from clinic_shared.loops import first_of, keep_running, pause
from clinic_shared.metrics import RELAY_OUTCOMES, RELAY_SECONDS
from clinic_shared.relay_leases import SHARD_OF_KEY, Leases, session
from clinic_shared.relay_routes import Routes
from clinic_shared.tally import event_hour
from clinic_shared.topology import AUDIT_EXCHANGE, exchange_of

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

BATCH = 1000
POLL_SECONDS = (0.05, 1.0)
STANDBY_SECONDS = 1.0
GATHER_SECONDS = 0.05
"""What is committed so shortly after a look goes with the next, when much is: each asks the database and the broker
the same for one event as for a hundred."""
AUDIT_SECONDS = 0.25
"""Audit records are sent so often at most: nobody waits for one, and each look takes three statements."""

SEAL_BROKEN = "seal-broken"

_PENDING = f"""
    WITH waiting AS MATERIALIZED (
        SELECT DISTINCT partition_key FROM outbox WHERE attempts > 0 AND next_attempt_at > now()
    ), next AS MATERIALIZED (
        SELECT id, event_id, last_error FROM outbox
        WHERE {SHARD_OF_KEY} = ANY(%s) AND partition_key NOT IN (SELECT partition_key FROM waiting)
        ORDER BY id LIMIT %s
    )
    SELECT next.id, next.last_error, event.event_id, event.type, event.subject, event.aggregate_version,
           event.partition_key, event.occurred_at, event.recorded_at, event.origin, event.correlation_id,
           event.causation_id, event.traceparent, event.seal, event.data::text, event.private::text,
           event_key.data_key AS event_key
    FROM next JOIN event USING (event_id) {JOIN_KEY} ORDER BY next.id
"""  # noqa: S608  # a constant of ours
# Counting goes with it, so that an event that is published twice counts once.
_DELETE = """
    WITH confirmed AS (
        SELECT * FROM unnest(%s::bigint[], %s::text[], %s::integer[]) AS c (id, type, event_hour)
    ), gone AS (
        DELETE FROM outbox USING confirmed WHERE outbox.id = confirmed.id
        RETURNING confirmed.type, confirmed.event_hour
    )
    INSERT INTO tally_delta (direction, type, event_hour, events)
    SELECT 'published', type, event_hour, count(*) FROM gone GROUP BY type, event_hour
"""
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


class _Pending(NamedTuple):
    row_id: int
    event_id: UUID
    type: str
    recorded_at: datetime
    key: UUID
    suspect: bool
    message: OutgoingMessage


class Relay:
    """One per worker process; each publishes what it holds leases on."""

    def __init__(self, runtime: "Runtime") -> None:
        self._service = runtime.service.name
        self._runtime = runtime
        self._health = Health.of(runtime)
        self._connection = Broker.of(runtime).publishing
        self._publisher = Publisher(self._connection)
        self._window = asyncio.Semaphore(WINDOW)
        self._lease_seconds = runtime.settings.relay_lease_seconds
        self._routes = Routes(runtime)
        self._bell = asyncio.Event()
        self._audit_sent_at = 0.0
        self._gathering = Gathering(GATHER_SECONDS)
        self._is_behind = False

    @property
    def _dsn(self) -> str:
        return self._runtime.settings.database_url.get_secret_value()

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until told to stop; what is in flight is confirmed and marked first."""
        async with _companion(self._listen(stop)):
            await keep_running("relay", stop, partial(self._lead, stop), self._health)
        await self.aclose()

    async def aclose(self) -> None:
        self._publisher.close()
        await self._routes.aclose()

    async def _lead(self, stop: asyncio.Event) -> None:
        idle = POLL_SECONDS[0]
        async with Leases.on(self._dsn, self._service, seconds=self._lease_seconds) as leases:
            while not stop.is_set():
                self._bell.clear()
                await leases.balance_now_and_then()
                audit_in = self._audit_sent_at + AUDIT_SECONDS - time.monotonic()
                moved = await self.relay_once(leases, audit=audit_in <= 0)
                if moved:
                    idle = POLL_SECONDS[0]
                    self._gathering.begin()
                    if not self._is_behind:
                        await pause(stop, self._gathering.wait_seconds)
                    continue
                with contextlib.suppress(TimeoutError):
                    wait = idle if audit_in <= 0 else min(idle, audit_in)
                    await asyncio.wait_for(first_of(self._bell, stop), wait)
                idle = min(POLL_SECONDS[1], idle * 2)

    async def relay_once(self, leases: Leases, *, audit: bool = True) -> bool:
        """Publish one batch of events and, unless it isn't their turn, of audit records.

        Returns whether anything was confirmed.
        """
        await self._connection.get()
        await self._routes.verify_now_and_then()
        self._health.report("relay", None)
        events = await self._relay_events(leases) if leases.shards else False
        records = await self._relay_audit_records(leases) if audit and leases.audit else False
        return events or records

    async def _relay_events(self, leases: Leases) -> bool:
        rows = await (await leases.execute(_PENDING, (leases.shards, BATCH))).fetchall()
        self._is_behind = len(rows) == BATCH
        if not rows:
            return False
        ready, broken = opened_in_order(self._runtime.database.keyring, self._service, rows)
        if broken:
            log.error("events_not_published", outcome=SEAL_BROKEN, count=len(broken))
            await leases.execute(_POSTPONE, (SEAL_BROKEN, broken))
        pending = [self._event(row) for row in ready]
        outcomes = await self._publish(pending, leases)
        crash_point("relay.confirm.after")
        types = {row.type for row in rows}
        for exchange in {exchange_of(one) for one in types}:
            await self._routes.must_exist(exchange, types)
        await _forget_confirmed(leases, [p for p in pending if outcomes.get(p.row_id) is Outcome.CONFIRMED])
        for outcome in (Outcome.RETURNED, Outcome.NACKED, Outcome.PERMANENT):
            if ids := _with_outcome(outcomes, outcome):
                log.error("events_not_published", outcome=outcome, count=len(ids))
                await leases.execute(_POSTPONE, (outcome.value, ids))
        crash_point("relay.mark.after")
        return Outcome.CONFIRMED in outcomes.values()

    async def _publish(self, pending: Sequence[_Pending], leases: Leases) -> dict[int, Outcome]:
        """Publish, one key's events one after the other and the keys side by side."""
        crash_point("relay.publish.before")
        outcomes: dict[int, Outcome] = {}
        by_key: dict[UUID, list[_Pending]] = {}
        for one in pending:
            by_key.setdefault(one.key, []).append(one)
        chains = list(by_key.values())
        together = (self._publish_chain(chain, outcomes, leases) for chain in chains if not chain[0].suspect)
        await asyncio.gather(*together)
        # The broker closes the channel on what it refuses for good, which fails everything in
        # flight with it: what failed so before goes alone, so that only the culprit fails again.
        for chain in chains:
            if chain[0].suspect:
                await self._publish_chain(chain, outcomes, leases)
        for outcome, group in groupby(sorted(outcomes.values())):
            RELAY_OUTCOMES.labels(outcome=outcome).inc(len(list(group)))
        return outcomes

    async def _publish_chain(
        self, chain: Sequence[_Pending], outcomes: dict[int, Outcome], leases: Leases
    ) -> None:
        for one in chain:
            with tracing.sending(one.message) as span:
                outcome = await self._send(one.message, leases)
                span.tell("clinic.outcome", outcome)
            crash_point("relay.publish.after")
            outcomes[one.row_id] = outcome
            if outcome is not Outcome.CONFIRMED:
                return
            RELAY_SECONDS.observe(max(0.0, time.time() - one.recorded_at.timestamp()))

    async def _send(self, message: OutgoingMessage, leases: Leases) -> Outcome:
        async with self._window:
            # Asked here, with everything queued before it sent: a stalled relay repeats a window at most.
            return await self._publisher.publish(message) if leases.valid else Outcome.UNKNOWN

    def _event(self, row: Any) -> _Pending:
        exchange = exchange_of(row.type)
        message = OutgoingMessage(
            exchange=exchange,
            routing_key=row.type,
            message_id=str(row.event_id),
            headers=Envelope.of_row(row, source=self._service).headers(),
            body=body_of_row(row),
            mandatory=self._routes.awaits(exchange, row.type) and not mutated("mandatory-off"),
        )
        suspect = row.last_error == Outcome.PERMANENT.value
        return _Pending(row.id, row.event_id, row.type, row.recorded_at, row.partition_key, suspect, message)

    async def _relay_audit_records(self, leases: Leases) -> bool:
        await leases.execute(_NUMBER_AUDIT_RECORDS)
        rows = await (await leases.execute(_PENDING_AUDIT, (BATCH,))).fetchall()
        if not rows:
            return False
        messages = [self._audit_record(row) for row in rows]
        results = await asyncio.gather(*(self._send(message, leases) for message in messages))
        self._audit_sent_at = time.monotonic()
        await self._routes.must_exist(AUDIT_EXCHANGE)
        confirmed = [
            row.id for row, outcome in zip(rows, results, strict=True) if outcome is Outcome.CONFIRMED
        ]
        await leases.execute(_DELETE_AUDIT, (confirmed,))
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


def _with_outcome(outcomes: dict[int, Outcome], wanted: Outcome) -> list[int]:
    return [row_id for row_id, outcome in outcomes.items() if outcome is wanted]


async def _forget_confirmed(leases: Leases, confirmed: Sequence[_Pending]) -> None:
    ids = [one.row_id for one in confirmed]
    types = [one.type for one in confirmed]
    await leases.execute(_DELETE, (ids, types, [event_hour(one.event_id) for one in confirmed]))


@contextlib.asynccontextmanager
async def _companion(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
