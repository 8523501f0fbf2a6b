"""Notes when answers left: together, a moment later. Nobody waits for it, and a crash costs only the note."""

import asyncio
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import insert

from clinic_shared.clock import Clock
from clinic_shared.database import Database
from clinic_shared.inbound.tables import history_table

log = structlog.get_logger()

TOGETHER_SECONDS = 1.0


class AnswerNotes:
    """Those of one process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._waiting: list[tuple[UUID, datetime]] = []
        self._writing: asyncio.Task[None] | None = None

    def answered(self, item_id: UUID) -> None:
        self._waiting.append((item_id, self._clock.now()))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Note what is still to be noted."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait({self._writing})
        await self._note()

    async def _write(self) -> None:
        while self._waiting:
            await asyncio.sleep(TOGETHER_SECONDS)
            await self._note()

    async def _note(self) -> None:
        notes, self._waiting = self._waiting, []
        rows = [{"intake_id": item_id, "at": at, "step": "answered"} for item_id, at in notes]
        if not rows:
            return
        try:
            async with self._database.transaction() as tx:
                await tx.execute(insert(history_table), rows)
        except Exception as error:  # what it is about is kept, and was answered
            log.warning("answers_not_noted", count=len(notes), exc_info=error)
