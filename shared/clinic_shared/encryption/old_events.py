"""Sealing the events that were stored in clear: by stretches of the log, each in a transaction of its own.

Only fresh ids are added to the log, so a mark says how far it has been gone through, and nobody reads it twice.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Boolean, Column, ColumnElement, Table, Uuid, func, literal, select
from sqlalchemy.dialects.postgresql import insert

from clinic_shared.database import Database, Transaction
from clinic_shared.event_sealing import IN_CLEAR, private_of, read_log, rewrite
from clinic_shared.events import event_log, runtime_metadata
from clinic_shared.ids import uuid7_floor
from clinic_shared.loops import pause

log = structlog.get_logger()

STRETCH = 500
BETWEEN_STRETCHES_SECONDS = 0.05
STILL_COMING = timedelta(hours=1)
"""What is younger is looked at again: a transaction may commit it later than others did."""
_LOCK = 0x0C11_7EC4
_FIRST = UUID(int=0)

event_sealing_table = Table(
    "event_sealing",
    runtime_metadata,
    Column("single", Boolean, primary_key=True, server_default="true"),
    Column("sealed_up_to", Uuid, nullable=False),
)
_gone_through = func.coalesce(
    select(event_sealing_table.c.sealed_up_to).scalar_subquery(), literal(_FIRST, Uuid)
)


async def seal_events(database: Database, stop: asyncio.Event) -> int:
    """Seal all events in clear; returns how many. What another process has in hand is left to it."""
    done, after = 0, None
    while not stop.is_set():
        async with database.transaction() as tx:
            stretch = await _next_stretch(tx, after)
            if not stretch:
                break
            done += await _seal(tx, IN_CLEAR, event_log.c.event_id.in_(stretch))
            after = stretch[-1]
            await _note(tx, after)
        await pause(stop, BETWEEN_STRETCHES_SECONDS)
    if done:
        log.info("events_sealed", count=done)
    return done


async def _next_stretch(tx: Transaction, after: UUID | None) -> Sequence[UUID]:
    mine = await tx.fetch_one(select(func.pg_try_advisory_xact_lock(_LOCK)))
    if mine is None or not mine[0]:
        return []
    since = _gone_through if after is None else literal(after, Uuid)
    ids = select(event_log.c.event_id).where(event_log.c.event_id > since)
    return [row.event_id for row in await tx.fetch_all(ids.order_by(event_log.c.event_id).limit(STRETCH))]


async def _seal(tx: Transaction, *conditions: ColumnElement[bool]) -> int:
    rows = await read_log(tx, *conditions, lock=True)
    for row in rows:
        await rewrite(tx, row, private_of(tx, row) or {})
    return len(rows)


async def _note(tx: Transaction, up_to: UUID) -> None:
    mark = insert(event_sealing_table).values(sealed_up_to=min(up_to, uuid7_floor(tx.now - STILL_COMING)))
    newer = func.greatest(event_sealing_table.c.sealed_up_to, mark.excluded.sealed_up_to)
    await tx.execute(mark.on_conflict_do_update(index_elements=["single"], set_={"sealed_up_to": newer}))


async def count_in_clear(tx: Transaction) -> int:
    """Count the events whose private part is in clear."""
    rows: Any = await tx.execute(
        select(func.count()).select_from(event_log).where(IN_CLEAR, event_log.c.event_id > _gone_through)
    )
    return int(rows.scalar_one())
