"""Housekeeping of the runtime's own tables: expired idempotency keys, old replays, partitions."""

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from clinic_shared import replay
from clinic_shared.dead_letters.retention import forget_old
from clinic_shared.idempotency import purge_expired
from clinic_shared.partition_upkeep import keep_partitions

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

INTERVAL_SECONDS = 3600
REPLAYS_KEPT = timedelta(days=90)


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
        await replay.forget_old(transaction, older_than=REPLAYS_KEPT)
        await forget_old(transaction)
    await keep_partitions(runtime)
