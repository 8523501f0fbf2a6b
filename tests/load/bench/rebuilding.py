"""A read model from an event log: owner, broker and consumer together, beside nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from clinic_reporting.app import service as reporting
from clinic_scheduling.app import service as scheduling
from clinic_shared import contracts, rebuild, topology
from clinic_shared.ids import uuid7
from clinic_shared.main import worker_loops
from clinic_shared.service import Runtime, Service, running
from sqlalchemy import text

from .figures import Figure, needs_servers
from .servers import Bench, database_of

APPOINTMENTS = 10_000
LIFE = ("appointment-booked", "appointment-confirmed", "patient-arrived", "appointment-completed")
TARGET = 3_000
NEEDED = {
    "relay",
    "replay",
    "rebuild",
    "shadow",
    "consumer:reporting.platform",
    "consumer:scheduling.platform",
}

_PLANT = text("""
    INSERT INTO event (event_id, type, subject, aggregate_version, partition_key, occurred_at, origin, correlation_id,
                       data)
    SELECT CAST(item->>'event_id' AS uuid), :type, CAST(item->>'subject' AS uuid), :version,
           CAST(item->>'subject' AS uuid), now(), 'live', gen_random_uuid(),
           CAST(:data AS jsonb) || jsonb_build_object('appointment_id', item->>'subject', 'version', :version)
    FROM json_array_elements(CAST(:items AS json)) AS item
""")


@needs_servers
async def rebuilt(bench: Bench) -> list[Figure]:
    for service in (scheduling, reporting):
        bench.prepare(service)
    await topology.declare_all(
        bench.rabbitmq.amqp_url, bench.rabbitmq.management_url, (scheduling.name, reporting.name)
    )
    async with _runtime(bench, scheduling) as owner, _runtime(bench, reporting) as consumer:
        await _fill_log(owner)
        rate = await _events_per_second(owner, consumer)
    return [Figure.floor("events into a rebuilt read model", rate, "/s", target=TARGET)]


@asynccontextmanager
async def _runtime(bench: Bench, service: Service) -> AsyncIterator[Runtime]:
    settings = service.settings(
        environment="test",
        database_url=bench.postgres.url_of(database_of(service)),
        amqp_url=bench.rabbitmq.amqp_url,
        subscribed_services=f"{scheduling.name},{reporting.name}",
    )
    async with running(service, settings) as runtime:
        yield runtime


async def _fill_log(owner: Runtime) -> None:
    subjects = [str(uuid7()) for _ in range(APPOINTMENTS)]
    for version, name in enumerate(LIFE, 1):
        event_type = f"scheduling.{name}.v1"
        items = [{"event_id": str(uuid7()), "subject": subject} for subject in subjects]
        async with owner.database.transaction() as tx:
            await tx.execute(
                _PLANT,
                {
                    "type": event_type,
                    "version": version,
                    "data": orjson.dumps(contracts.examples(event_type)[0]["data"]).decode(),
                    "items": orjson.dumps(items).decode(),
                },
            )


async def _events_per_second(owner: Runtime, consumer: Runtime) -> float:
    """Begin a rebuild, and return the rate from the first batch asked for to the last one kept."""
    stop = asyncio.Event()
    loops = [
        loop
        for runtime in (owner, consumer)
        for name, loop in worker_loops(runtime).items()
        if name in NEEDED
    ]
    tasks = [asyncio.create_task(loop(stop)) for loop in loops]
    async with consumer.database.transaction() as tx:
        rebuild_id = await rebuild.request(tx, compare_only=True)
    async with asyncio.timeout(300):
        while True:
            async with consumer.database.transaction() as tx:
                row = await rebuild.shown(tx, rebuild_id)
            if row.filled_at is not None:
                break
            await asyncio.sleep(0.05)
    stop.set()
    await asyncio.gather(*tasks)
    return float(row.event_count / (row.filled_at - row.begun_at).total_seconds())
