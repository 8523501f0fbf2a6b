"""Clocks that jump: each service's own wall clock, by libfaketime, which is loaded before everything else.

What a process reads of the time is wrong, whoever in it reads; what it measures (the monotonic clock) is right,
as it is where somebody sets a machine's clock. The servers' clocks stay as they are.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import httpx
from clinic_local import download
from clinic_local.environment import clock_file
from clinic_local.errors import SetupError
from clinic_local.paths import CHECKOUT, cache_dir
from clinic_local.testing import System

JUMPS_SECONDS = (-3600, -90, -5, 5, 90, 3600)
NOTICED_SECONDS = 8.0
_REREAD_SECONDS = 1


def environment() -> dict[str, str]:
    """Return what lets a system's clocks jump; nothing where Debian's packages can't be had."""
    try:
        folder = download.unpacked_packages(cache_dir(CHECKOUT), "faketime", ("libfaketime",))
    except SetupError as error:
        print(f"clocks don't jump: {error}", flush=True)
        return {}
    library = next(folder.rglob("libfaketime.so.1"))
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
        "FAKETIME_CACHE_DURATION": str(_REREAD_SECONDS),
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(Path(__file__).with_name("preloaded")), os.environ.get("PYTHONPATH")))
        ),
    }


@contextmanager
def wrong_clock(system: System, service: str, seconds: int) -> Iterator[Callable[[], bool]]:
    """Let a service believe that it is later, or earlier. Yields what tells whether it does."""
    file = clock_file(system.root, service)
    file.write_text(f"{seconds:+d}")
    try:
        yield partial(_is_off, system, service, seconds)
    finally:
        file.write_text("+0")


def _is_off(system: System, service: str, seconds: int) -> bool:
    """Ask the service's API what time it believes it is."""
    try:
        answer = httpx.get(f"{_url_of(system, service)}/healthz", timeout=2, trust_env=False)
        told = answer.headers["Date"]
    except (httpx.TransportError, KeyError):
        return False
    off = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
    return abs(off - seconds) < max(2.0, abs(seconds) / 2)


def _url_of(system: System, service: str) -> str:
    return system.addresses[f"CLINIC_{service.upper().replace('-', '_')}_URL"]
