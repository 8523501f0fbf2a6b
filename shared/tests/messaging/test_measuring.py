"""What a worker measures is what is there: nothing is counted twice, nothing that is missing goes unseen."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
from clinic_shared import metrics, tally
from clinic_shared.app import worker_app
from clinic_shared.deliveries import Consumer
from clinic_shared.health import Health
from clinic_shared.ids import uuid7
from clinic_shared.measuring import (
    MOST_SELDOM_SECONDS,
    OFTEN_SECONDS,
    SELDOM_SECONDS,
    SHARE_OF_TIME,
    Measuring,
    Turn,
)
from clinic_shared.relay import Relay
from clinic_shared.service import Runtime
from clinic_shared.tally import HOUR_MS, SETTLING_SECONDS, Direction
from clinic_shared.testing import eventually
from sqlalchemy import text

from .conftest import QUEUE, REGISTERED, Behaviour, Journal, Queues

pytestmark = pytest.mark.servers

Looping = Callable[..., AbstractAsyncContextManager[None]]


def sample(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(name, labels)


def when_settled() -> float:
    """A moment at which the hour of what happens now is over, and the one before too."""
    return time.time() + 2 * HOUR_MS / 1000 + SETTLING_SECONDS


async def counted(runtime: Runtime, direction: Direction, event_type: str = REGISTERED) -> tally.Count:
    async with runtime.database.transaction() as tx:
        await tally.sum_up(tx, epoch_seconds=time.time())
        found = await tally.counts(tx, epoch_seconds=when_settled())
    return next(count for count in found if (count.direction, count.type) == (direction, event_type))


@asynccontextmanager
async def measuring(runtime: Runtime) -> AsyncIterator[Measuring]:
    made = Measuring(runtime)
    await made.measure_once()
    yield made
    await made.close()


async def effects_reach(journal: Journal, runtime: Runtime, count: int) -> None:
    async def reached() -> bool:
        return len(await journal.effects(runtime)) >= count

    await eventually(reached, within_seconds=60)


async def drained(journal: Journal, runtime: Runtime) -> None:
    async def empty() -> bool:
        return await journal.pending(runtime) == 0

    await eventually(empty, within_seconds=60)


async def test_events_are_counted_where_they_are_published_and_where_they_take_effect(
    producer: Runtime, consumer: Runtime, journal: Journal, looping: Looping
) -> None:
    observed = sample("clinic_relay_seconds_count") or 0
    async with looping(Relay(producer).run, Consumer(consumer, QUEUE).run):
        await journal.emit_many(producer, 150, keys=7)
        await effects_reach(journal, consumer, 150)
        await drained(journal, producer)
    for runtime, direction in ((producer, Direction.PUBLISHED), (consumer, Direction.APPLIED)):
        count = await counted(runtime, direction)
        assert (count.total, count.accounted) == (150, 150)
    assert (sample("clinic_relay_seconds_count") or 0) - observed == 150


async def test_what_is_delivered_again_is_counted_once(
    producer: Runtime, consumer: Runtime, journal: Journal, queues: Queues, looping: Looping
) -> None:
    await journal.emit(producer)
    async with looping(Relay(producer).run):
        (message,) = await queues.take(QUEUE, 1)
    for _ in range(3):
        await queues.put(QUEUE, message.body, headers=[dict(message.headers)])
    before = metrics.INBOX_DUPLICATES._value.get()
    async with looping(Consumer(consumer, QUEUE).run):
        await eventually(lambda: metrics.INBOX_DUPLICATES._value.get() - before == 2)
    assert (await counted(consumer, Direction.APPLIED)).total == 1


async def test_an_effect_that_is_rolled_back_is_not_counted(
    producer: Runtime, consumer: Runtime, journal: Journal, behaviour: Behaviour, looping: Looping
) -> None:
    bad = uuid7()
    behaviour.fail(bad, ValueError("hopeless"))
    await journal.emit(producer, key=bad)
    await journal.emit(producer)
    async with looping(Relay(producer).run, Consumer(consumer, QUEUE).run):
        await effects_reach(journal, consumer, 1)
        async with measuring(consumer) as made:
            await eventually(lambda: _parked_after(made))
    assert (await counted(consumer, Direction.APPLIED)).total == 1


async def _parked_after(made: Measuring) -> bool:
    await made.measure_once()
    return (sample("clinic_parked_messages", type=REGISTERED) or 0) + (
        sample("clinic_held_messages", type=REGISTERED) or 0
    ) == 1


async def test_a_message_that_gets_lost_at_the_broker_is_missing_in_the_accounts_for_good(
    producer: Runtime, consumer: Runtime, journal: Journal, queues: Queues, looping: Looping
) -> None:
    await journal.emit_many(producer, 5)
    async with looping(Relay(producer).run), queues.collecting(QUEUE) as taken:
        await eventually(lambda: len(taken) == 5)
    for message in taken[1:]:
        await queues.put(QUEUE, message.body, headers=[dict(message.headers)])
    async with looping(Consumer(consumer, QUEUE).run):
        await effects_reach(journal, consumer, 4)
    published = await counted(producer, Direction.PUBLISHED)
    applied = await counted(consumer, Direction.APPLIED)
    assert published.accounted - applied.accounted == 1


async def test_counts_live_in_the_database_and_are_told_by_any_worker(
    producer: Runtime, journal: Journal, looping: Looping
) -> None:
    async with looping(Relay(producer).run):
        await journal.emit_many(producer, 4)
        await drained(journal, producer)
    labels = {"producer": "patients", "type": REGISTERED}
    for _ in range(2):
        async with measuring(producer):
            assert sample("clinic_events_published_total", **labels) == 4
        metrics.EVENTS_PUBLISHED.put({})


async def test_old_hours_are_merged_and_stay_in_the_total(
    producer: Runtime, journal: Journal, looping: Looping
) -> None:
    async with looping(Relay(producer).run):
        await journal.emit_many(producer, 4)
        await drained(journal, producer)
    later = time.time() + (tally.HOURS_KEPT + 3) * HOUR_MS / 1000
    async with producer.database.transaction() as tx:
        await tally.sum_up(tx, epoch_seconds=later)
        (count,) = await tally.counts(tx, epoch_seconds=later)
        (recent,) = await tally.counts(tx, epoch_seconds=later + 10)
    assert (count.total, count.accounted) == (4, 0)
    assert recent.per_second == pytest.approx(4 / 330, rel=0.15)


async def test_the_outbox_is_measured_by_number_and_age(producer: Runtime, journal: Journal) -> None:
    await journal.emit_many(producer, 3)
    async with measuring(producer):
        assert sample("clinic_outbox_pending") == 3
        assert 0 < (sample("clinic_outbox_oldest_seconds") or 0) < 60
        assert sample("clinic_events_published_total", producer="patients", type=REGISTERED) == 0
        assert sample("clinic_measured_timestamp_seconds", measurement="backlog") is None


async def test_who_has_an_event_in_hand_that_does_not_get_through_lags(
    producer: Runtime, consumer: Runtime, journal: Journal, behaviour: Behaviour, looping: Looping
) -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def stand_still(*_: object) -> None:
        entered.set()
        await gate.wait()

    behaviour.before = stand_still
    lag = {"consumer": "reporting", "producer": "patients"}
    await journal.emit(producer)
    async with looping(Relay(producer).run, Consumer(consumer, QUEUE).run):
        await asyncio.wait_for(entered.wait(), 60)
        async with measuring(consumer) as made:
            first = sample("clinic_subscription_lag_seconds", **lag) or 0
            await made.measure_once()
            assert (sample("clinic_subscription_lag_seconds", **lag) or 0) > first > 0
            await eventually(lambda: _depth_after(made, lag, 1), within_seconds=60, every=0.3)
            gate.set()
            await effects_reach(journal, consumer, 1)
            await eventually(lambda: _lag_after(made, lag))
            await eventually(lambda: _depth_after(made, lag, 0), within_seconds=60, every=0.3)


async def _depth_after(made: Measuring, labels: dict[str, str], expected: int) -> bool:
    await made.measure_once()
    return sample("clinic_subscription_lag_events", **labels) == expected


async def _lag_after(made: Measuring, labels: dict[str, str]) -> bool:
    await made.measure_once()
    return sample("clinic_subscription_lag_seconds", **labels) == 0


async def test_a_measurement_that_fails_is_counted_and_the_others_go_on(
    producer: Runtime, journal: Journal, looping: Looping
) -> None:
    await journal.emit(producer)
    async with producer.database.transaction() as tx:
        await tx.execute(text("DROP TABLE tally_delta"))
    failures = sample("clinic_loop_failures_total", loop="measuring") or 0
    since = time.time()
    async with looping(Measuring(producer).run):
        await eventually(
            lambda: (sample("clinic_measured_timestamp_seconds", measurement="intake") or 0) >= since,
            within_seconds=60,
        )
    assert sample("clinic_outbox_pending") == 1
    assert (sample("clinic_loop_failures_total", loop="measuring") or 0) > failures


def test_what_takes_long_is_measured_more_rarely() -> None:
    def next_after(turn: Turn, seconds: float) -> float:
        turn.took(seconds)
        return turn.due_at - time.monotonic()

    ledger = Turn("ledger", SELDOM_SECONDS, _nothing)
    assert next_after(ledger, 2.0) == pytest.approx(2.0 / SHARE_OF_TIME, abs=10)
    assert next_after(ledger, 0.001) == pytest.approx(SELDOM_SECONDS, abs=10)
    assert next_after(ledger, 60.0) == pytest.approx(MOST_SELDOM_SECONDS, abs=10)


def test_on_a_busy_machine_the_cheap_measurements_keep_their_pace() -> None:
    heartbeat = Turn("workers", OFTEN_SECONDS, _nothing)
    heartbeat.took(3.0)
    assert heartbeat.due_at - time.monotonic() == pytest.approx(OFTEN_SECONDS, abs=4)


async def _nothing(*_: object) -> None: ...


async def test_a_worker_answers_probes_and_metrics_and_is_ready_while_its_loops_are(
    consumer: Runtime,
) -> None:
    transport = httpx.ASGITransport(app=worker_app(consumer))
    async with httpx.AsyncClient(transport=transport, base_url="http://worker.test") as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert "clinic_outbox_pending" in (await http.get("/metrics")).text
        assert (await http.get("/version")).json()["service"] == "reporting"
        assert (await http.get("/readyz")).status_code == 200
        Health.of(consumer).report("relay", "the broker is unavailable")
        refused = await http.get("/readyz")
        assert refused.status_code == 503
        assert refused.json()["checks"]["loops"] == "relay: the broker is unavailable"
        assert (await http.get("/v1/ops/summary")).status_code == 404
