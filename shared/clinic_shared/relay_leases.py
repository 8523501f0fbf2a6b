"""Which part of the outbox a relay may publish: leases on shards, shared fairly among the relays there are.

A lease is an advisory lock of one database session, and whatever a relay marks or numbers goes through that
session: who has lost it can't. PostgreSQL ends a session that says nothing for as long as a lease lasts, so
a stalled relay's shards go to the others; when it wakes up, its time is over before it sends anything more.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from clinic_shared.crash import mutated

Db = psycopg.AsyncConnection[Any]

SHARDS = 16
AUDIT = SHARDS
"""The lease on the audit records, beside those on the shards: they are one sequence per producer."""
SHARD_OF_KEY = f"get_byte(uuid_send(partition_key), 15) & {SHARDS - 1}"
"""A function of the key alone, whoever wrote the row: a key is never in two shards, in no release."""

BALANCE_SECONDS = 1.0
RENEWALS = 4
_RELAYS_LOCK = 0x0C11_71C1
_LEASE_LOCKS = 0x0C11_71C3

_CONNECT_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "tcp_user_timeout": 10_000,
    "row_factory": namedtuple_row,
}
# The planner must not take stale statistics of a table that is now empty, now full as a reason to
# hash the whole event log.
_SERVER_OPTIONS = "-c statement_timeout=15000 -c enable_hashjoin=off -c enable_mergejoin=off"

# Shared among the relays of this release. The one of the release before takes the same lock for itself
# alone and publishes all there is: while it leads nobody here does, and the other way round.
_JOIN = "SELECT pg_try_advisory_lock_shared(%s) AS joined"
_COUNT_RELAYS = """
    SELECT count(*) AS relays FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 0 AND objid = %s AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_TAKE = "SELECT lease FROM unnest(%s::int[]) AS lease WHERE pg_try_advisory_lock(%s, lease) LIMIT %s"
_GIVE_UP = "SELECT pg_advisory_unlock(%s, lease) FROM unnest(%s::int[]) AS lease"


@contextlib.asynccontextmanager
async def session(dsn: str, service: str, *, of: str = "relay", idle_seconds: float = 0) -> AsyncIterator[Db]:
    """Open a connection of the relay's own, outside the pool: locks and LISTEN belong to a session.

    With `idle_seconds` the server ends it when nothing is said, or nothing is read, for so long.
    """
    milliseconds = round(idle_seconds * 1000)
    stalled = f" -c idle_session_timeout={milliseconds} -c tcp_user_timeout={milliseconds}"
    options = _SERVER_OPTIONS + (stalled if idle_seconds else "")
    async with await psycopg.AsyncConnection.connect(
        dsn, application_name=f"clinic-{service}-{of}", options=options, **_CONNECT_OPTIONS
    ) as db:
        yield db


async def try_lock(db: Db, key: int) -> bool:
    """Take an advisory lock until the session ends; returns False when another session has it."""
    row = await (await db.execute("SELECT pg_try_advisory_lock(%s) AS locked", (key,))).fetchone()
    return bool(row and row.locked)


class Leases:
    """What one relay holds. Give it back between two batches, when nothing is in flight."""

    def __init__(self, db: Db, *, seconds: float) -> None:
        self.shards: list[int] = []
        self.audit = False
        self._db = db
        self._seconds = seconds
        self._joined = False
        self._balanced_at = 0.0
        self._valid_until = 0.0

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, dsn: str, service: str, *, seconds: float) -> AsyncIterator["Leases"]:
        """Open the session that leases are held on, and renew them until the end of the block."""
        async with session(dsn, service, idle_seconds=seconds) as db:
            leases = cls(db, seconds=seconds)
            renewing = asyncio.create_task(leases._renew())  # its own
            try:
                yield leases
            finally:
                renewing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await renewing

    def __bool__(self) -> bool:
        return bool(self.shards) or self.audit

    @property
    def valid(self) -> bool:
        """Whether the session can't have been ended for silence; without it nothing more may be sent."""
        return time.monotonic() < self._valid_until or mutated("relay-fence-off")

    async def execute(self, statement: str, parameters: Any = None) -> psycopg.AsyncCursor[Any]:
        """Run a statement on the session that holds the leases; that it answered renews them."""
        asked_at = time.monotonic()
        try:
            cursor = await self._db.execute(statement, parameters)
        except psycopg.OperationalError:
            self._valid_until = 0.0
            raise
        self._valid_until = asked_at + self._seconds
        return cursor

    async def _renew(self) -> None:
        with contextlib.suppress(psycopg.OperationalError):  # the batch in hand notices by itself
            while True:
                await asyncio.sleep(self._seconds / RENEWALS)
                await self.execute("SELECT 1")

    async def balance_now_and_then(self) -> None:
        if time.monotonic() - self._balanced_at >= BALANCE_SECONDS:
            await self.balance()
            self._balanced_at = time.monotonic()

    async def balance(self) -> None:
        """Take what is free up to a fair share, or give back what is above it."""
        if mutated("relay-lease-off"):
            self.shards, self.audit = list(range(SHARDS)), True
            await self.execute("SELECT 1")
            return
        self._joined = self._joined or bool((await self._one(_JOIN, _RELAYS_LOCK)).joined)
        if not self._joined:
            return
        relays = (await self._one(_COUNT_RELAYS, _RELAYS_LOCK)).relays
        share = -(-SHARDS // max(1, relays))
        if len(self.shards) > share:
            await self._give_up(len(self.shards) - share)
        elif len(self.shards) < share:
            self.shards += await self._take(set(range(SHARDS)) - set(self.shards), share - len(self.shards))
        self.audit = self.audit or bool(await self._take({AUDIT}, 1))

    async def _take(self, wanted: set[int], most: int) -> list[int]:
        # In random order: relays that start together then don't all ask for the same.
        candidates = random.sample(sorted(wanted), len(wanted))
        rows = await (await self.execute(_TAKE, (candidates, _LEASE_LOCKS, most))).fetchall()
        return [row.lease for row in rows]

    async def _give_up(self, count: int) -> None:
        surplus, self.shards = self.shards[:count], self.shards[count:]
        await self.execute(_GIVE_UP, (_LEASE_LOCKS, surplus))

    async def _one(self, statement: str, *parameters: Any) -> Any:
        return await (await self.execute(statement, parameters)).fetchone()
