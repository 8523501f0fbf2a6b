"""Tells the worker that the queue may hold what is older than the rows: a mark, left by whoever put something there.

While the database is away nobody can leave one. So a process remembers, and its next commit has the mark: in the
transaction of what it stores next, or in one of its own. The worker deletes the marks that it saw before it
found the queue empty.
"""

import asyncio
import contextvars
from collections.abc import Sequence
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy import (
    Column,
    ColumnElement,
    DateTime,
    Select,
    Table,
    Uuid,
    delete,
    exists,
    func,
    insert,
    select,
)

from clinic_shared.crash import mutated
from clinic_shared.database import Database, Transaction
from clinic_shared.events import runtime_metadata
from clinic_shared.failures import is_disconnect
from clinic_shared.ids import uuid7
from clinic_shared.loops import pause
from clinic_shared.telemetry import describe_error

log = structlog.get_logger()

RETRY_SECONDS = 1.0
"""Well below the worker's patience, which is what holds rows back until there is a mark."""

mark_table = Table(
    "intake_queue_mark",
    runtime_metadata,
    Column("mark_id", Uuid, primary_key=True),
    Column("marked_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)


class QueueMarks:
    """Those of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._used = 0
        self._marked = 0
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def used(self) -> None:
        """Something was confirmed onto the queue. To be called before its sender is told."""
        self._used += 1
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), context=contextvars.Context())

    async def leave(self, tx: Transaction) -> None:
        """Leave a mark with this transaction if one is owed."""
        if self.are_owed and not mutated("queue-unmarked"):
            await tx.execute(insert(mark_table).values(mark_id=uuid7()))
            tx.count(partial(self._left, self._used))

    async def close(self) -> None:
        """Try once more if a mark is still owed."""
        # Not cancelled: a connection that is just being made would be left open.
        self._closing.set()
        if self._writing is not None:
            await self._writing

    @property
    def are_owed(self) -> bool:
        return self._marked < self._used

    def _left(self, used: int) -> None:
        self._marked = max(self._marked, used)

    async def _write(self) -> None:
        while self.are_owed:
            await pause(self._closing, RETRY_SECONDS)
            await self._try()
            if self._closing.is_set():
                return

    async def _try(self) -> None:
        try:
            async with self._database.transaction() as tx:
                await self.leave(tx)
        except Exception as error:  # noqa: BLE001  # tried again: a mark that nobody leaves lets rows overtake the queue
            # Mostly the database is still away. Said each second, so without a traceback, whose rendering holds up
            # the loop.
            tell = log.info if is_disconnect(error) else log.warning
            tell("intake_queue_not_marked_yet", **describe_error(error))


def all_marks() -> Select[tuple[Sequence[UUID]]]:
    """Select what there is as one array, NULL when there is none."""
    return select(func.array_agg(mark_table.c.mark_id))


def is_unmarked() -> ColumnElement[bool]:
    return ~exists(select(mark_table.c.mark_id))


async def forget(tx: Transaction, marks: Sequence[UUID]) -> None:
    """Delete marks: all that their processes had put on the queue is stored by now."""
    await tx.execute(delete(mark_table).where(mark_table.c.mark_id.in_(marks)))
