"""One look for all loops of a process: a single statement tells for which of them there is something to do.

A dozen loops that each look for themselves cost as much idle as a service's work does. What the lookout sees is a
hint: a loop looks for itself as often as ever while there is no lookout, and ever so often when there is one.
"""

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, cast

from clinic_shared.clock import SystemClock
from clinic_shared.health import Health
from clinic_shared.loops import first_of, keep_running, pause
from clinic_shared.relay_leases import Db, session

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

NAME = "lookout"
INTAKE = "intake"
"""The duty of whoever processes what was taken in."""
SELDOM = 10
"""So many times as long as without a lookout a loop waits before it looks for itself."""


class Duty:
    """What one loop waits for: that its query has a row."""

    def __init__(self, query: str, every_seconds: float) -> None:
        self.query = query
        self.every_seconds = every_seconds
        self.is_watched = False
        self._called = asyncio.Event()

    def call(self) -> None:
        """Let the loop look: there is, or may be, something to do."""
        self._called.set()

    async def wait(self, stop: asyncio.Event, *, at_most: float | None = None) -> None:
        """Wait until there may be something to do."""
        seconds = self.every_seconds * (SELDOM if self.is_watched else 1)
        if at_most is not None:
            seconds = min(seconds, at_most)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(first_of(self._called, stop), seconds)
        # Before the look, so that no call during it is lost.
        self._called.clear()


class Lookout:
    """Looks at the database for all loops of one process, as often as the most impatient of them would."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._duties: dict[str, Duty] = {}

    @classmethod
    def of(cls, runtime: "Runtime") -> "Lookout":
        lookout = runtime.resources.get(cls)
        if lookout is None:
            lookout = cls(runtime)
            runtime.provide(lookout)
        return cast("Lookout", lookout)

    def duty(self, name: str, query: str, *, every_seconds: float) -> Duty:
        """Return what a loop waits with that has something to do whenever `query` has a row."""
        if name not in self._duties:
            self._duties[name] = Duty(query, every_seconds)
        return self._duties[name]

    def call(self, name: str) -> None:
        """Call a loop of this process, if it has it: what it waits for has just been committed here."""
        if name in self._duties:
            self._duties[name].call()

    async def run(self, stop: asyncio.Event) -> None:
        """Look until told to stop. Under an injected clock the database can't say what is due."""
        if isinstance(self._runtime.clock, SystemClock):
            await keep_running(NAME, stop, partial(self._watch, stop), Health.of(self._runtime))

    async def _watch(self, stop: asyncio.Event) -> None:
        dsn = self._runtime.settings.database_url.get_secret_value()
        try:
            async with session(dsn, self._runtime.service.name) as db:
                while not stop.is_set():
                    await self._look(db)
                    Health.of(self._runtime).report(NAME, None)
                    await pause(stop, min(duty.every_seconds for duty in self._duties.values()))
        finally:
            for duty in self._duties.values():
                duty.is_watched = False
                duty.call()

    async def _look(self, db: Db) -> None:
        duties = list(self._duties.values())
        columns = ", ".join(f"EXISTS ({duty.query}) AS duty_{place}" for place, duty in enumerate(duties))
        row = await (await db.execute(f"SELECT {columns}")).fetchone()  # queries of our own
        for duty, is_due in zip(duties, row or (), strict=True):
            duty.is_watched = True
            if is_due:
                duty.call()
