"""A cluster of three brokers: whoever leads a queue is killed under publishing and consuming, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from clinic_local.rabbitmq_cluster import Cluster
from clinic_shared.deliveries import Consumer
from clinic_shared.ids import uuid7
from clinic_shared.relay import Relay
from clinic_shared.service import Runtime
from clinic_shared.testing import Servers, eventually
from clinic_shared.topology import declare_all

from .conftest import INSTALLED, QUEUE, Journal

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.extended]

Looping = Callable[..., AbstractAsyncContextManager[None]]
NODES = 3
PATIENCE_SECONDS = 120
"""Three brokers share the machine with whatever else runs on it."""


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.delenv("CLINIC_AMQP_URL", raising=False)
    cluster = await asyncio.to_thread(Cluster, tmp_path, size=NODES)
    yield cluster
    await asyncio.to_thread(cluster.stop)


@pytest.fixture
async def broker_urls(cluster: Cluster, servers: Servers) -> Servers:
    first = cluster.servers[0]
    await declare_all(first.amqp_url, first.management_url, INSTALLED.split(","))
    return Servers(servers.postgres_admin_url, cluster.amqp_urls, first.management_url)


async def described(cluster: Cluster, asked: int) -> dict[str, object]:
    """Return what a node says of the queue."""
    url = f"{cluster.servers[asked].management_url}/api/queues/%2F/{quote(QUEUE)}"
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        try:
            answer = (await client.get(url)).raise_for_status()
        except httpx.HTTPError:
            return {}
    return dict(answer.json())


@pytest.mark.timeout(900)
async def test_the_leaders_death_costs_nothing_that_was_confirmed_and_doubles_nothing(
    cluster: Cluster, producer: Runtime, consumer: Runtime, journal: Journal, looping: Looping
) -> None:
    keys, stop = [uuid7() for _ in range(20)], asyncio.Event()

    async def write() -> None:
        version = 0
        while not stop.is_set():
            version += 1
            for key in keys:
                await journal.emit(producer, key=key, version=version)
            await asyncio.sleep(0.05)

    async def effects(at_least: int) -> bool:
        return len(await journal.effects(consumer)) >= at_least

    async def flows_on() -> None:
        seen = len(await journal.effects(consumer))
        await eventually(lambda: effects(seen + 100), within_seconds=PATIENCE_SECONDS)

    async def led_by(asked: int, *others: str) -> str:
        return str(await eventually(lambda: _leader(cluster, asked, others), within_seconds=PATIENCE_SECONDS))

    async with looping(Relay(producer).run, Consumer(consumer, QUEUE).run):
        writing = asyncio.create_task(write())
        for _ in range(2):
            await flows_on()
            leader = await led_by(0)
            victim = cluster.number_of(leader)
            await asyncio.to_thread(cluster.kill, victim)
            # Whoever is left elects another, and publishing and consuming go on without the third.
            await led_by((victim + 1) % NODES, leader)
            await flows_on()
            await asyncio.to_thread(cluster.start, victim)
            await eventually(lambda: _is_whole(cluster), within_seconds=PATIENCE_SECONDS)
        stop.set()
        await writing
        await eventually(lambda: effects(len(journal.emitted)), within_seconds=PATIENCE_SECONDS)
    found = await journal.effects(consumer)
    assert len(found) == len({event_id for event_id, _, _ in found})
    assert {event_id for event_id, _, _ in found} == set(journal.emitted)
    for key in keys:
        versions = [version for _, subject, version in found if subject == key]
        assert versions == sorted(versions)


async def _leader(cluster: Cluster, asked: int, others: tuple[str, ...]) -> str | None:
    leader = str((await described(cluster, asked)).get("leader") or "")
    return leader if leader and leader not in others else None


async def _is_whole(cluster: Cluster) -> bool:
    online = (await described(cluster, 0)).get("online")
    return isinstance(online, list) and len(online) == NODES
