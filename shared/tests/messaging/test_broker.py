"""Every publish ends in one outcome, and connections come back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from clinic_shared import broker
from clinic_shared.broker import (
    BrokerUnavailableError,
    Connection,
    Outcome,
    OutgoingMessage,
    Publisher,
    broker_errors,
)
from clinic_shared.crash import mutated
from clinic_shared.ids import uuid7
from clinic_shared.testing import Servers, eventually

from .conftest import QUEUE, REGISTERED, Queues, Wire

pytestmark = pytest.mark.servers


@pytest.fixture
async def connection(broker_urls: Servers) -> AsyncIterator[Connection]:
    connection = Connection(broker_urls.amqp_url, name="test")
    yield connection
    await connection.close()


@pytest.fixture
async def wired(wire: Wire) -> AsyncIterator[Connection]:
    connection = Connection(wire.url, name="test")
    yield connection
    await connection.close()


def message(exchange: str = "patients.events", routing_key: str = REGISTERED, **more: Any) -> OutgoingMessage:
    given = {"message_id": str(uuid7()), "body": b"{}"} | more
    return OutgoingMessage(exchange=exchange, routing_key=routing_key, **given)


async def outcome_soon(publisher: Publisher, wanted: Outcome) -> None:
    async def reached() -> bool:
        return await publisher.publish(message()) is wanted

    await eventually(reached)


async def test_what_a_queue_took_is_confirmed(connection: Connection, queues: Queues) -> None:
    publisher = Publisher(connection)
    results = await asyncio.gather(*(publisher.publish(message()) for _ in range(500)))
    assert set(results) == {Outcome.CONFIRMED}
    assert await queues.count(QUEUE) == 500


async def test_what_no_queue_takes_is_returned(connection: Connection) -> None:
    publisher = Publisher(connection)
    results = await asyncio.gather(
        *(publisher.publish(message("", "no.such.queue" if n % 2 else QUEUE)) for n in range(50))
    )
    assert results == [Outcome.RETURNED if n % 2 else Outcome.CONFIRMED for n in range(50)]


async def test_what_a_full_queue_refuses_is_nacked(connection: Connection) -> None:
    channel = await connection.channel()
    limits: dict[str, Any] = {"x-queue-type": "quorum", "x-max-length": 5, "x-overflow": "reject-publish"}
    await channel.declare_queue("small", durable=True, arguments=limits)
    publisher = Publisher(connection)
    results = await asyncio.gather(*(publisher.publish(message("", "small")) for _ in range(200)))
    assert set(results) == {Outcome.CONFIRMED, Outcome.NACKED}


async def test_a_missing_exchange_is_permanent_and_the_next_publish_works(connection: Connection) -> None:
    publisher = Publisher(connection)
    assert await publisher.publish(message("nowhere")) is Outcome.PERMANENT
    assert await publisher.publish(message()) is Outcome.CONFIRMED


async def test_what_cannot_be_encoded_is_permanent(connection: Connection) -> None:
    publisher = Publisher(connection)
    assert await publisher.publish(message(headers={"x": object()})) is Outcome.PERMANENT
    assert await publisher.publish(message()) is Outcome.CONFIRMED


async def test_a_cut_connection_makes_the_outcome_unknown(wired: Connection, wire: Wire) -> None:
    publisher = Publisher(wired)
    assert await publisher.publish(message()) is Outcome.CONFIRMED
    wire.swallow_answers()
    publishing = [asyncio.create_task(publisher.publish(message())) for _ in range(20)]
    await asyncio.sleep(0)
    wire.cut()
    assert set(await asyncio.gather(*publishing)) == {Outcome.UNKNOWN}
    await outcome_soon(publisher, Outcome.CONFIRMED)


async def test_a_broker_that_stops_answering_is_given_up_after_the_deadline(
    wired: Connection, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "CONFIRM_SECONDS", 0.3)
    publisher = Publisher(wired)
    assert await publisher.publish(message()) is Outcome.CONFIRMED
    wire.swallow_answers()
    assert await publisher.publish(message()) is Outcome.UNKNOWN
    assert not wired.is_open
    wire.cut()
    await outcome_soon(publisher, Outcome.CONFIRMED)


async def test_with_the_broker_away_callers_are_told_at_once(wired: Connection, wire: Wire) -> None:
    wire.go_down()
    with pytest.raises(BrokerUnavailableError):
        await wired.get()
    with pytest.raises(BrokerUnavailableError) as refusal:
        await wired.get()  # within the back-off: not even tried
    assert 0 < refusal.value.retry_after_seconds <= broker.BACK_OFF_SECONDS[1]
    assert await Publisher(wired).publish(message()) is Outcome.UNKNOWN


async def test_the_next_of_several_nodes_is_tried(broker_urls: Servers) -> None:
    nobody = "amqp://clinic:x@127.0.0.1:1/"
    connection = Connection(f"{nobody}, {broker_urls.amqp_url}", name="test")

    async def connected() -> bool:
        try:
            return not (await connection.get()).is_closed
        except BrokerUnavailableError:
            return False

    await eventually(connected)
    await connection.close()


async def test_one_message_id_is_never_in_flight_twice(connection: Connection) -> None:
    """The client library would swap the outcomes of the two."""
    publisher, one = Publisher(connection), message()
    results = await asyncio.gather(publisher.publish(one), publisher.publish(one), return_exceptions=True)
    assert results[0] is Outcome.CONFIRMED
    assert isinstance(results[1], ValueError)
    assert await publisher.publish(one) is Outcome.CONFIRMED


async def test_a_cancellation_that_nobody_asked_for_is_a_lost_connection() -> None:
    with pytest.raises(BrokerUnavailableError), broker_errors():
        raise asyncio.CancelledError


async def test_a_cancellation_that_was_asked_for_is_passed_on(wired: Connection, wire: Wire) -> None:
    publisher = Publisher(wired)
    assert await publisher.publish(message()) is Outcome.CONFIRMED
    wire.swallow_answers()
    publishing = asyncio.create_task(publisher.publish(message()))
    await asyncio.sleep(0.05)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    wire.cut()


async def test_without_confirms_a_lost_message_would_pass_for_sent(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutation that the fault tests use does switch the safeguard off."""
    monkeypatch.setenv("CLINIC_MUTATION", "confirms-off")
    assert await Publisher(connection).publish(message("", "no.such.queue")) is Outcome.CONFIRMED


def test_mutations_are_refused_outside_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_MUTATION", "confirms-off")
    monkeypatch.setenv("CLINIC_ENVIRONMENT", "production")
    with pytest.raises(RuntimeError, match="CLINIC_ENVIRONMENT"):
        mutated("confirms-off")
