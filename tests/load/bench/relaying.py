"""The relay, against bare aio-pika publishing with the same window."""

import asyncio
import json
import time

import aio_pika
import psycopg
from clinic_scheduling.app import service as scheduling
from clinic_shared import contracts, topology
from clinic_shared.broker import WINDOW
from clinic_shared.events import Event
from clinic_shared.ids import uuid7
from clinic_shared.relay import Relay
from clinic_shared.service import Runtime

from .figures import Figure, needs_servers
from .servers import Bench

RELAYED = 6_000


@needs_servers
async def relay(bench: Bench) -> list[Figure]:
    bench.prepare(scheduling)
    await topology.declare_all(bench.rabbitmq.amqp_url, bench.rabbitmq.management_url)
    async with bench.runtime(scheduling) as runtime:
        body = await fill_outbox(runtime)
        ours = RELAYED / await seconds_to_relay(runtime)
        limit = RELAYED / await seconds_to_publish(bench, body)
    return [Figure.ratio("relay, events against bare aio-pika", ours=ours, limit=limit, target=0.5)]


async def fill_outbox(runtime: Runtime) -> bytes:
    """Leave RELAYED booked appointments to publish; returns a body of the same size."""
    example = contracts.examples("scheduling.appointment-booked.v1")[0]
    for _ in range(RELAYED // 1000):
        async with runtime.database.transaction() as tx:
            for _ in range(1000):
                tx.emit(
                    Event(
                        type="scheduling.appointment-booked.v1",
                        subject=uuid7(),
                        aggregate_version=1,
                        data=example["data"],
                        private=example["private"],
                        patient_id=uuid7(),
                    )
                )
    return json.dumps(example, ensure_ascii=False).encode()


async def seconds_to_relay(runtime: Runtime) -> float:
    stop = asyncio.Event()
    url = runtime.settings.database_url.get_secret_value()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as db:
        begun = time.monotonic()
        running_relay = asyncio.create_task(Relay(runtime).run(stop))
        while True:
            row = await (await db.execute("SELECT EXISTS (SELECT 1 FROM outbox)")).fetchone()
            if row is not None and not row[0]:
                break
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - begun
        stop.set()
        await running_relay
    return seconds


async def seconds_to_publish(bench: Bench, body: bytes) -> float:
    """Publish as many events to the same exchange with the same window, and nothing else."""
    connection = await aio_pika.connect(bench.rabbitmq.amqp_url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(topology.event_exchange("scheduling"))
        window = asyncio.Semaphore(WINDOW)

        async def publish() -> None:
            async with window:
                message = aio_pika.Message(
                    body,
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    message_id=str(uuid7()),
                    content_type="application/json",
                )
                await exchange.publish(message, "scheduling.appointment-booked.v1")

        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(RELAYED):
                group.create_task(publish())
        return time.monotonic() - begun
