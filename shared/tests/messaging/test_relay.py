"""Every committed event reaches the broker at least once, in order per key, whatever fails meanwhile."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import httpx
import orjson
import psycopg
import pytest
from clinic_shared.audit import Action, AuditEntry, leaf_hash
from clinic_shared.context import Context
from clinic_shared.envelope import Envelope
from clinic_shared.health import Health
from clinic_shared.ids import uuid7
from clinic_shared.management import vhost_of
from clinic_shared.relay import Relay
from clinic_shared.relay_leases import Leases
from clinic_shared.relay_routes import RouteMissingError
from clinic_shared.service import Runtime
from clinic_shared.testing import Servers, eventually
from clinic_shared.topology import declare_all
from pydantic import SecretStr
from sqlalchemy import text

from .conftest import INSTALLED, QUEUE, REGISTERED, UPDATED, Journal, Made, Queues, Wire

pytestmark = pytest.mark.servers

Looping = Callable[..., AbstractAsyncContextManager[None]]


@asynccontextmanager
async def leading(runtime: Runtime) -> AsyncIterator[Leases]:
    """Hold the leases that a relay without company has."""
    url = runtime.settings.database_url.get_secret_value()
    async with Leases.on(url, "test", seconds=60) as leases:
        await leases.balance()
        yield leases


async def drained(journal: Journal, runtime: Runtime, *, every: float = 0.05) -> None:
    async def empty() -> bool:
        return await journal.pending(runtime) == 0

    await eventually(empty, within_seconds=60, every=every)


def versions_by_key(messages: list[Any]) -> dict[str, list[int]]:
    """Return each key's versions in the order of arrival, repetitions left out."""
    found: dict[str, list[int]] = {}
    for message in messages:
        envelope = Envelope.from_headers(message.headers)
        versions = found.setdefault(str(envelope.partition_key), [])
        if envelope.aggregate_version not in versions:
            versions.append(envelope.aggregate_version)
    return found


@asynccontextmanager
async def management(urls: Servers) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    async with httpx.AsyncClient(base_url=urls.management_url, trust_env=False, timeout=60) as client:
        yield client, vhost_of(urls.amqp_url)


async def test_a_committed_event_is_published_with_its_envelope(
    producer: Runtime, journal: Journal, queues: Queues, looping: Looping
) -> None:
    key = uuid7()
    context = Context(
        correlation_id=uuid7(), causation_id=uuid7(), traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    )
    async with producer.database.transaction(context) as tx:
        event_id = tx.emit(journal.event(key, 3))
    async with looping(Relay(producer).run):
        await drained(journal, producer)
    (message,) = await queues.take(QUEUE, 1)
    envelope = Envelope.from_headers(message.headers)
    assert message.message_id == str(envelope.id) == str(event_id)
    assert message.routing_key == envelope.type == REGISTERED
    assert message.delivery_mode == 2
    assert (envelope.source, envelope.subject, envelope.partition_key) == ("patients", key, key)
    assert (envelope.aggregate_version, envelope.schema_version) == (3, 1)
    assert (envelope.correlation_id, envelope.causation_id) == (context.correlation_id, context.causation_id)
    assert envelope.traceparent == context.traceparent
    body = orjson.loads(message.body)
    assert body["data"]["patient_id"] == str(key)
    assert body["private"]["name"]["family"] == "Тестова"


async def test_a_rolled_back_event_is_never_published(
    producer: Runtime, journal: Journal, queues: Queues
) -> None:
    async def fail_after_emitting() -> None:
        async with producer.database.transaction() as tx:
            tx.emit(journal.event(uuid7(), 1))
            await tx.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_after_emitting()
    async with aclosing(Relay(producer)) as relay, leading(producer) as leases:
        assert not await relay.relay_once(leases)
    assert await queues.count(QUEUE) == 0


async def test_a_transaction_that_commits_late_is_not_skipped(
    producer: Runtime, journal: Journal, queues: Queues
) -> None:
    async with aclosing(Relay(producer)) as relay, leading(producer) as leases:
        async with producer.database.transaction() as late:
            late.emit(journal.event(uuid7(), 1))
            await late.flush()  # has its place in the outbox, but isn't committed
            late.forget()
            await journal.emit(producer)
            assert await relay.relay_once(leases)
            assert await queues.count(QUEUE) == 1
        assert await relay.relay_once(leases)
    assert await journal.pending(producer) == 0
    await queues.take(QUEUE, 2)


async def test_events_of_one_key_arrive_in_order(
    producer: Runtime, journal: Journal, queues: Queues, looping: Looping
) -> None:
    await journal.emit_many(producer, 400, keys=7)
    async with looping(Relay(producer).run):
        await drained(journal, producer)
    messages = await queues.take(QUEUE, 400)
    assert all(versions == sorted(versions) for versions in versions_by_key(messages).values())


async def test_order_survives_a_full_queue_and_nothing_is_lost(
    producer: Runtime, journal: Journal, queues: Queues, looping: Looping, broker_urls: Servers
) -> None:
    """A nacked event isn't overtaken by later ones of its key, and is sent again once there is room."""
    full = {
        "pattern": "^reporting\\.patients$",
        "apply-to": "queues",
        "definition": {"max-length": 3, "overflow": "reject-publish"},
        "priority": 50,
    }
    async with management(broker_urls) as (client, vhost):
        (await client.put(f"/api/policies/{vhost}/full", json=full)).raise_for_status()
        await eventually(lambda: _policy_of(client, vhost, "full"))
        await journal.emit_many(producer, 60, keys=3)
        async with looping(Relay(producer).run):
            await eventually(lambda: _postponed(producer))
            async with queues.collecting(QUEUE) as messages:
                await drained(journal, producer)
                await eventually(lambda: len({message.message_id for message in messages}) == 60)
    assert {message.message_id for message in messages} == {str(one) for one in journal.emitted}
    assert all(versions == list(range(1, 21)) for versions in versions_by_key(messages).values())


async def _policy_of(client: httpx.AsyncClient, vhost: str, name: str) -> bool:
    queue = (await client.get(f"/api/queues/{vhost}/{QUEUE}")).raise_for_status().json()
    return bool(queue.get("policy") == name)


async def _postponed(runtime: Runtime) -> bool:
    async with runtime.database.transaction() as tx:
        rows = await tx.fetch_all(text("SELECT 1 FROM outbox WHERE attempts > 0 AND last_error = 'nacked'"))
    return bool(rows)


async def test_a_queue_that_vanishes_while_publishing_costs_no_event(
    producer: Runtime, journal: Journal, queues: Queues, broker_urls: Servers
) -> None:
    """The broker confirms what nobody but `unrouted` got; the row must stay all the same."""
    async with aclosing(Relay(producer)) as relay, leading(producer) as leases:
        assert not await relay.relay_once(leases)  # everything is there
        await queues.delete(QUEUE)
        await journal.emit(producer)
        with pytest.raises(RouteMissingError, match=r"reporting\.patients"):
            await relay.relay_once(leases)
        assert await queues.count("unrouted") == 1
        assert await journal.pending(producer) == 1
        await declare_all(broker_urls.amqp_url, broker_urls.management_url, INSTALLED.split(","))
        assert await relay.relay_once(leases)
    assert await journal.pending(producer) == 0
    await queues.take(QUEUE, 1)


async def test_a_missing_queue_or_binding_holds_publishing_back_and_is_reported(
    producer: Runtime, journal: Journal, queues: Queues, looping: Looping, broker_urls: Servers
) -> None:
    async with management(broker_urls) as (client, vhost):
        await client.delete(f"/api/bindings/{vhost}/e/patients.events/q/{QUEUE}/{UPDATED}")
    async with looping(Relay(producer).run):
        await eventually(lambda: "relay" in Health.of(producer).reasons)
        await journal.emit(producer)
        await asyncio.sleep(0)
        assert await journal.pending(producer) == 1
        await declare_all(broker_urls.amqp_url, broker_urls.management_url, INSTALLED.split(","))
        await drained(journal, producer)
        await eventually(lambda: not Health.of(producer).reasons)
    await queues.take(QUEUE, 1)


async def test_an_unroutable_event_is_kept_and_blocks_only_its_key(
    made: Made, producer: Runtime, journal: Journal, queues: Queues, looping: Looping, broker_urls: Servers
) -> None:
    """Where nobody catches what is unrouted, the broker returns it, and the relay notices."""
    key, database_url = uuid7(), producer.settings.database_url.get_secret_value()
    async with management(broker_urls) as (client, vhost):
        await client.delete(f"/api/policies/{vhost}/clinic-exchanges")
        await client.delete(f"/api/bindings/{vhost}/e/patients.events/q/{QUEUE}/{UPDATED}")
    await journal.emit(producer, key=key, event_type=UPDATED, version=1)
    await journal.emit(producer, key=key, version=2)
    await journal.emit(producer)
    blind = made.start(producer.service, database_url, amqp_management_url=None)
    async with blind as runtime, looping(Relay(runtime).run):
        await eventually(lambda: _only_pending(runtime, key, 2))
        await queues.take(QUEUE, 1)
        async with queues.channel() as channel:
            queue = await channel.get_queue(QUEUE, ensure=False)
            await queue.bind("patients.events", UPDATED)
        await drained(journal, runtime)
    messages = await queues.take(QUEUE, 2)
    assert versions_by_key(messages) == {str(key): [1, 2]}


async def _only_pending(runtime: Runtime, key: object, count: int) -> bool:
    async with runtime.database.transaction() as tx:
        rows = await tx.fetch_all(text("SELECT partition_key, attempts FROM outbox ORDER BY id"))
    return [row.partition_key for row in rows] == [key] * count and rows[0].attempts > 0


async def test_an_unknown_outcome_is_retried_with_the_same_id(
    made: Made, producer: Runtime, journal: Journal, queues: Queues, looping: Looping, wire: Wire
) -> None:
    """The broker took the event and its confirm was lost: the event is sent again, never a new one."""
    database_url = producer.settings.database_url.get_secret_value()
    async with (
        made.start(producer.service, database_url, amqp_url=SecretStr(wire.url)) as runtime,
        looping(Relay(runtime).run),
    ):
        await journal.emit(producer)
        await drained(journal, producer)
        wire.swallow_answers()
        lost = await journal.emit(producer)

        async def arrived() -> bool:
            return await queues.count(QUEUE) == 2

        await eventually(arrived)
        assert await journal.pending(producer) == 1
        wire.cut()
        await drained(journal, producer)
    messages = await queues.take(QUEUE, 3)
    assert [message.message_id for message in messages].count(str(lost)) == 2


async def test_two_relays_publish_nothing_twice_and_one_takes_over_from_the_other(
    made: Made, producer: Runtime, journal: Journal, queues: Queues, looping: Looping
) -> None:
    database_url = producer.settings.database_url.get_secret_value()
    async with made.start(producer.service, database_url) as second, looping(Relay(second).run):
        async with looping(Relay(producer).run):
            await journal.emit_many(producer, 200)
            await drained(journal, producer)
        await journal.emit_many(producer, 50)
        await drained(journal, producer)
    await queues.take(QUEUE, 250)


async def test_relaying_goes_on_after_its_database_sessions_are_killed(
    producer: Runtime, journal: Journal, queues: Queues, looping: Looping, servers: Servers
) -> None:
    async with looping(Relay(producer).run):
        await journal.emit(producer)
        await drained(journal, producer)
        with psycopg.connect(servers.postgres_admin_url, autocommit=True) as admin:
            killed = admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = %s AND application_name = 'clinic-patients-relay'",
                (producer.settings.database_url.get_secret_value().rpartition("/")[2],),
            ).fetchall()
        assert len(killed) == 2  # the lock's and the listener's
        await journal.emit(producer)
        await drained(journal, producer)
    await queues.take(QUEUE, 2)


async def test_stopping_marks_what_was_confirmed(
    producer: Runtime, journal: Journal, queues: Queues, looping: Looping
) -> None:
    """Nothing is in flight at the end: each event is either pending or at the broker, none is both."""
    await journal.emit_many(producer, 3000)
    async with looping(Relay(producer).run):

        async def begun() -> bool:
            return await queues.count(QUEUE) > 0

        await eventually(begun, every=0.005)
    pending = await journal.pending(producer)
    await queues.take(QUEUE, 3000 - pending)


async def test_a_commit_is_noticed_at_once(producer: Runtime, journal: Journal, looping: Looping) -> None:
    """NOTIFY wakes the relay long before its slowest poll of a second would."""
    waits = []
    async with looping(Relay(producer).run):
        for _ in range(3):
            await asyncio.sleep(2)  # let the poll slow down: the next would come in half a second
            started = time.monotonic()
            await journal.emit(producer)
            await drained(journal, producer, every=0.002)
            waits.append(time.monotonic() - started)
    assert statistics.median(waits) < 0.4


async def test_audit_records_are_numbered_without_gaps(
    producer: Runtime, queues: Queues, looping: Looping
) -> None:
    async def act(number: int) -> None:
        async with producer.database.transaction() as tx:
            for _ in range(number % 3 + 1):
                tx.audit(AuditEntry(action=Action.READ, resource_type="Patient", resource_id=uuid7()))

    total = sum(n % 3 + 1 for n in range(40))
    async with looping(Relay(producer).run):
        await asyncio.gather(*(act(n) for n in range(40)))
        await eventually(lambda: _no_audit_pending(producer))
    messages = await queues.take("audit.records.in", total)
    assert [message.headers["pseq"] for message in messages] == list(range(total))
    assert all(message.headers["producer"] == "patients" for message in messages)
    assert all(leaf_hash(message.body).hex() == message.headers["leaf_hash"] for message in messages)


async def _no_audit_pending(runtime: Runtime) -> bool:
    async with runtime.database.transaction() as tx:
        return bool((await tx.fetch_all(text("SELECT count(*) FROM audit_outbox")))[0][0] == 0)
