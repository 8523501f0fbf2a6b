"""The second answers that a connection is owed: sent on it once their messages have been processed.

Nobody keeps count of them: a laboratory whose connection is gone sends the same bytes again and gets both
answers again, or fetches the second (`application_answers.py`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from uuid import UUID

import structlog
from clinic_shared.failures import is_disconnect
from clinic_shared.loops import pause
from clinic_shared.service import Runtime

from clinic_lab_integration import application_answers

log = structlog.get_logger()

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 600.0
_ASKED_AT_ONCE = 200


class LaterAnswers:
    """Those of one connection; `send` writes one to it."""

    def __init__(self, runtime: Runtime, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._database = runtime.database
        self._send = send
        self._owed: dict[UUID, float] = {}
        self._sending: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def owe(self, message_ids: Iterable[UUID]) -> None:
        self._owed |= dict.fromkeys(message_ids, time.monotonic())
        if self._owed and (self._sending is None or self._sending.done()):
            self._sending = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Send no more. What is owed stays owed."""
        # Not cancelled: a connection to the database that is just being made would be left open.
        self._closing.set()
        if self._sending is not None:
            await self._sending

    async def _work(self) -> None:
        try:
            while self._owed and not self._closing.is_set():
                for message_id, answer in (await self._ready()).items():
                    await self._send(answer)
                    del self._owed[message_id]
                self._forget()
                await pause(self._closing, POLL_SECONDS)
        except (ConnectionError, TimeoutError) as error:
            log.info("mllp_connection_lost", error_class=type(error).__name__)

    async def _ready(self) -> Mapping[UUID, bytes]:
        asked = list(self._owed)[:_ASKED_AT_ONCE]
        try:
            async with self._database.transaction() as tx:
                return await application_answers.ready(tx, asked)
        except Exception as error:
            if not is_disconnect(error):
                raise
            return {}

    def _forget(self) -> None:
        """The same message may be owed for long: its laboratory fetches the answer, or sends it again."""
        late = time.monotonic() - PATIENCE_SECONDS
        for message_id in [one for one, since in self._owed.items() if since < late]:
            del self._owed[message_id]
            log.info("mllp_second_answer_not_sent", message_id=message_id)
