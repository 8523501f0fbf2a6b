"""Notes when answers left: together, a moment later. Nobody waits for it, and a crash costs only the note."""

import asyncio
from datetime import datetime
from uuid import UUID

import structlog

from clinic_shared.clock import Clock
from clinic_shared.database import Database
from clinic_shared.inbound.tables import ADD_STEP
from clinic_shared.loops import pause

log = structlog.get_logger()

TOGETHER_SECONDS = 1.0


class AnswerNotes:
    """Those of one process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._waiting: list[tuple[UUID, datetime]] = []
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def answered(self, item_id: UUID) -> None:
        self._waiting.append((item_id, self._clock.now()))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Note what is still to be noted."""
        # Not cancelled: a connection that is just being made would be left open.
        self._closing.set()
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        while self._waiting:
            await pause(self._closing, TOGETHER_SECONDS)
            await self._note()

    async def _note(self) -> None:
        notes, self._waiting = self._waiting, []
        if not notes:
            return
        try:
            async with self._database.transaction() as tx:
                for item_id, at in notes:
                    tx.write_later(ADD_STEP, {"intake_id": item_id, "at": at, "step": "answered"})
        except Exception as error:  # what it is about is kept, and was answered
            log.warning("answers_not_noted", count=len(notes), exc_info=error)
