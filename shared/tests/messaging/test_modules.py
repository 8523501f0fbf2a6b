"""Any service but identity and audit left out, one at a time: nothing waits for who isn't there.

What a service does with its own events and requests doesn't depend on who else is installed, so leaving
one out can only show where services meet: queues and bindings, the relay, and (in the gateway's tests)
the routes. So each is left out there, with a real broker; one whole system runs with most of them left
out in `tests/modules`, and `make test-modules` starts one for each.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import UUID

import aio_pika
import pytest
from clinic_shared import contracts, leftovers
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.consumer import Handlers
from clinic_shared.events import Event
from clinic_shared.ids import uuid7
from clinic_shared.relay import Relay
from clinic_shared.relay_leases import Leases
from clinic_shared.service import Service
from clinic_shared.testing import Servers
from clinic_shared.topology import AUDIT_QUEUE, Topology, declare_all, event_queue, queues_of
from pydantic import SecretStr

from .conftest import Made

KNOWN = contracts.load()
OPTIONAL = [name for name in KNOWN.services if name not in {"identity", "audit"}]
EACH_LEFT_OUT = pytest.mark.parametrize("left_out", OPTIONAL)


def without(left_out: str) -> tuple[str, ...]:
    return tuple(name for name in KNOWN.services if name != left_out)


def heard_by(left_out: str) -> str:
    """Return the producer that the left-out service would hear most of, first of what nobody else hears."""
    heard = KNOWN.consumed_by(left_out)
    alone = [event.producer for event in heard if set(event.consumers) == {left_out}]
    producers = alone or [event.producer for event in heard]
    return max(sorted(set(producers)), key=producers.count)


@EACH_LEFT_OUT
def test_the_topology_has_nothing_of_it_and_everything_of_the_others(left_out: str) -> None:
    whole, rest = Topology.of(), Topology.of(without(left_out))
    names = {queue.name for queue in rest.queues}
    assert not [name for name in names if left_out in name.split(".")]
    assert {queue.name for queue in whole.queues} - names == {
        queue.name for queue in whole.queues if left_out in queue.name.split(".")
    }
    kept = {queue.name: set(queue.bindings) for queue in rest.queues}
    for queue in whole.queues:
        if queue.name in kept:
            assert kept[queue.name] == set(queue.bindings)
    assert AUDIT_QUEUE in names


@pytest.fixture
async def channel(vhost: Servers) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    async with await aio_pika.connect(vhost.amqp_url) as connection:
        yield await connection.channel()


@pytest.mark.servers
@EACH_LEFT_OUT
async def test_its_producers_go_on_and_everybody_else_gets_their_events(
    left_out: str, vhost: Servers, made: Made, channel: aio_pika.abc.AbstractChannel, tmp_path: Path
) -> None:
    """Without policies, so without an alternate exchange: what nobody hears would come back to the relay."""
    await declare_all(vhost.amqp_url, None, without(left_out))
    producer = heard_by(left_out)
    # With another event of the same key behind it, a returned one would hold that up too.
    types = [event.type for event in KNOWN.published_by(producer)] * 2
    service = fake_service(producer, tmp_path)
    changes: dict[str, Any] = {
        "amqp_url": SecretStr(vhost.amqp_url),
        "amqp_management_url": None,
        "subscribed_services": ",".join(without(left_out)),
    }
    async with made.start(service, **changes) as runtime:
        key = uuid7()
        async with runtime.database.transaction() as tx:
            for version, event_type in enumerate(types, start=1):
                tx.emit(event_of(event_type, key, version))
            tx.audit(AuditEntry(action=Action.READ, resource_type="Test"))
        url = runtime.settings.database_url.get_secret_value()
        async with aclosing(Relay(runtime)) as relay, Leases.on(url, "test", seconds=60) as leases:
            await leases.balance()
            await relay.relay_once(leases)
            (left,) = await (await leases.execute("SELECT count(*) AS left FROM outbox")).fetchall()
        assert left.left == 0
        assert event_queue(producer, left_out) not in queues_of(runtime)
    for consumer in without(left_out):
        expected = sum(consumer in KNOWN.events[event_type].consumers for event_type in types)
        if expected:
            queue = await channel.declare_queue(event_queue(consumer, producer), passive=True)
            assert queue.declaration_result.message_count == expected, consumer


def event_of(event_type: str, subject: UUID, version: int) -> Event:
    example = contracts.examples(event_type)[0]
    return Event(
        type=event_type,
        subject=subject,
        aggregate_version=version,
        data=example["data"],
        private=example.get("private"),
    )


def fake_service(name: str, folder: Path) -> Service:
    (folder / "migrations" / "versions").mkdir(parents=True)
    return Service(name=name, package_dir=folder / "package", routers=(), handlers=Handlers(name))


@pytest.mark.servers
async def test_what_it_left_behind_can_be_found_and_deleted(
    vhost: Servers, channel: aio_pika.abc.AbstractChannel
) -> None:
    await declare_all(vhost.amqp_url, None, ("identity", "audit", "patients", "reporting"))
    present = {queue.name for queue in Topology.of(("identity", "audit", "patients")).queues}
    strangers = [queue.name for queue in Topology.of().queues if queue.name not in present]
    exchange = await channel.get_exchange("identity.events")
    await exchange.publish(aio_pika.Message(b"{}"), "identity.centre-opened.v1")
    found = await leftovers.existing(vhost.amqp_url, strangers)
    assert {name.partition(".")[0] for name in found} == {"reporting"}
    assert await leftovers.delete(vhost.amqp_url, found) == 1
    assert await leftovers.existing(vhost.amqp_url, strangers) == []
    assert (await channel.get_queue("patients.identity")).declaration_result.message_count == 1
