"""Which worker empties the intake's queue: one at a time, or what one has in its hands is overtaken by what follows.

The lock is one database session's. Who takes over from a worker that didn't end in order can't know what that one
still holds: until the broker has surely taken it back, a queue that looks empty proves nothing.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from math import inf
from uuid import UUID

import structlog

from clinic_shared.broker import HEARTBEAT_SECONDS
from clinic_shared.crash import mutated
from clinic_shared.ids import uuid7
from clinic_shared.relay_leases import Db, session, try_lock

log = structlog.get_logger()

HOLD_SECONDS = 20.0
"""A worker stores what it fetched within this, or gives it back."""
LOST_SECONDS = 2 * HEARTBEAT_SECONDS + 1.0
"""After this the broker takes back what it had delivered to a connection that says nothing any more."""
PREDECESSOR_SECONDS = HOLD_SECONDS + 2 * LOST_SECONDS
"""After this another worker that has lost the lock, stopped at whatever step, has nothing in its hands."""
IDLE_SECONDS = 60.0
"""The server ends the session of a worker that says nothing for this long."""
_LOCK = 0x0C11_71C6

_TAKE_OVER = """
    WITH before AS (SELECT holder FROM intake_custody)
    INSERT INTO intake_custody (holder) VALUES (%s) ON CONFLICT (single) DO UPDATE SET holder = EXCLUDED.holder
    RETURNING (SELECT holder FROM before) AS predecessor
"""


class Custody:
    """One worker's. It remembers over sessions what it may not have given back."""

    def __init__(self, dsn: str, service: str) -> None:
        self._dsn = dsn
        self._service = service
        self._holder = uuid7()
        self._db: Db | None = None
        self._is_held = False
        self._doubtful_until = -inf

    @property
    def is_doubtful(self) -> bool:
        """Whether what was delivered to somebody may not be back on the queue yet."""
        return time.monotonic() < self._doubtful_until

    def doubt(self, seconds: float) -> None:
        self._doubtful_until = max(self._doubtful_until, time.monotonic() + seconds)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Open the session that the lock belongs to. To be left in order only with nothing in one's hands."""
        async with session(self._dsn, self._service, of="intake", idle_seconds=IDLE_SECONDS) as db:
            self._db, self._is_held = db, False
            yield
            if self._is_held and not self.is_doubtful:
                await db.execute("UPDATE intake_custody SET holder = NULL WHERE holder = %s", (self._holder,))

    async def take(self) -> bool:
        """Take the lock, or make sure that it was held until now. Raises psycopg.OperationalError when it is lost."""
        if self._db is None:
            raise RuntimeError("take() outside session()")
        if self._is_held or mutated("intake-custody-off"):
            await self._db.execute("SELECT 1")
            return True
        if not await try_lock(self._db, _LOCK):
            return False
        self._is_held = True
        await self._succeed(self._db)
        return True

    async def _succeed(self, db: Db) -> None:
        row = await (await db.execute(_TAKE_OVER, (self._holder,))).fetchone()
        predecessor: UUID | None = row.predecessor if row else None
        if predecessor not in {None, self._holder}:
            log.info("intake_taken_over", service=self._service)
            self.doubt(PREDECESSOR_SECONDS)
