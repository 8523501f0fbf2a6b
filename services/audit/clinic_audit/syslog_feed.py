"""Handing the log on to an audit repository elsewhere: syslog over TLS (RFC 5425), in order, from where it stopped.

Syslog has no acknowledgement. What was written to a connection that then broke is sent again, since a record too
many is known by its ids, and one too few by nobody.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import structlog
from clinic_shared.database import Transaction
from clinic_shared.health import Health
from clinic_shared.loops import keep_running, pause
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from clinic_audit import search
from clinic_audit.dicom import syslog_message
from clinic_audit.settings import AuditSettings
from clinic_audit.tables import feed

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

NAME = "syslog feed"
BATCH = 200
POLL_SECONDS = 1.0
CONNECT_SECONDS = 10.0
SENT_AGAIN = 1000
"""Records: as many as may be on their way when a connection breaks."""


async def feed_syslog(runtime: "Runtime", stop: asyncio.Event) -> None:
    """Send what comes into the log until told to stop."""
    settings = cast("AuditSettings", runtime.settings)
    if settings.audit_syslog_address is None:
        return

    health = Health.of(runtime)

    async def work() -> None:
        async with connected(settings) as writer:
            position = await _position(runtime)
            while not stop.is_set():
                following = await send_some(runtime, writer, position)
                health.report(NAME, None)
                if following == position:
                    await pause(stop, POLL_SECONDS)
                position = following

    await keep_running(NAME, stop, work, health)


@asynccontextmanager
async def connected(settings: AuditSettings) -> AsyncIterator[asyncio.StreamWriter]:
    """Connect to the repository, whose certificate must be of the authority that the settings name."""
    host, _, port = (settings.audit_syslog_address or "").rpartition(":")
    trusted = str(settings.audit_syslog_ca_file) if settings.audit_syslog_ca_file else None
    context = ssl.create_default_context(cafile=trusted)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    opening = asyncio.open_connection(host, int(port), ssl=context)
    _, writer = await asyncio.wait_for(opening, CONNECT_SECONDS)
    try:
        yield writer
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


async def _position(runtime: "Runtime") -> int:
    async with runtime.database.transaction() as tx:
        row = await tx.fetch_one(select(feed.c.next_index).where(feed.c.name == NAME))
    return 0 if row is None else max(0, row.next_index - SENT_AGAIN)


async def send_some(runtime: "Runtime", writer: asyncio.StreamWriter, position: int) -> int:
    """Send the records from a position on; returns where the next ones begin."""
    async with runtime.database.transaction() as tx:
        rows = await search.find(tx, search.Wanted(), after=position - 1, limit=BATCH)
    if not rows:
        return position
    host = socket.gethostname()
    writer.writelines(syslog_message(row, host=host) for row in rows)
    await writer.drain()
    following = int(rows[-1].leaf_index) + 1
    async with runtime.database.transaction() as tx:
        await _remember(tx, following)
    return following


async def _remember(tx: Transaction, following: int) -> None:
    noted = insert(feed).values(name=NAME, next_index=following)
    await tx.execute(noted.on_conflict_do_update(index_elements=["name"], set_={"next_index": following}))
