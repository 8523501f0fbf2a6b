"""What the client libraries and the broker are known to do to those who trust them, and that it costs nothing here."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import clinic_shared
import psycopg
import pytest
from clinic_shared import broker, deliveries
from clinic_shared.broker import Broker
from clinic_shared.database import Database, Transaction
from clinic_shared.deliveries import Consumer
from clinic_shared.envelope import Envelope
from clinic_shared.ids import uuid7
from clinic_shared.service import Runtime
from clinic_shared.testing import Servers, eventually
from sqlalchemy import text

from .conftest import QUEUE, Behaviour, Journal, Made, Queues
from .test_consumer import put

pytestmark = pytest.mark.servers
Looping = Callable[..., AbstractAsyncContextManager[None]]
POOL = 3


def test_nobody_iterates_over_a_queue() -> None:
    """An iterator ends without a word when the broker stays away for more than a minute."""
    sources = "".join(file.read_text() for file in Path(clinic_shared.__file__).parent.rglob("*.py"))
    assert ".iterator(" not in sources
    assert "connect_robust" not in sources


async def test_a_handler_that_is_cancelled_leaves_its_message_to_the_next(
    consumer: Runtime,
    journal: Journal,
    queues: Queues,
    looping: Looping,
    behaviour: Behaviour,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library's own context manager would reject it without putting it back."""
    monkeypatch.setattr(deliveries, "DRAIN_SECONDS", 0.1)
    began = asyncio.Event()

    async def hang(_: Transaction, __: Envelope) -> None:
        began.set()
        await asyncio.Event().wait()

    behaviour.before = hang
    await put(queues, uuid7())
    working = asyncio.create_task(Consumer(consumer, QUEUE).run(asyncio.Event()))
    await began.wait()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    Broker.of(consumer).consuming.abandon()
    behaviour.before = None
    async with looping(Consumer(consumer, QUEUE).run):
        await eventually(lambda: _has_effects(journal, consumer, 1), within_seconds=60)


async def test_a_handler_that_blocks_the_loop_past_the_heartbeats_has_one_effect(
    made: Made,
    consumer: Runtime,
    journal: Journal,
    queues: Queues,
    looping: Looping,
    behaviour: Behaviour,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker gives the message to somebody else, or to the same again, while it is being worked on."""
    monkeypatch.setattr(broker, "HEARTBEAT_SECONDS", 1)
    blocked: list[float] = []

    async def block(_: Transaction, __: Envelope) -> None:
        if not blocked:
            blocked.append(time.monotonic())
            time.sleep(4)  # noqa: ASYNC251 - the trap itself

    behaviour.before = block
    await put(queues, uuid7())
    await put(queues, uuid7())
    url = consumer.settings.database_url.get_secret_value()
    async with made.start(consumer.service, url) as runtime, looping(Consumer(runtime, QUEUE).run):
        await eventually(lambda: _has_effects(journal, consumer, 2), within_seconds=60)
        await eventually(lambda: _is_empty(queues), within_seconds=60)
    assert len(await journal.effects(consumer)) == 2


async def test_callers_who_leave_in_mid_statement_cost_the_pool_nothing(servers: Servers) -> None:
    """Neither a connection that nobody gives back, nor a statement that runs on for nobody."""
    url = servers.postgres_admin_url.replace("postgresql://", "postgresql+psycopg://", 1)
    name = f"cancelled-{uuid7()}"
    database = Database(url, service=name, pool_size=POOL, pool_timeout_seconds=60)

    async def ask() -> None:
        async with database.transaction() as tx:
            await tx.execute(text("SELECT pg_sleep(60)"))

    try:
        asking = [asyncio.create_task(ask()) for _ in range(10 * POOL)]
        await eventually(lambda: _sessions(servers, name, "active") == POOL)
        for task in asking:
            task.cancel()
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        await eventually(lambda: _sessions(servers, name, "active") == 0, within_seconds=60)
        assert database.in_use == 0
        async with asyncio.TaskGroup() as group:
            for _ in range(POOL):
                group.create_task(_answers(database))
    finally:
        await database.dispose()


async def _answers(database: Database) -> None:
    async with database.transaction() as tx:
        assert await tx.fetch_one(text("SELECT 1")) == (1,)


def _sessions(servers: Servers, application: str, state: str) -> int:
    with psycopg.connect(servers.postgres_admin_url) as admin:
        found = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = %s",
            (f"clinic-{application}", state),
        ).fetchone()
    return int(found[0]) if found else 0


async def _has_effects(journal: Journal, runtime: Runtime, count: int) -> Any:
    return len(await journal.effects(runtime)) >= count


async def _is_empty(queues: Queues) -> bool:
    return await queues.count(QUEUE) == 0
