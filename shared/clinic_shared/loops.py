"""Endless loops: they end when told to and outlive every error in between."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import structlog

from clinic_shared.broker import BrokerUnavailableError
from clinic_shared.health import Health
from clinic_shared.metrics import LOOP_FAILURES

log = structlog.get_logger()

LONGEST_BACK_OFF_SECONDS = 5.0


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but not past the moment when the process is told to stop."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def first_of(*events: asyncio.Event) -> None:
    """Wait until one of these is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


async def keep_running(
    name: str, stop: asyncio.Event, work: Callable[[], Awaitable[None]], health: Health
) -> None:
    """Run `work` again and again until told to stop; after an error, a little later.

    A failure is logged and counted, and stands in the readiness until the work is through again
    (`work` itself reports how it goes once it is).
    """
    failures = 0
    while not stop.is_set():
        started_at = time.monotonic()
        try:
            await work()
            failures = 0
        except BrokerUnavailableError as error:
            health.report(name, "the broker is unavailable")
            await pause(stop, error.retry_after_seconds)
        except Exception as error:  # a loop that ends is a loss nobody notices
            lasted = time.monotonic() - started_at > LONGEST_BACK_OFF_SECONDS
            failures = 1 if lasted else failures + 1
            LOOP_FAILURES.labels(loop=name).inc()
            log.warning("loop_failed", loop=name, exc_info=error)
            health.report(name, f"failed with {type(error).__name__}")
            longest = min(LONGEST_BACK_OFF_SECONDS, 0.2 * 2.0 ** min(failures, 10))
            await pause(stop, random.uniform(0.1, longest))  # noqa: S311  # jitter, not a secret
