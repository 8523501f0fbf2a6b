"""The declared topology is what the broker has, and every way in which it isn't is found."""

import aio_pika
import httpx
import pytest
from clinic_shared import contracts
from clinic_shared.broker import Connection
from clinic_shared.management import Management, vhost_of
from clinic_shared.testing import Servers, eventually
from clinic_shared.topology import (
    QueueProbe,
    Topology,
    TopologyError,
    declare_all,
    print_text,
    verify_all,
)

pytestmark = pytest.mark.servers
SERVICES = ["patients", "reporting"]


def test_every_subscription_of_the_contracts_has_its_binding() -> None:
    topology = Topology.of()
    for event in contracts.load().events.values():
        bound = {
            queue for queue, key in topology.bindings_of(f"{event.producer}.events") if key == event.type
        }
        assert bound == {f"{consumer}.{event.producer}" for consumer in event.consumers}


def test_a_service_that_is_left_out_gets_no_queue() -> None:
    names = {queue.name for queue in Topology.of(["patients", "reporting"]).queues}
    assert "reporting.patients" in names
    assert not any("billing" in name for name in names)


async def test_what_was_declared_is_verified(vhost: Servers) -> None:
    await declare_all(vhost.amqp_url, vhost.management_url)
    assert await verify_all(vhost.amqp_url, vhost.management_url) == []
    assert await verify_all(vhost.amqp_url, None) == []


async def test_declaring_twice_changes_nothing(vhost: Servers) -> None:
    for _ in range(2):
        await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    assert await verify_all(vhost.amqp_url, vhost.management_url, SERVICES) == []


async def test_a_missing_queue_binding_or_policy_is_named(vhost: Servers) -> None:
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    assert await verify_all(vhost.amqp_url, vhost.management_url, SERVICES) == []
    async with httpx.AsyncClient(base_url=vhost.management_url, trust_env=False) as management:
        name = vhost_of(vhost.amqp_url)
        await management.delete(f"/api/queues/{name}/reporting.parking")
        await management.delete(f"/api/policies/{name}/clinic-reporting")
        await management.delete(
            f"/api/bindings/{name}/e/patients.events/q/reporting.patients/patients.patient-registered.v1"
        )
    found = await verify_all(vhost.amqp_url, vhost.management_url, SERVICES, settle_seconds=0)
    assert "queue reporting.parking is missing" in found
    assert (
        "queue reporting.patients is not bound to patients.events with patients.patient-registered.v1"
        in found
    )
    assert "queue reporting.patients lacks delivery-limit=20 by policy" in found


async def test_a_queue_with_other_arguments_is_refused_by_name(vhost: Servers) -> None:
    connection = Connection(vhost.amqp_url, name="test")
    channel = await connection.channel()
    await channel.declare_queue("reporting.patients", durable=True)
    with pytest.RaisesGroup(pytest.RaisesExc(TopologyError, match=r"reporting\.patients exists with other")):
        await declare_all(vhost.amqp_url, None, SERVICES)
    await connection.close()


async def test_the_printed_definitions_are_the_topology(vhost: Servers) -> None:
    """What `print_text` hands to an operator can be imported as it stands and then verifies."""
    text = print_text(vhost.amqp_url, SERVICES)
    async with httpx.AsyncClient(base_url=vhost.management_url, trust_env=False) as management:
        answer = await management.post(
            "/api/definitions", content=text, headers={"content-type": "application/json"}
        )
        assert answer.is_success, answer.text
    assert await verify_all(vhost.amqp_url, vhost.management_url, SERVICES) == []


async def test_a_poison_message_reaches_the_parking_queue_by_policy(vhost: Servers) -> None:
    """What dies with its consumer twenty times is kept by the broker, not dropped."""
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    connection = Connection(vhost.amqp_url, name="test")
    channel = await connection.channel(confirms=True)
    queue = await channel.get_queue("reporting.patients")
    await channel.default_exchange.publish(_message(), "reporting.patients")
    deliveries = 0

    async def die(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        nonlocal deliveries
        deliveries += 1
        await message.reject(requeue=True)

    await queue.consume(die)
    await eventually(lambda: _count(connection, "reporting.parking"))
    assert deliveries == 21
    await connection.close()


async def test_a_probe_outlives_the_channel_that_a_missing_queue_costs(vhost: Servers) -> None:
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    connection = Connection(vhost.amqp_url, name="test")
    probe = QueueProbe(connection)
    assert await probe.missing(["nowhere", "reporting.patients", "nor.here"]) == ["nowhere", "nor.here"]
    await connection.close()


async def test_bindings_are_read_back(vhost: Servers) -> None:
    topology = await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    async with Management(vhost.management_url, vhost.amqp_url) as management:
        assert await management.bindings_from("patients.events") == topology.bindings_of("patients.events")


def _message() -> aio_pika.Message:
    return aio_pika.Message(b"{}", delivery_mode=2)


async def _count(connection: Connection, queue: str) -> int:
    channel = await connection.channel()
    declared = await channel.declare_queue(queue, passive=True)
    await channel.close()
    return declared.declaration_result.message_count or 0
