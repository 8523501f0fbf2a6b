"""Who acknowledges into a connection that is just being lost is told so, and doesn't wait for ever."""

import asyncio
from typing import Any, cast

import aiormq
import pytest
from clinic_shared import broker
from clinic_shared.broker import BrokerUnavailableError, Connection, acknowledge
from clinic_shared.testing import eventually

from .conftest import QUEUE, Queues, Wire

pytestmark = pytest.mark.servers

MESSAGES = 100


async def test_acknowledgements_into_a_lost_connection_come_to_an_end(
    wire: Wire, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "ACKNOWLEDGE_SECONDS", 1)
    await queues.put(QUEUE, *[b"{}"] * MESSAGES)
    connection = Connection(wire.url, name="test")
    channel = await connection.channel(prefetch=MESSAGES)
    underlay = cast("aiormq.Channel", await channel.get_underlay_channel())
    tags: list[int] = []

    async def receive(delivery: Any) -> None:
        tags.append(delivery.delivery_tag)

    async def all_received() -> bool:
        return len(tags) == MESSAGES

    await underlay.basic_consume(QUEUE, receive)
    await eventually(all_received)
    wire.cut()
    with pytest.raises(BrokerUnavailableError):
        async with asyncio.timeout(60):
            await acknowledge(underlay, *tags)
    await connection.close()
