"""Several relays of one service: they share the work, and whatever kills them costs neither an event nor the order."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest
from aio_pika.abc import AbstractIncomingMessage
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.broker import WINDOW
from clinic_shared.deliveries import Consumer
from clinic_shared.envelope import Envelope
from clinic_shared.ids import uuid7
from clinic_shared.relay import Relay
from clinic_shared.relay_leases import SHARDS, Leases
from clinic_shared.service import Runtime
from clinic_shared.testing import Servers, eventually
from sqlalchemy import text

from .conftest import QUEUE, Journal, Made, Queues

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

Looping = Callable[..., AbstractAsyncContextManager[None]]
Arrived = list[AbstractIncomingMessage]

LEASE_SECONDS = 2
SETTLE_SECONDS = 90
"""Processes start slowly on a machine that has more to do."""
HOLDERS = """
    SELECT pid, count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE datname = %s AND locktype = 'advisory' AND objsubid = 2 AND objid < %s GROUP BY pid
"""

CHANGE = """
    INSERT INTO aggregate VALUES (:id, 1) ON CONFLICT (id) DO UPDATE SET version = aggregate.version + 1
    RETURNING version
"""


def url_of(runtime: Runtime) -> str:
    return runtime.settings.database_url.get_secret_value()


@dataclass
class Relays:
    """Processes of the producer's relay, and what the database knows of their leases."""

    producer: Runtime
    broker: Servers
    folder: Path
    admin: psycopg.Connection[Any]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        settings = {
            "CLINIC_ENVIRONMENT": "test",
            "CLINIC_DATABASE_URL": url_of(self.producer),
            "CLINIC_AMQP_URL": self.broker.amqp_url,
            "CLINIC_SUBSCRIBED_SERVICES": self.producer.settings.subscribed_services,
            "CLINIC_RELAY_LEASE_SECONDS": str(LEASE_SECONDS),
        }
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("relay_process.py")), str(self.folder)],
            env={**os.environ, **settings, **environment},
            stdout=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def shares(self) -> dict[int, int]:
        """Return how many shards each session holds."""
        database = url_of(self.producer).rpartition("/")[2]
        return dict(self.admin.execute(HOLDERS, (database, SHARDS)).fetchall())

    async def settle(self, count: int) -> dict[int, int]:
        """Wait until so many relays hold all shards in fair shares."""
        share = -(-SHARDS // count)

        def fair() -> dict[int, int]:
            shares = self.shares()
            settled = len(shares) == count and sum(shares.values()) == SHARDS
            return shares if settled and max(shares.values()) <= share else {}

        return await eventually(fair, within_seconds=SETTLE_SECONDS)

    def end(self) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


@pytest.fixture
def relays(
    producer: Runtime, broker_urls: Servers, tmp_path: Path, postgres_admin: psycopg.Connection[Any]
) -> Iterator[Relays]:
    relays = Relays(producer, broker_urls, tmp_path / "package", postgres_admin)
    yield relays
    relays.end()


@pytest.fixture
async def tap(queues: Queues) -> AsyncIterator[Arrived]:
    """Everything that reaches the producer's exchange, copies included."""
    async with queues.channel() as channel:
        queue = await channel.declare_queue("tap", durable=True)
        await queue.bind("patients.events", "#")
    async with queues.collecting("tap") as found:
        yield found


def copies(arrived: Arrived) -> Counter[str]:
    return Counter(str(message.message_id) for message in arrived)


def first_copies(arrived: Arrived) -> dict[UUID, list[int]]:
    """Return each key's versions in the order in which they first arrived."""
    versions: dict[UUID, list[int]] = {}
    for message in arrived:
        envelope = Envelope.from_headers(message.headers)
        known = versions.setdefault(envelope.partition_key, [])
        if envelope.aggregate_version not in known:
            known.append(envelope.aggregate_version)
    return versions


@dataclass
class Writers:
    """Concurrent writers of patients who change again and again, each change with an audit record."""

    producer: Runtime
    journal: Journal
    versions: dict[UUID, int] = field(default_factory=lambda: {uuid7(): 0 for _ in range(24)})

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        async with self.producer.database.transaction() as tx:
            await tx.execute(text("CREATE TABLE aggregate (id uuid PRIMARY KEY, version bigint NOT NULL)"))
        stop = asyncio.Event()
        tasks = [asyncio.create_task(self._write(stop, number)) for number in range(4)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def _write(self, stop: asyncio.Event, number: int) -> None:
        keys = list(self.versions)
        while not stop.is_set():
            number += 1
            await self._change(keys[number * 7 % len(keys)])

    async def _change(self, key: UUID) -> None:
        async with self.producer.database.transaction() as tx:
            row = await tx.fetch_one(text(CHANGE), {"id": key})
            assert row is not None
            tx.emit(self.journal.event(key, row.version))
            tx.audit(AuditEntry(action=Action.UPDATE, resource_type="Patient", resource_id=key))
        self.versions[key] = max(row.version, self.versions[key])


async def drained(producer: Runtime) -> None:
    async def empty() -> bool:
        async with producer.database.transaction() as tx:
            left = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM audit_outbox)"
            return bool((await tx.fetch_all(text(left)))[0][0] == 0)

    await eventually(empty, within_seconds=60)


async def test_relays_share_the_shards_as_they_come_and_go(relays: Relays) -> None:
    first = relays.start()
    assert list((await relays.settle(1)).values()) == [SHARDS]
    relays.start()
    relays.start()
    assert sorted((await relays.settle(3)).values()) == [4, 6, 6]
    first.terminate()
    assert first.wait(timeout=60) == 0
    assert sorted((await relays.settle(2)).values()) == [8, 8]


async def test_killed_stalled_and_cut_off_relays_cost_no_event_and_no_order(
    relays: Relays,
    producer: Runtime,
    consumer: Runtime,
    journal: Journal,
    queues: Queues,
    tap: Arrived,
    looping: Looping,
) -> None:
    writers = Writers(producer, journal)
    async with looping(Consumer(consumer, QUEUE).run), queues.collecting("audit.records.in") as records:
        async with writers.writing():
            await _hurt(relays, tap)
        await drained(producer)
        total = sum(writers.versions.values())
        await eventually(lambda: len(copies(tap)) == len(bodies_by_number(records)) == total)

        async def applied() -> bool:
            return len(await journal.effects(consumer)) >= total

        await eventually(applied, within_seconds=60)
    in_order = {key: list(range(1, last + 1)) for key, last in writers.versions.items()}
    assert first_copies(tap) == in_order
    effects = await journal.effects(consumer)
    assert len(effects) == total
    assert {key: [v for _, k, v in effects if k == key] for key in in_order} == in_order
    audited = bodies_by_number(records)
    assert sorted(audited) == list(range(total))
    assert all(len(bodies) == 1 for bodies in audited.values())
    assert len(set.union(*audited.values())) == total
    assert len(tap) - total < total / 2, "more was sent twice than a death or a pause explains"


def bodies_by_number(records: Arrived) -> dict[int, set[bytes]]:
    """Return the audit records that arrived, by the number in their producer's sequence."""
    found: dict[int, set[bytes]] = {}
    for message in records:
        found.setdefault(cast("int", message.headers["pseq"]), set()).add(message.body)
    return found


async def _hurt(relays: Relays, tap: Arrived) -> None:
    """Kill, stall and cut off relays while events flow, with others left to take over."""

    async def flows() -> None:
        seen = len(copies(tap))
        await eventually(lambda: len(copies(tap)) > seen + 50, within_seconds=60)

    for _ in range(3):
        relays.start()
    await relays.settle(3)
    await flows()
    killed, stalled, _ = relays.processes
    killed.kill()
    await relays.settle(2)
    await flows()
    for session in relays.shares():
        relays.admin.execute("SELECT pg_terminate_backend(%s)", (session,))
    await relays.settle(2)
    await flows()
    stalled.send_signal(signal.SIGSTOP)
    await relays.settle(1)
    await flows()
    stalled.send_signal(signal.SIGCONT)
    await relays.settle(2)
    await flows()


async def repeated_after_a_stall(
    relays: Relays, producer: Runtime, journal: Journal, tap: Arrived, looping: Looping, **environment: str
) -> int:
    """Stall a relay in the middle of a batch until another has sent everything; count what it sends then."""
    await journal.emit_many(producer, 3000)
    stalled = relays.start(**environment)
    await eventually(lambda: tap, within_seconds=60, every=0.001)
    stalled.send_signal(signal.SIGSTOP)
    async with looping(Relay(producer).run):
        await drained(producer)
        await eventually(lambda: len(copies(tap)) == 3000)
        sent = len(tap)
        stalled.send_signal(signal.SIGCONT)
        # It has joined the other again, with what it had begun behind it.
        await relays.settle(2)
        await journal.emit(producer)
        await eventually(lambda: len(copies(tap)) == 3001)
    return len(tap) - sent - 1


async def test_a_relay_that_was_stalled_repeats_a_window_at_most(
    relays: Relays, producer: Runtime, journal: Journal, tap: Arrived, looping: Looping
) -> None:
    assert await repeated_after_a_stall(relays, producer, journal, tap, looping) <= WINDOW


async def test_without_its_fence_it_repeats_the_rest_of_its_batch(
    relays: Relays, producer: Runtime, journal: Journal, tap: Arrived, looping: Looping
) -> None:
    """What the test above proves nothing without."""
    mutation = {"CLINIC_MUTATION": "relay-fence-off"}
    assert await repeated_after_a_stall(relays, producer, journal, tap, looping, **mutation) > WINDOW


async def test_without_leases_two_relays_send_everything_twice(
    made: Made,
    producer: Runtime,
    journal: Journal,
    tap: Arrived,
    looping: Looping,
    mutation: Callable[[str], None],
) -> None:
    mutation("relay-lease-off")
    await journal.emit_many(producer, 500, keys=9)
    second = made.start(producer.service, url_of(producer))
    async with second as runtime, looping(Relay(producer).run, Relay(runtime).run):
        await drained(producer)
    assert len(tap) > 500
    assert all(versions == sorted(versions) for versions in first_copies(tap).values()), (
        "order doesn't rest on them"
    )


async def test_the_relay_of_the_release_before_and_ours_never_publish_side_by_side(producer: Runtime) -> None:
    """It takes one lock for all there is, and knows nothing of shards."""
    the_lock_of_before = 0x0C11_71C1
    url = url_of(producer)
    with psycopg.connect(url, autocommit=True) as before:
        before.execute("SELECT pg_advisory_lock(%s)", (the_lock_of_before,))
        async with Leases.on(url, "test", seconds=60) as leases:
            await leases.balance()
            assert not leases
            before.execute("SELECT pg_advisory_unlock(%s)", (the_lock_of_before,))
            await leases.balance()
            assert len(leases.shards) == SHARDS
            assert leases.audit
            assert before.execute("SELECT pg_try_advisory_lock(%s)", (the_lock_of_before,)).fetchone() == (
                False,
            )
