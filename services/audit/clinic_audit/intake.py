"""Records in: the audit stream's queue, taken in batches by the one active consumer."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import aiormq
import structlog
from aiormq.abc import DeliveredMessage
from clinic_shared.broker import Broker, BrokerUnavailableError, acknowledge, broker_errors
from clinic_shared.deliveries import senders_of, until_it_answers
from clinic_shared.health import Health
from clinic_shared.loops import keep_running
from clinic_shared.senders import SenderRefusedError, Senders
from clinic_shared.service import Runtime
from clinic_shared.topology import AUDIT_QUEUE

from clinic_audit.recording import IncomingRecord, record_batch
from clinic_audit.signing import Signer, sign_if_many

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel

log = structlog.get_logger()

NAME = "audit records"
BATCH = 500
WATCH_SECONDS = 0.5
GATHER_SECONDS = 0.05
"""So long a batch waits for more: signing a tree's root costs the same for one record as for hundreds."""
CONSUME_SECONDS = 60
"""A queue that is just being deleted may take the broker half a minute to refuse."""


async def take_records(runtime: Runtime, stop: asyncio.Event) -> None:
    """Take records until told to stop; a batch in hand is committed and acknowledged first."""
    await keep_running(NAME, stop, partial(_session, runtime, stop), Health.of(runtime))


async def _session(runtime: Runtime, stop: asyncio.Event) -> None:
    health = Health.of(runtime)
    # Without its database the log has nowhere to put a record: the queue keeps it.
    await until_it_answers(runtime.database, stop, partial(health.report, NAME))
    if stop.is_set():
        return
    connection = Broker.of(runtime).consuming
    channel: AbstractChannel = await connection.channel(prefetch=2 * BATCH)
    try:
        underlay = cast("aiormq.Channel", await channel.get_underlay_channel())
        arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()

        async def receive(delivery: DeliveredMessage) -> None:
            arrived.put_nowait(delivery)

        with broker_errors():
            await underlay.basic_consume(AUDIT_QUEUE, receive, timeout=CONSUME_SECONDS)
        health.report(NAME, None)
        while not stop.is_set():
            if underlay.is_closed:
                raise BrokerUnavailableError
            batch = await _next_batch(arrived)
            if batch:
                await _record(runtime, underlay, batch)
    finally:
        connection.discard(channel)


async def _next_batch(arrived: asyncio.Queue[DeliveredMessage]) -> list[DeliveredMessage]:
    """Wait for a record, and a moment for others, unless there are enough already."""
    try:
        batch = [await asyncio.wait_for(arrived.get(), WATCH_SECONDS)]
    except TimeoutError:
        return []
    if arrived.qsize() < BATCH - 1:
        await asyncio.sleep(GATHER_SECONDS)
    while len(batch) < BATCH and not arrived.empty():
        batch.append(arrived.get_nowait())
    return batch


async def _record(runtime: Runtime, channel: aiormq.Channel, batch: list[DeliveredMessage]) -> None:
    async with runtime.database.transaction() as tx:
        senders = senders_of(runtime)
        await record_batch(tx, [incoming_of(delivery, senders) for delivery in batch])
        await sign_if_many(tx, runtime.get(Signer))
    # They are handled as they come, so that the last one's tag stands for all.
    await acknowledge(channel, upto=cast("int", batch[-1].delivery_tag))


def incoming_of(delivery: DeliveredMessage, senders: Senders) -> IncomingRecord:
    """Read a record; one that another than its producer sent is nobody's, and so an incident."""
    properties = delivery.header.properties
    headers: dict[str, Any] = properties.headers or {}
    producer, pseq, digest = headers.get("producer"), headers.get("pseq"), headers.get("leaf_hash")
    try:
        senders.require(str(producer), properties.user_id)
    except SenderRefusedError:
        log.warning("audit_record_of_another_sender")
        producer = None
    return IncomingRecord(
        producer=producer if isinstance(producer, str) else None,
        pseq=pseq if isinstance(pseq, int) else None,
        leaf_hash=_bytes_of(digest),
        record=delivery.body,
    )


def _bytes_of(digest: object) -> bytes | None:
    try:
        return bytes.fromhex(digest) if isinstance(digest, str) else None
    except ValueError:
        return None
