"""Nobody forges another's event, whichever way it takes: the broker vouches for the sender, the consumer asks."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aio_pika
import pytest
from aiormq.exceptions import ChannelPreconditionFailed
from clinic_shared.broker import Connection, Outcome, OutgoingMessage, Publisher
from clinic_shared.deliveries import Consumer
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.ids import uuid7
from clinic_shared.relay import Relay
from clinic_shared.senders import SenderRefusedError, Senders
from clinic_shared.service import Runtime, Service
from clinic_shared.testing import FixedClock, eventually
from clinic_shared.topology import declare_all
from pydantic import SecretStr
from sqlalchemy import text

from .conftest import QUEUE, REGISTERED, SERVICES, Journal, Made, UserOf, _service

pytestmark = pytest.mark.servers

Looping = Callable[..., AbstractAsyncContextManager[None]]


@pytest.fixture
async def reporting(vhost, user_of: UserOf, made: Made, consumer_service: Service, consumer_url: str) -> Any:
    """The consumer as a deployment runs it: with a user of its own."""
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    own = SecretStr(user_of("reporting").amqp_url)
    async with made.start(consumer_service, consumer_url, amqp_url=own) as runtime:
        yield runtime


def registered() -> tuple[dict[str, Any], bytes]:
    """Return headers and body of an event of patients, which anybody could write."""
    key, now = uuid7(), FixedClock().now()
    envelope = Envelope(
        id=uuid7(),
        source="patients",
        type=REGISTERED,
        subject=key,
        time=now,
        recorded_at=now,
        aggregate_version=1,
        partition_key=key,
        correlation_id=uuid7(),
    )
    return envelope.headers(), encode_body({"patient_id": str(key), "version": 1}, None)


async def put(amqp_url: str, headers: dict[str, Any], body: bytes) -> None:
    """Publish straight into the consumer's queue, as every service's user may."""
    connection = Connection(amqp_url, name="test")
    try:
        message = OutgoingMessage(
            exchange="", routing_key=QUEUE, message_id=str(uuid7()), headers=headers, body=body
        )
        assert await Publisher(connection).publish(message) is Outcome.CONFIRMED
    finally:
        await connection.close()


async def parked(runtime: Runtime) -> list[str]:
    async with runtime.database.transaction() as tx:
        rows = await tx.fetch_all(text("SELECT error FROM held WHERE state = 'parked' ORDER BY id"))
    return [str(row.error) for row in rows]


async def test_an_event_that_another_service_sent_is_parked(
    reporting: Runtime, user_of: UserOf, journal: Journal, looping: Looping
) -> None:
    await put(user_of("identity").amqp_url, *registered())
    await put(user_of("patients").amqp_url, *registered())

    async def both_settled() -> bool:
        return len(await parked(reporting)) == 1 and len(await journal.effects(reporting)) == 1

    async with looping(Consumer(reporting, QUEUE).run):
        await eventually(both_settled, within_seconds=60)
    assert "SenderRefusedError" in (await parked(reporting))[0]


async def test_an_event_that_names_no_sender_is_parked_unless_it_is_said_that_they_may(
    vhost,
    user_of: UserOf,
    made: Made,
    consumer_service: Service,
    consumer_url: str,
    journal: Journal,
    looping: Looping,
) -> None:
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    own = SecretStr(user_of("reporting").amqp_url)
    for taken, settings in ((0, {}), (1, {"takes_unnamed_senders": True})):
        connection = await aio_pika.connect(user_of("patients").amqp_url)
        async with connection, connection.channel() as channel:
            headers, body = registered()
            message = aio_pika.Message(body, headers=headers, message_id=str(uuid7()))
            await channel.default_exchange.publish(message, QUEUE)
        async with made.start(consumer_service, consumer_url, amqp_url=own, **settings) as runtime:

            async def settled(runtime: Runtime = runtime, taken: int = taken) -> bool:
                return len(await parked(runtime)) == 1 and len(await journal.effects(runtime)) == taken

            async with looping(Consumer(runtime, QUEUE).run):
                await eventually(settled, within_seconds=60)


async def test_what_the_relay_of_the_producer_sends_takes_effect(
    reporting: Runtime, user_of: UserOf, made: Made, tmp_path, journal: Journal, looping: Looping
) -> None:
    urls = user_of("patients")
    own: Any = {"amqp_url": SecretStr(urls.amqp_url), "amqp_management_url": SecretStr(urls.management_url)}
    async with made.start(_service("patients", tmp_path), **own) as patients:
        await journal.emit(patients)

        async def arrived() -> bool:
            return len(await journal.effects(reporting)) == 1

        async with looping(Relay(patients).run, Consumer(reporting, QUEUE).run):
            await eventually(arrived, within_seconds=60)
    assert await parked(reporting) == []


async def test_the_broker_lets_nobody_name_another(vhost, user_of: UserOf) -> None:
    await declare_all(vhost.amqp_url, vhost.management_url, SERVICES)
    connection = await aio_pika.connect(user_of("identity").amqp_url)
    patients = user_of("patients").amqp_url.partition("//")[2].partition(":")[0]
    async with connection:
        channel = await connection.channel()
        headers, body = registered()
        forged = aio_pika.Message(body, headers=headers, user_id=patients)
        with pytest.raises(ChannelPreconditionFailed):
            await channel.default_exchange.publish(forged, QUEUE)


@pytest.mark.parametrize(
    ("own", "suffix"),
    [
        ("reporting", ""),
        ("reporting-staging", "-staging"),
        ("guest", None),
        ("reportings", None),
        (None, None),
    ],
)
def test_users_are_the_services_own_where_they_are_called_like_them(
    own: str | None, suffix: str | None
) -> None:
    senders = Senders.seen_by(own, "reporting")
    assert senders.suffix == suffix
    senders.require("patients", f"patients{suffix}")
    if suffix is None:
        return
    for stranger in (None, "", "patients!", "identity", own):
        with pytest.raises(SenderRefusedError):
            senders.require("patients", stranger)
