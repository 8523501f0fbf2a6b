"""Forgetting sessions that expired and failed attempts that no longer count; closing logins that nobody uses."""

import asyncio
from datetime import timedelta

import structlog
from clinic_shared.loops import pause
from clinic_shared.metrics import LOOP_FAILURES
from clinic_shared.service import Runtime

from clinic_identity import client_assertions, devices, factor_store, link_store, session_store
from clinic_identity.desk import Desk
from clinic_identity.domain import FAILURES_FORGOTTEN_AFTER, STRANGERS_FORGOTTEN_AFTER
from clinic_identity.dormancy import sweep_unused

log = structlog.get_logger()

INTERVAL_SECONDS = 3600
KEEP_SESSIONS = timedelta(days=30)
"""So long, an old refresh token is still recognised as one that was used."""

KEEP_SENT_LINKS = timedelta(days=7)
"""So long it can be read what became of a link that was never used."""


async def purge_regularly(runtime: Runtime, stop: asyncio.Event) -> None:
    """Purge now and every hour until told to stop."""
    while not stop.is_set():
        try:
            await purge(runtime)
            await sweep_unused(runtime.database, runtime.get(Desk).settings)
        except Exception as error:  # the next hour tries again
            LOOP_FAILURES.labels(loop="identity-purge").inc()
            log.warning("purge_failed", exc_info=error)
        await pause(stop, INTERVAL_SECONDS)


async def purge(runtime: Runtime) -> None:
    async with runtime.database.transaction() as tx:
        await session_store.purge(
            tx,
            sessions_before=tx.now - KEEP_SESSIONS,
            failures_before=tx.now - FAILURES_FORGOTTEN_AFTER,
            strangers_before=tx.now - STRANGERS_FORGOTTEN_AFTER,
        )
        await factor_store.purge(tx, expired_before=tx.now)
        await client_assertions.purge(tx)
        await link_store.purge_requests(tx, expired_before=tx.now - KEEP_SENT_LINKS)
        await devices.purge(tx, seen_before=tx.now - devices.FORGOTTEN_AFTER)
