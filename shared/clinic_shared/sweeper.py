"""Housekeeping of the runtime's own tables: expired idempotency keys, partitions for months to come."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from clinic_shared.idempotency import purge_expired
from clinic_shared.migrations import ensure_partitions

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

INTERVAL_SECONDS = 3600


async def sweep(runtime: "Runtime", stop: asyncio.Event) -> None:
    """Sweep now and every hour until told to stop."""
    while not stop.is_set():
        try:
            await sweep_once(runtime)
        except Exception as error:  # noqa: BLE001  # the next hour tries again
            log.warning("sweep_failed", error_class=type(error).__name__)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), INTERVAL_SECONDS)


async def sweep_once(runtime: "Runtime") -> None:
    async with runtime.database.transaction() as transaction:
        await purge_expired(transaction)
    async with runtime.database.engine.connect() as connection:
        await connection.run_sync(ensure_partitions, runtime.clock.now())
