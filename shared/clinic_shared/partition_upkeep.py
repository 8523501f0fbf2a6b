"""Keeping the partitions: who does what of `partitions.py` when, one process per service at a time."""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from clinic_shared import partitions
from clinic_shared.failures import Verdict, judge
from clinic_shared.metrics import DEFAULT_PARTITION_ROWS
from clinic_shared.partitions import Partition, Retention
from clinic_shared.replay import FIRST_ID
from clinic_shared.settings import ServiceSettings

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

TRIES = 50
PAUSE_SECONDS = (0.05, 0.3)
_LOCK = 0x0C11_7203

Step = Callable[..., Any]


def retention_of(settings: ServiceSettings) -> Retention:
    return Retention(
        kept={
            "event": timedelta(days=settings.event_retention_days),
            "inbox": timedelta(days=settings.inbox_retention_days),
        },
        legal_hold=settings.legal_hold,
    )


async def keep_partitions(runtime: "Runtime") -> None:
    """Make the months to come, and let go those whose time is over. Does nothing where another process does."""
    async with runtime.database.engine.connect() as connection:
        if not await connection.scalar(text(f"SELECT pg_try_advisory_lock({_LOCK})")):
            return
        await connection.commit()
        try:
            await _create_missing(connection, runtime.clock.now())
            await _let_go(runtime, connection)
            for table in partitions.TABLES:
                rows = await connection.run_sync(partitions.rows_in_default, table)
                DEFAULT_PARTITION_ROWS.labels(table=table).set(rows)
        finally:
            await connection.rollback()
            await connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK})"))
            await connection.commit()


async def _create_missing(connection: AsyncConnection, now: datetime) -> None:
    for table, month in await connection.run_sync(partitions.missing, now):
        if await _patiently(connection, partitions.create, table, month):
            log.info("partition_created", table=table, starts_at=month.starts_at)


async def _let_go(runtime: "Runtime", connection: AsyncConnection) -> None:
    now, retention = runtime.clock.now(), retention_of(runtime.settings)
    for partition in await connection.run_sync(partitions.expired, retention, now):
        if partition.table == "event":
            await _carry(connection, runtime.service.name, partition, now)
        reason = await connection.run_sync(partitions.reason_to_keep, partition)
        if reason is not None:
            log.warning("partition_kept", table=partition.table, reason=reason)
        elif await _patiently(connection, partitions.drop, partition):
            log.info("partition_dropped", table=partition.table, size_bytes=partition.size_bytes)


async def _carry(connection: AsyncConnection, service: str, partition: Partition, now: datetime) -> None:
    assert partition.month is not None  # noqa: S101  # the default partition never expires
    for audience in partitions.audiences(service):
        last: UUID | None = FIRST_ID
        while last is not None:
            step = partial(
                partitions.carry_some, month=partition.month, audience=audience, now=now, after=last
            )
            last = await connection.run_sync(step)


async def _patiently(connection: AsyncConnection, step: Step, *arguments: Any) -> bool:
    """Try a step until it gets its locks. Returns False when it never did: the next sweep tries again."""
    for _ in range(TRIES):
        try:
            await connection.run_sync(step, *arguments)
        except DBAPIError as error:
            await connection.rollback()
            if judge(error) is not Verdict.TRANSIENT:
                raise
            await asyncio.sleep(random.uniform(*PAUSE_SECONDS))  # noqa: S311  # jitter
        else:
            return True
    log.warning("partition_busy", operation=getattr(step, "__name__", ""))
    return False


def create_missing(connection: Connection, now: datetime) -> None:
    """Make the months to come before anything runs on a new schema. Blocks."""
    connection.execute(text(f"SELECT pg_advisory_lock({_LOCK})"))
    connection.commit()
    for table, month in partitions.missing(connection, now):
        for _ in range(TRIES):
            try:
                partitions.create(connection, table, month)
            except DBAPIError as error:
                connection.rollback()
                if judge(error) is not Verdict.TRANSIENT:
                    raise
                time.sleep(random.uniform(*PAUSE_SECONDS))  # noqa: S311  # jitter
            else:
                break
    connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK})"))
    connection.commit()
