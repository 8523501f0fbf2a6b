"""kill -9 of the broker under traffic: publishing resumes soon after it is back, and nothing is lost."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from clinic_local.ports import PortBook
from clinic_local.rabbitmq import Rabbit, RabbitServer
from clinic_shared.deliveries import Consumer
from clinic_shared.ids import uuid7
from clinic_shared.relay import Relay
from clinic_shared.service import Runtime, Service
from clinic_shared.testing import Servers, eventually
from clinic_shared.topology import declare_all

from .conftest import INSTALLED, QUEUE, Journal, Made

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

Looping = Callable[..., AbstractAsyncContextManager[None]]
RESUME_SECONDS = 120
BACKLOG = 2_000


class MortalBroker:
    """A broker of the test's own, on the same ports and data after its death."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / ".run" / "rabbitmq"
        self._rabbit = Rabbit(folder, ports=PortBook(folder / "ports.json"))
        self._data.mkdir(parents=True)
        self.server: RabbitServer = self._rabbit.start(self._data, durable=True)

    def kill(self) -> None:
        assert self.server.pid is not None
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.stop()

    def start(self) -> None:
        self.server = self._rabbit.start(self._data, durable=True)


@pytest.fixture
async def mortal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MortalBroker]:
    monkeypatch.delenv("CLINIC_AMQP_URL", raising=False)
    broker = await asyncio.to_thread(MortalBroker, tmp_path)
    yield broker
    await asyncio.to_thread(broker.server.stop)


@pytest.fixture
async def broker_urls(mortal: MortalBroker, servers: Servers) -> Servers:
    urls = Servers(servers.postgres_admin_url, mortal.server.amqp_url, mortal.server.management_url or "")
    await declare_all(urls.amqp_url, urls.management_url, INSTALLED.split(","))
    return urls


@pytest.mark.timeout(900)
async def test_a_killed_broker_costs_nothing_that_was_committed(
    made: Made,
    mortal: MortalBroker,
    producer: Runtime,
    consumer: Runtime,
    consumer_service: Service,
    journal: Journal,
    looping: Looping,
) -> None:
    keys, stop = [uuid7() for _ in range(20)], asyncio.Event()

    async def write(stop: asyncio.Event) -> None:
        """Keep committing events: an API needs no broker for that. No more than can be worked off afterwards."""
        version = 0
        while not stop.is_set():
            if await journal.pending(producer) < BACKLOG:
                version += 1
                for key in keys:
                    await journal.emit(producer, key=key, version=version)
            await asyncio.sleep(0.02)

    async def effects(at_least: int) -> bool:
        return len(await journal.effects(consumer)) >= at_least

    async with looping(Relay(producer).run, Consumer(consumer, QUEUE).run):
        writing = asyncio.create_task(write(stop))
        await eventually(lambda: effects(100), within_seconds=RESUME_SECONDS)
        await asyncio.to_thread(mortal.kill)
        pending = await journal.pending(producer)
        await eventually(
            lambda: _grew(journal, producer, min(pending + 40, BACKLOG - 1)), within_seconds=RESUME_SECONDS
        )
        await asyncio.to_thread(mortal.start)
        back, seen = time.monotonic(), len(await journal.effects(consumer))
        await eventually(lambda: effects(seen + 1), within_seconds=RESUME_SECONDS)
        print(f"resumed {time.monotonic() - back:.1f} s after the broker was back")  # noqa: T201
        stop.set()
        await writing
        await eventually(lambda: effects(len(journal.emitted)), within_seconds=2 * RESUME_SECONDS)
    found = await journal.effects(consumer)
    assert len(found) == len({event_id for event_id, _, _ in found})
    assert {event_id for event_id, _, _ in found} == set(journal.emitted)
    for key in keys:
        versions = [version for _, subject, version in found if subject == key]
        assert versions == sorted(versions)


async def _grew(journal: Journal, runtime: Runtime, beyond: int) -> bool:
    return await journal.pending(runtime) > beyond
