"""What a process tells of itself whatever its role: its event loop, its pool, its loops' complaints."""

import asyncio
import time
from typing import TYPE_CHECKING

from clinic_shared.health import Health
from clinic_shared.loops import pause
from clinic_shared.metrics import (
    EVENT_LOOP_LAG_SECONDS,
    LOOPS_TROUBLED,
    POOL_IN_USE,
    POOL_SIZE,
    POOL_WAITING,
)

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

NAP_SECONDS = 0.5


async def watch_process(runtime: "Runtime", stop: asyncio.Event) -> None:
    """Watch a service's process until told to stop."""
    database, health = runtime.database, Health.of(runtime)
    POOL_SIZE.set(database.pool_size)
    # Asked when somebody scrapes: between two scrapes nobody wants to know.
    POOL_IN_USE.set_function(lambda: database.in_use)
    POOL_WAITING.set_function(lambda: database.waiting)
    LOOPS_TROUBLED.set_function(lambda: len(health.reasons))
    await watch_event_loop(stop)


async def watch_event_loop(stop: asyncio.Event) -> None:
    """Nap, and see how much too late the loop wakes us: so late is everything else too."""
    while not stop.is_set():
        began_at = time.perf_counter()
        await pause(stop, NAP_SECONDS)
        if not stop.is_set():
            EVENT_LOOP_LAG_SECONDS.observe(max(0.0, time.perf_counter() - began_at - NAP_SECONDS))
