"""Months of the event log and inbox: there ahead, gone after retention, and nobody waits for it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from clinic_shared import contracts, partitions
from clinic_shared.auth import TokenSigner
from clinic_shared.consumer import Handlers
from clinic_shared.events import Event
from clinic_shared.ids import uuid7, uuid7_at, uuid7_time
from clinic_shared.partition_upkeep import keep_partitions
from clinic_shared.partitions import LOCK_MS, Month
from clinic_shared.service import Runtime, Service
from clinic_shared.settings import ServiceSettings
from clinic_shared.testing import FixedClock, Servers, harness
from pydantic import ValidationError
from sqlalchemy import text

BOOKED, CONFIRMED, COMPLETED, ARRIVED = (
    f"scheduling.{name}.v1"
    for name in ("appointment-booked", "appointment-confirmed", "appointment-completed", "patient-arrived")
)
REFUNDED = "billing.payment-refunded.v1"


class Log:
    """A service's event log, with events of any time."""

    def __init__(self, runtime: Runtime, clock: FixedClock) -> None:
        self.runtime = runtime
        self.clock = clock

    async def add(self, event_type: str, subject: UUID, version: int, *, days_ago: float = 0) -> UUID:
        """Record an event as it would have been so many days ago; it was published then."""
        example = contracts.examples(event_type)[0]
        data = example["data"] | {"version": version}
        async with self.runtime.database.transaction() as tx:
            made = tx.emit(Event(type=event_type, subject=subject, aggregate_version=version, data=data))
        event_id = uuid7_at(self.clock.now() - timedelta(days=days_ago))
        await self.run("UPDATE event SET event_id = :to WHERE event_id = :of", to=event_id, of=made)
        await self.run("DELETE FROM outbox")
        return event_id

    async def run(self, statement: str, **parameters: Any) -> None:
        async with self.runtime.database.transaction() as tx:
            await tx.execute(text(statement), parameters)

    async def all(self, statement: str, **parameters: Any) -> list[Any]:
        async with self.runtime.database.transaction() as tx:
            return [tuple(row) for row in await tx.fetch_all(text(statement), parameters)]

    async def names(self, table: str = "event") -> list[str]:
        async with self.runtime.database.engine.connect() as connection:
            found = await connection.run_sync(partitions.listed)
        return [partition.name for partition in found if partition.table == table]

    async def make_month(self, days_ago: float) -> Month:
        """Make the partitions of a month of the past."""
        month = Month.of(self.clock.now() - timedelta(days=days_ago))
        async with self.runtime.database.engine.connect() as connection:
            for table in partitions.TABLES:
                await connection.run_sync(partitions.create, table, month)
        return month

    async def told(self, subject: UUID) -> list[tuple[str, int, bool]]:
        """Return (type, version, whether it is a state event) of a subject, as a replay would read it."""
        rows = await self.all(
            "SELECT type, aggregate_version, carries IS NOT NULL FROM event WHERE subject = :subject "
            "ORDER BY aggregate_version",
            subject=subject,
        )
        return [(row[0], row[1], row[2]) for row in rows]


Open = Callable[..., Any]


@pytest.fixture
async def open_log(
    servers: Servers, database_of: Callable[[Service], str], signer: TokenSigner, tmp_path: Path
) -> AsyncIterator[Open]:
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    opened = []

    async def open_one(name: str = "scheduling", **settings: Any) -> Log:
        one = Service(name=name, package_dir=tmp_path / "package", routers=(), handlers=Handlers(name))
        clock = FixedClock(datetime.now(UTC))
        context = harness(
            one,
            database_url=database_of(one),
            amqp_url=servers.amqp_url,
            signer=signer,
            clock=clock,
            **settings,
        )
        opened.append(context)
        return Log((await context.__aenter__()).runtime, clock)

    yield open_one
    for context in opened:
        await context.__aexit__(None, None, None)


async def test_months_ahead_are_there_before_they_begin(open_log: Open) -> None:
    log = await open_log()
    log.clock.advance(days=100)
    await keep_partitions(log.runtime)
    months = [Month.of(log.clock.now())]
    for _ in range(3):
        months.append(months[-1].following)
    for table in partitions.TABLES:
        assert {month.name(table) for month in months} <= set(await log.names(table))


async def test_what_lies_in_the_default_partition_moves_to_its_month(open_log: Open) -> None:
    log = await open_log()
    subject = uuid7()
    # Nobody made partitions for half a year, and life went on.
    log.clock.advance(days=180)
    event_id = await log.add(BOOKED, subject, 1)
    where = "SELECT tableoid::regclass::text FROM event WHERE event_id = :id"
    assert await log.all(where, id=event_id) == [("event_default",)]
    await keep_partitions(log.runtime)
    assert await log.all(where, id=event_id) == [(Month.of(log.clock.now()).name("event"),)]
    assert await log.all("SELECT count(*) FROM event_default") == [(0,)]


async def test_a_month_goes_after_its_retention_and_not_before(open_log: Open) -> None:
    log = await open_log(event_retention_days=60, inbox_retention_days=90)
    month = await log.make_month(40)
    log.clock.advance(days=(month.ends_at - log.clock.now()).total_seconds() / 86400 + 59.9)
    await keep_partitions(log.runtime)
    assert month.name("event") in await log.names()
    log.clock.advance(days=0.2)
    await keep_partitions(log.runtime)
    assert month.name("event") not in await log.names()
    assert month.name("inbox") in await log.names("inbox")
    log.clock.advance(days=30)
    await keep_partitions(log.runtime)
    assert month.name("inbox") not in await log.names("inbox")


async def test_the_newest_that_each_consumer_heard_of_an_aggregate_is_carried_into_today(
    open_log: Open,
) -> None:
    log = await open_log()
    month = await log.make_month(500)
    finished, arrived, alive = uuid7(), uuid7(), uuid7()
    for version, name in enumerate((BOOKED, CONFIRMED, COMPLETED), 1):
        await log.add(name, finished, version, days_ago=500)
    for version, name in enumerate((BOOKED, CONFIRMED, ARRIVED), 1):
        await log.add(name, arrived, version, days_ago=500)
    await log.add(BOOKED, alive, 1, days_ago=500)
    await log.add(COMPLETED, alive, 2)
    await keep_partitions(log.runtime)
    assert month.name("event") not in await log.names()
    assert await log.told(finished) == [(COMPLETED, 3, True)]
    # Not every consumer hears of arrivals: for those, the confirmation is what they know.
    assert await log.told(arrived) == [(CONFIRMED, 2, True), (ARRIVED, 3, True)]
    assert await log.told(alive) == [(COMPLETED, 2, False)]


async def test_facts_that_stand_alone_are_each_carried(open_log: Open) -> None:
    log = await open_log("billing")
    await log.make_month(500)
    payment = uuid7()
    for version in (2, 3, 4):
        await log.add(REFUNDED, payment, version, days_ago=500)
    await keep_partitions(log.runtime)
    assert await log.told(payment) == [(REFUNDED, version, True) for version in (2, 3, 4)]


async def test_a_state_event_says_what_the_event_said_and_is_not_published(open_log: Open) -> None:
    log = await open_log()
    await log.make_month(500)
    subject = uuid7()
    original = await log.add(COMPLETED, subject, 3, days_ago=500)
    told = (
        "SELECT coalesce(carries, event_id), type, aggregate_version, occurred_at, recorded_at, origin, "
        "data::text, partition_key, correlation_id FROM event WHERE subject = :subject"
    )
    before = await log.all(told, subject=subject)
    await keep_partitions(log.runtime)
    assert await log.all(told, subject=subject) == before
    [(event_id, carries)] = await log.all("SELECT event_id, carries FROM event WHERE subject = :s", s=subject)
    assert carries == original
    assert abs(uuid7_time(event_id) - log.clock.now()) < timedelta(seconds=1)
    assert await log.all("SELECT 1 FROM outbox") == []


async def test_a_state_event_is_carried_on_when_its_own_month_goes(open_log: Open) -> None:
    log = await open_log()
    await log.make_month(500)
    subject = uuid7()
    original = await log.add(COMPLETED, subject, 3, days_ago=500)
    await keep_partitions(log.runtime)
    log.clock.advance(days=500)
    await keep_partitions(log.runtime)
    assert await log.all("SELECT carries FROM event WHERE subject = :s", s=subject) == [(original,)]


async def test_nothing_goes_on_legal_hold(open_log: Open) -> None:
    log = await open_log(legal_hold=True)
    month = await log.make_month(2000)
    await keep_partitions(log.runtime)
    assert month.name("event") in await log.names()


STILL_NEEDED = {
    "unpublished": ("event", "INSERT INTO outbox (event_id, partition_key) VALUES (:id, :id)"),
    "being-replayed": (
        "event",
        """
        INSERT INTO replay_job (replay_id, consumer, purpose, event_types, first_id, keep_origin, requested_at,
            begun_at, correlation_id)
        VALUES (:id, 'reporting', 'rebuild', '{}', :id, false, now(), now(), :id)
        """,
    ),
    "held": (
        "inbox",
        """
        INSERT INTO held (event_id, partition_key, type, queue, headers, body, state, cause, error, attempt,
            first_failed_at, last_failed_at)
        VALUES (:id, :id, 'type', 'queue', '{}', '', 'parked', 'cause', 'error', 1, now(), now())
        """,
    ),
}


@pytest.mark.parametrize(
    ("table", "statement"),
    STILL_NEEDED.values(),
    ids=STILL_NEEDED,
)
async def test_a_month_that_is_still_needed_stays(open_log: Open, table: str, statement: str) -> None:
    log = await open_log()
    month = await log.make_month(500)
    await log.run(statement, id=uuid7_at(month.starts_at))
    await keep_partitions(log.runtime)
    assert month.name(table) in await log.names(table)


async def test_creating_and_dropping_under_traffic_fails_nobody_and_holds_nobody_up(open_log: Open) -> None:
    log = await open_log()
    month = await log.make_month(500)
    for _ in range(50):
        await log.add(COMPLETED, uuid7(), 1, days_ago=500)
    stop = asyncio.Event()
    slowest = 0.0

    async def book() -> int:
        nonlocal slowest
        booked = 0
        example = contracts.examples(BOOKED)[0]
        while not stop.is_set():
            begun = time.monotonic()
            async with log.runtime.database.transaction() as tx:
                # A reader of all partitions and a writer of one.
                await tx.fetch_all(text("SELECT 1 FROM event WHERE subject = :s"), {"s": uuid7()})
                tx.emit(Event(type=BOOKED, subject=uuid7(), aggregate_version=1, data=example["data"]))
            slowest = max(slowest, time.monotonic() - begun)
            booked += 1
        return booked

    booking = [asyncio.create_task(book()) for _ in range(4)]
    log.clock.advance(days=120)
    while month.name("event") in await log.names():
        await keep_partitions(log.runtime)
    stop.set()
    assert sum(await asyncio.gather(*booking)) > 0
    # A transaction may meet each of the locks once; a request's own limit is 5 s.
    assert slowest < 5, f"{slowest:.2f} s with locks of {LOCK_MS} ms"


async def test_a_reader_that_takes_its_time_is_not_cut_off_and_not_queued_behind(open_log: Open) -> None:
    log = await open_log()
    month = await log.make_month(500)
    async with log.runtime.database.transaction() as reading:
        await reading.fetch_all(text("SELECT count(*) FROM event"))
        upkeep = asyncio.create_task(keep_partitions(log.runtime))
        for _ in range(10):
            await log.add(BOOKED, uuid7(), 1)
        assert month.name("event") in await log.names()
    await upkeep
    assert month.name("event") not in await log.names()


def test_an_inbox_that_forgets_before_the_log_does_is_refused() -> None:
    with pytest.raises(ValidationError, match="INBOX_RETENTION_DAYS"):
        ServiceSettings(
            database_url="postgresql://nobody@nowhere/nothing",
            amqp_url="amqp://nobody@nowhere",
            event_retention_days=400,
            inbox_retention_days=100,
        )
