"""What is done to a system, and waiting until it has got over it."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clinic_local.state import RunState
from clinic_local.testing import System

RECOVERY_SECONDS = 180


def pids_of(system: System, owner: str) -> dict[str, int]:
    """Return the processes of a service (its roles), of a server or of the gateway, all of which must run."""
    running = RunState.read(system.root)
    assert running is not None
    own = [p for p in running.processes if p.name in {owner, f"{owner}-api", f"{owner}-worker"}]
    assert own, f"{owner} isn't part of the system"
    assert all(process.state == "running" for process in own), own
    return {process.name: process.pid for process in own if process.pid is not None}


def kill_all(system: System, owner: str) -> dict[str, int]:
    """Kill -9; returns the pids that were."""
    before = pids_of(system, owner)
    for name in before:
        system.kill(name)
    return before


def wait_until_running(system: System, before: dict[str, int]) -> None:
    """Wait until other processes run in the place of those that died."""
    for name, pid in before.items():
        system.wait_until_restarted(name, pid, within_seconds=RECOVERY_SECONDS)


@contextmanager
def stopped(system: System, name: str) -> Iterator[None]:
    """Worse than dead: whoever listens still takes connections, and says nothing."""
    pid = system.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # whoever watches over it has lost patience and ended it
            os.kill(pid, signal.SIGCONT)


@contextmanager
def dying(system: System, service: str, label: str) -> Iterator[None]:
    """Let a process of the service die at a crash point, because of what the block does, and come back."""
    before = pids_of(system, service)
    hit = system.arm(service, label)
    yield
    _wait_for(hit)
    victim = _first_dead(system, before)
    system.wait_until_restarted(victim, before[victim], within_seconds=RECOVERY_SECONDS)


def _wait_for(hit: Path) -> None:
    """A case in which nobody dies proves nothing, so it fails."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while not hit.exists():
        assert time.monotonic() < deadline, f"{hit.name}: nobody passed the point"
        time.sleep(0.02)


def _first_dead(system: System, before: dict[str, int]) -> str:
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        dead = [name for name, pid in before.items() if system.process(name).pid != pid]
        if dead:
            return dead[0]
        assert time.monotonic() < deadline, "the supervisor didn't notice"
        time.sleep(0.05)
