"""What a worker measures: its service's database and queues, every few seconds, into `metrics.py`.

Nothing that is asked often reads a table that grows; what has to (the ledger) is asked more rarely the longer it
takes, so that measuring never costs more than a hundredth of the time.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import structlog
from sqlalchemy import text

from clinic_shared import contracts, tally, workers
from clinic_shared.database import Transaction
from clinic_shared.health import Health
from clinic_shared.ids import uuid7, uuid7_time
from clinic_shared.inbound import accounts
from clinic_shared.inbound.registry import Inbound
from clinic_shared.ledger import Ledger
from clinic_shared.loops import keep_running, pause
from clinic_shared.management import Management
from clinic_shared.metrics import (
    ACCOUNTED_APPLIED,
    ACCOUNTED_KEPT,
    ACCOUNTED_PUBLISHED,
    AUDIT_OUTBOX_PENDING,
    EVENTS_APPLIED,
    EVENTS_PUBLISHED,
    HELD_MESSAGES,
    INTAKE_ITEMS,
    INTAKE_OLDEST_SECONDS,
    LEDGER_BALANCED,
    LEDGER_MESSAGES,
    LEDGER_RECENT_IMBALANCE,
    LOOP_FAILURES,
    MEASURED_AT,
    MONEY_IMBALANCE,
    OUTBOX_BLOCKED,
    OUTBOX_OLDEST_SECONDS,
    OUTBOX_PENDING,
    PARKED_MESSAGES,
    SUBSCRIPTION_LAG_EVENTS,
    SUBSCRIPTION_LAG_SECONDS,
    TIMERS_OLDEST_SECONDS,
    TIMERS_OVERDUE,
)
from clinic_shared.progress import Progress
from clinic_shared.tally import Direction, Window, producer_of
from clinic_shared.topology import installed, queues_of
from clinic_shared.workers import Waiting

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

OFTEN_SECONDS = 5.0
DEPTHS_SECONDS = 14.0
"""The broker refreshes its figures every few seconds and is asked by every worker there is."""
LATELY_SECONDS = 20.0
SELDOM_SECONDS = 30.0
SHARE_OF_TIME = 0.01
MOST_SELDOM_SECONDS = 600.0
MOST_COUNTED = 100_000
OVERDUE_SECONDS = 60
UNKNOWN = "unknown"

# Counting stops where the exact figure no longer changes what anybody does.
_BACKLOG = text("""
    SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT :most) AS counted) AS pending,
           (SELECT count(*) FROM outbox WHERE attempts > 0) AS blocked,
           (SELECT event_id FROM outbox ORDER BY id LIMIT 1) AS oldest,
           (SELECT count(*) FROM (SELECT FROM audit_outbox LIMIT :most) AS counted) AS audit_pending
""")
_TIMERS = text("""
    SELECT count(*) AS overdue, min(next_attempt_at) AS oldest_at FROM timer
    WHERE state = 'pending' AND next_attempt_at < :before
""")
_INTAKE = text("""
    SELECT count(*) FILTER (WHERE state = 'received') AS received,
           count(*) FILTER (WHERE state = 'parked') AS parked,
           min(received_at) FILTER (WHERE state = 'received') AS oldest_at
    FROM intake WHERE state <> 'processed'
""")
_KEPT = text("""
    SELECT type, count(*) FILTER (WHERE state = 'held') AS held, count(*) FILTER (WHERE state = 'parked') AS parked,
           count(*) FILTER (
               WHERE event_id >= :first AND event_id < :end AND root_event_id IS NULL AND settled_at IS NULL
           ) AS accounted
    FROM held GROUP BY type
""")

Measure = Callable[["Measuring", Transaction], Awaitable[None]]


@dataclass
class Turn:
    """One measurement and when it is due. What is asked often costs little, however long it has to wait."""

    name: str
    every_seconds: float
    measure: Measure
    due_at: float = 0.0

    def took(self, seconds: float) -> None:
        pause = self.every_seconds
        if pause >= SELDOM_SECONDS:
            pause = min(max(pause, seconds / SHARE_OF_TIME), MOST_SELDOM_SECONDS)
        self.due_at = time.monotonic() + pause


class Measuring:
    """The measurements of one worker."""

    def __init__(self, runtime: "Runtime") -> None:
        self.runtime = runtime
        self.service = runtime.service.name
        known, present = contracts.load(), installed(runtime)
        self.queues = queues_of(runtime)
        self.published = [event.type for event in known.published_by(self.service)]
        self.subscribed = [
            event.type
            for event in known.consumed_by(self.service)
            if not present or event.producer in present
        ]
        self.worker = uuid7()
        self.waiting: dict[str, Waiting] = {}
        self._depths: dict[str, int] = {}
        self._depths_asked_at = 0.0
        self._management = Management.of(runtime)
        self.turns = [
            Turn("workers", OFTEN_SECONDS, _tell_of_this_worker),
            Turn("backlog", OFTEN_SECONDS, _measure_backlog),
            Turn("kept", OFTEN_SECONDS, _measure_kept),
            Turn("events", OFTEN_SECONDS, _measure_events),
            Turn("timers", OFTEN_SECONDS, _measure_timers),
            Turn("intake", OFTEN_SECONDS, _measure_intake),
            Turn("ledger", SELDOM_SECONDS, _measure_ledger),
            Turn("ledger_recent", LATELY_SECONDS, _measure_recent_ledger),
        ]
        for own in runtime.service.measurements:
            self.turns.append(Turn(own.__name__, SELDOM_SECONDS, partial(_of_service, own)))

    async def run(self, stop: asyncio.Event) -> None:
        """Measure until told to stop; what fails is counted, and leaves the other measurements alone."""
        await keep_running("measuring", stop, partial(self._measure, stop), Health.of(self.runtime))
        await self.close()

    async def _measure(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._look_at_queues()
            for turn in self.turns:
                if time.monotonic() >= turn.due_at and not stop.is_set():
                    await self._take(turn)
            Health.of(self.runtime).report("measuring", None)
            await pause(stop, OFTEN_SECONDS)

    async def close(self) -> None:
        if self._management is not None:
            await self._management.close()

    async def measure_once(self) -> None:
        """Take every measurement now. Raises what goes wrong."""
        self._depths_asked_at = 0.0
        await self._look_at_queues()
        for turn in self.turns:
            async with self.runtime.database.transaction() as tx:
                await turn.measure(self, tx)

    async def _take(self, turn: Turn) -> None:
        began_at = time.monotonic()
        try:
            async with self.runtime.database.transaction() as tx:
                await turn.measure(self, tx)
        except Exception as error:  # logged, counted, and told by the age of the figure
            LOOP_FAILURES.labels(loop="measuring").inc()
            log.warning("measurement_failed", loop=turn.name, exc_info=error)
        else:
            MEASURED_AT.labels(measurement=turn.name).set(time.time())
        turn.took(time.monotonic() - began_at)

    async def _look_at_queues(self) -> None:
        if time.monotonic() - self._depths_asked_at > DEPTHS_SECONDS:
            self._depths_asked_at = time.monotonic()
            self._depths = await self._ask_broker()
        depths = self._depths
        progress = Progress.of(self.runtime)
        for queue in self.queues:
            waiting = Waiting(oldest_at=progress.queue(queue).oldest_at, messages=depths.get(queue))
            self.waiting[queue] = waiting
            labels = (self.service, queue.partition(".")[2])
            age = time.time() - waiting.oldest_at.timestamp() if waiting.oldest_at else 0
            SUBSCRIPTION_LAG_SECONDS.labels(*labels).set(max(0, age))
            if waiting.messages is not None:
                SUBSCRIPTION_LAG_EVENTS.labels(*labels).set(waiting.messages)

    async def _ask_broker(self) -> dict[str, int]:
        """Return the depths of the queues; nothing while the management API is away or not open to us."""
        if self._management is None:
            return {}
        try:
            return await self._management.depths()
        except (httpx.HTTPError, ValueError):
            # Lag is then told in seconds only; that the broker is away shows elsewhere.
            return {}


async def measure(runtime: "Runtime", stop: asyncio.Event) -> None:
    """The loop of the worker role."""
    await Measuring(runtime).run(stop)


async def _of_service(own: Any, measuring: Measuring, tx: Transaction) -> None:
    await own(measuring.runtime, tx)


async def _measure_backlog(_: Measuring, tx: Transaction) -> None:
    row = await tx.fetch_one(_BACKLOG, {"most": MOST_COUNTED})
    assert row is not None  # noqa: S101  # an aggregate has a row
    OUTBOX_PENDING.set(row.pending)
    OUTBOX_BLOCKED.set(row.blocked)
    OUTBOX_OLDEST_SECONDS.set(time.time() - uuid7_time(row.oldest).timestamp() if row.oldest else 0)
    AUDIT_OUTBOX_PENDING.set(row.audit_pending)


async def _measure_kept(measuring: Measuring, tx: Transaction) -> None:
    service = measuring.service
    types = {*measuring.subscribed, UNKNOWN}
    held, parked, accounted = (dict.fromkeys(types, 0) for _ in range(3))
    first, end = Window.at(time.time()).ids
    for row in await tx.fetch_all(_KEPT, {"first": first, "end": end}):
        # What a stranger sent may call itself anything.
        name = row.type if row.type in types else UNKNOWN
        held[name] += row.held
        parked[name] += row.parked
        accounted[name] += row.accounted
    for name in types:
        HELD_MESSAGES.labels(type=name).set(held[name])
        PARKED_MESSAGES.labels(type=name).set(parked[name])
    for name in measuring.subscribed:
        ACCOUNTED_KEPT.labels(service, producer_of(name), name).set(accounted[name])


async def _measure_events(measuring: Measuring, tx: Transaction) -> None:
    now = time.time()
    await tally.sum_up(tx, epoch_seconds=now)
    counts = {(count.direction, count.type): count for count in await tally.counts(tx, epoch_seconds=now)}
    published: dict[tuple[str, ...], float] = {}
    applied: dict[tuple[str, ...], float] = {}
    # Types without an event yet are told too: who applied none of many is the one to find.
    for name in measuring.published:
        count = counts.get((Direction.PUBLISHED, name))
        published[measuring.service, name] = float(count.total if count else 0)
        ACCOUNTED_PUBLISHED.labels(measuring.service, name).set(count.accounted if count else 0)
    for name in measuring.subscribed:
        count = counts.get((Direction.APPLIED, name))
        labels = (measuring.service, producer_of(name), name)
        applied[labels] = float(count.total if count else 0)
        ACCOUNTED_APPLIED.labels(*labels).set(count.accounted if count else 0)
    EVENTS_PUBLISHED.put(published)
    EVENTS_APPLIED.put(applied)


async def _tell_of_this_worker(measuring: Measuring, tx: Transaction) -> None:
    await workers.tell(tx, measuring.worker, measuring.waiting)


async def _measure_timers(_: Measuring, tx: Transaction) -> None:
    row = await tx.fetch_one(_TIMERS, {"before": tx.now - timedelta(seconds=OVERDUE_SECONDS)})
    assert row is not None  # noqa: S101  # an aggregate has a row
    TIMERS_OVERDUE.set(row.overdue)
    TIMERS_OLDEST_SECONDS.set((tx.now - row.oldest_at).total_seconds() if row.oldest_at else 0)


async def _measure_intake(_: Measuring, tx: Transaction) -> None:
    row = await tx.fetch_one(_INTAKE)
    assert row is not None  # noqa: S101  # an aggregate has a row
    INTAKE_ITEMS.labels(state="received").set(row.received)
    INTAKE_ITEMS.labels(state="parked").set(row.parked)
    INTAKE_OLDEST_SECONDS.set((tx.now - row.oldest_at).total_seconds() if row.oldest_at else 0)


async def _measure_recent_ledger(measuring: Measuring, tx: Transaction) -> None:
    """Look at two days only, so that what gets lost is told within the minute, however much there ever was."""
    LEDGER_RECENT_IMBALANCE.clear()
    for name, interface in Inbound.of(measuring.runtime).interfaces.items():
        off: Counter[str] = Counter()
        for line in await accounts.by_day(tx, name, interface, since=tx.now - timedelta(days=1)):
            off[line.partner] += line.dispositions.unaccounted
        for partner, messages in off.items():
            LEDGER_RECENT_IMBALANCE.labels(interface=name, partner=partner).set(messages)


async def _measure_ledger(measuring: Measuring, tx: Transaction) -> None:
    ledger = Ledger.of(measuring.runtime)
    for interface, count in ledger.interfaces.items():
        dispositions = await count(tx)
        LEDGER_BALANCED.labels(interface=interface).set(dispositions.balanced)
        for disposition, messages in asdict(dispositions).items():
            LEDGER_MESSAGES.labels(interface=interface, disposition=disposition).set(messages)
    if ledger.money is not None:
        MONEY_IMBALANCE.set(await ledger.money(tx))
