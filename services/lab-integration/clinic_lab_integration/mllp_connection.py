"""One connection of a laboratory: blocks in, acknowledgements out, in the same order.

What was read waits for its commit while the next is read, a few at a time; then reading waits, and TCP
makes the sender wait.
"""

import asyncio
import socket
from contextlib import suppress
from typing import cast

import structlog
from clinic_shared.context import Context
from clinic_shared.errors import DomainError
from clinic_shared.ids import uuid7
from clinic_shared.service import Runtime

from clinic_lab_integration import partners, receiving
from clinic_lab_integration.application_answers import OVER_MLLP
from clinic_lab_integration.connection import Protocol
from clinic_lab_integration.hl7.framing import Block, BlockReader, frame
from clinic_lab_integration.messages import MAX_BODY_BYTES
from clinic_lab_integration.mllp_later import LaterAnswers
from clinic_lab_integration.pace import Pace
from clinic_lab_integration.receiving import Received
from clinic_lab_integration.settings import LabSettings
from clinic_lab_integration.store import Partner

log = structlog.get_logger()

_READ_BYTES = 64 * 1024
_UNANSWERED = 16
_BLOCK_SECONDS = 60.0
_LAST_BYTE_SECONDS = 0.5
_ANSWER_SECONDS = 60.0
_KEEP_ALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))

_Answer = asyncio.Task[Received]


class Link:
    """An open connection. `run` returns when either side has ended it."""

    def __init__(
        self,
        runtime: Runtime,
        partner: Partner,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._runtime = runtime
        self._partner = partner
        self._reader = reader
        self._writer = writer
        self._idle_seconds = cast("LabSettings", runtime.settings).mllp_idle_seconds
        self._blocks = BlockReader(MAX_BODY_BYTES)
        self._unanswered: asyncio.Queue[_Answer | None] = asyncio.Queue()
        self._places = asyncio.Semaphore(_UNANSWERED)
        self._reading: asyncio.Task[None] | None = None
        self._later = LaterAnswers(runtime, self._write)

    async def run(self) -> None:
        _keep_alive(self._writer.get_extra_info("socket"))
        answering = asyncio.create_task(self._answer())
        self._reading = asyncio.create_task(self._read())
        # Whichever ends first: without answers nothing more is to be read.
        await asyncio.wait({answering, self._reading}, return_when=asyncio.FIRST_COMPLETED)
        self.end()
        with suppress(asyncio.CancelledError):
            await self._reading
        self._unanswered.put_nowait(None)
        try:
            await answering
        finally:
            await self._later.close()

    def end(self) -> None:
        """Read no more; what has been read is still answered."""
        if self._reading is not None:
            self._reading.cancel()

    # -- in

    async def _read(self) -> None:
        try:
            while data := await self._next_bytes():
                for block in self._blocks.feed(data):
                    await self._take(block)
        except DomainError as error:
            # Nobody to answer to, or nobody who may send any more.
            log.warning("mllp_connection_closed", partner_id=self._partner.partner_id, reason=error.slug)
        except (ConnectionError, TimeoutError) as error:
            log.info("mllp_connection_lost", error_class=type(error).__name__)

    async def _next_bytes(self) -> bytes:
        if self._blocks.may_be_over:
            try:
                async with asyncio.timeout(_LAST_BYTE_SECONDS):
                    return await self._reader.read(_READ_BYTES)
            except TimeoutError:
                block = self._blocks.end()
                if block is not None:
                    await self._take(block)
        seconds = self._idle_seconds if self._blocks.is_between else _BLOCK_SECONDS
        async with asyncio.timeout(seconds):
            return await self._reader.read(_READ_BYTES)

    async def _take(self, block: Block) -> None:
        """Judge a block at once, so that messages are numbered in their order; keep it meanwhile."""
        await self._places.acquire()
        partner = await self._current_partner()
        await asyncio.sleep(self._runtime.get(Pace).seconds_to_wait(partner))
        context = Context(principal=partners.principal_of(partner), correlation_id=uuid7())
        judged = await receiving.judge(
            self._runtime, block.payload, OVER_MLLP, partner=partner, context=context, whole=block.whole
        )
        keeping = receiving.keep(self._runtime, judged, partner=partner, context=context)
        self._unanswered.put_nowait(asyncio.create_task(keeping))

    async def _current_partner(self) -> Partner:
        """Who it is now: configuration changes while a connection is open."""
        principal = partners.principal_of(self._partner)
        return await partners.sender(self._runtime, principal, Protocol.MLLP)

    # -- out

    async def _answer(self) -> None:
        while (task := await self._unanswered.get()) is not None:
            received = await task
            if received.bodies:
                await self._write(*received.bodies)
            self._later.owe(received.answered_later)
            self._places.release()

    async def _write(self, *bodies: bytes) -> None:
        self._writer.write(b"".join(map(frame, bodies)))
        async with asyncio.timeout(_ANSWER_SECONDS):
            await self._writer.drain()


def _keep_alive(connection: socket.socket) -> None:
    """Notice a peer that is gone though the connection may be idle for hours."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE:
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
