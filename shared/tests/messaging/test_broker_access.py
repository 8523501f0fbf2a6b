"""The users of a deployment can do at a real broker what they need, and nothing else."""

import pytest
from aiormq.exceptions import ChannelAccessRefused
from clinic_shared.broker import Connection, Outcome, OutgoingMessage, Publisher
from clinic_shared.ids import uuid7
from clinic_shared.management import Management
from clinic_shared.topology import QueueProbe, Topology, declare_all, intake_queue, verify_all

from .conftest import SERVICES

pytestmark = pytest.mark.servers
REGISTERED = ("patients.events", "patients.patient-registered.v1")


async def publish(amqp_url: str, exchange: str, routing_key: str) -> Outcome:
    connection = Connection(amqp_url, name="test")
    try:
        message = OutgoingMessage(
            exchange=exchange, routing_key=routing_key, message_id=str(uuid7()), body=b"{}"
        )
        return await Publisher(connection).publish(message)
    finally:
        await connection.close()


async def _ignore(_: object) -> None:
    """Stand for a consumer: only whether it may be one is asked."""


async def consume(amqp_url: str, queue: str) -> None:
    connection = Connection(amqp_url, name="test")
    try:
        channel = await connection.channel()
        await (await channel.get_queue(queue, ensure=False)).consume(_ignore)
    finally:
        await connection.close()


async def test_the_topology_step_declares_everything_and_sets_the_policies(vhost, user_of):
    urls = user_of("topology")
    await declare_all(urls.amqp_url, urls.management_url, SERVICES)
    assert await verify_all(vhost.amqp_url, vhost.management_url, SERVICES) == []


async def test_a_service_publishes_its_events_and_audit_records_and_fills_its_buffer(vhost, user_of):
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    own = user_of("patients").amqp_url
    for exchange, key in (REGISTERED, ("audit.records", "patients"), ("", intake_queue("patients"))):
        assert await publish(own, exchange, key) is Outcome.CONFIRMED


async def test_a_service_cannot_speak_as_another(vhost, user_of):
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    assert await publish(user_of("reporting").amqp_url, *REGISTERED) is Outcome.PERMANENT


async def test_a_service_publishes_its_own_types_and_records_only(vhost, user_of):
    """By another's routing key, in its own exchange or in the one that all share."""
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    own = user_of("reporting").amqp_url
    for exchange, key in (("reporting.events", REGISTERED[1]), ("audit.records", "patients")):
        assert await publish(own, exchange, key) is Outcome.PERMANENT
    assert await publish(own, "audit.records", "reporting") is Outcome.CONFIRMED


async def test_a_service_hears_its_own_queues_only(vhost, user_of):
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    for consumer, queue in (("reporting", "reporting.patients"), ("audit", "audit.records.in")):
        await consume(user_of(consumer).amqp_url, queue)
    with pytest.raises(ChannelAccessRefused):
        await consume(user_of("patients").amqp_url, "reporting.patients")


async def test_a_service_sees_whether_the_queues_of_its_events_are_there_and_bound(vhost, user_of):
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    urls, topology = user_of("patients"), Topology.of(SERVICES)
    connection = Connection(urls.amqp_url, name="test")
    for exchange in ("patients.events", "audit.records"):
        assert await QueueProbe(connection).missing(topology.queues_behind(exchange)) == []
        async with Management(urls.management_url, urls.amqp_url) as management:
            assert await management.bindings_from(exchange) >= topology.bindings_of(exchange)
    await connection.close()


async def test_a_service_cannot_make_or_change_anything(vhost, user_of):
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    connection = Connection(user_of("patients").amqp_url, name="test")
    with pytest.raises(ChannelAccessRefused):
        await (await connection.channel()).declare_queue("patients.mine", durable=True)
    with pytest.raises(ChannelAccessRefused):
        await (await connection.channel()).queue_delete("patients.intake")
    await connection.close()


async def test_the_gateway_hears_events_in_a_queue_of_its_own_and_publishes_none(vhost, user_of):
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    urls = user_of("gateway")
    connection = Connection(urls.amqp_url, name="test")
    channel = await connection.channel()
    queue = await channel.declare_queue("", exclusive=True, auto_delete=True)
    for service in SERVICES:
        await queue.bind(f"{service}.events", "#")
    await queue.consume(_ignore)
    await connection.close()
    assert await publish(urls.amqp_url, *REGISTERED) is Outcome.PERMANENT
