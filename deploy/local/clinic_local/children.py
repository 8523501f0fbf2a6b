"""The forked processes under supervision: when one dies it is started again, ever more patiently."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clinic_local import loopback
from clinic_local.fork import fork
from clinic_local.ports import is_held_by
from clinic_local.state import ProcessState

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = float(os.environ.get("CLINIC_LONGEST_RESTART_PAUSE_SECONDS", "30"))
# Who ran for so long has recovered: its next death is a first one.
_STABLE_SECONDS = 30.0


def pause_before_restart(deaths_in_a_row: int) -> float:
    return min(FIRST_PAUSE_SECONDS * 2.0 ** (deaths_in_a_row - 1), LONGEST_PAUSE_SECONDS)


@dataclass
class Child:
    """One process that the supervisor forks and keeps running."""

    name: str
    kind: Literal["service", "gateway", "fakes"]
    target: Callable[[], object]
    environment: Mapping[str, str]
    log: Path
    port: int | None
    pid: int | None = None
    restarts: int = 0
    is_ready: bool = False
    _deaths_in_a_row: int = 0
    _started_at: float = 0.0
    _restart_at: float = 0.0

    def start(self) -> None:
        self.is_ready = False
        self._started_at = time.monotonic()
        self.pid = fork(self.name, self.target, environment=self.environment, log=self.log)

    def reap(self) -> int | None:
        """Return the exit status if the process has just ended."""
        if self.pid is None:
            return None
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        now = time.monotonic()
        self._deaths_in_a_row = 1 if now - self._started_at > _STABLE_SECONDS else self._deaths_in_a_row + 1
        self._restart_at = now + pause_before_restart(self._deaths_in_a_row)
        self.pid, self.is_ready = None, False
        return os.waitstatus_to_exitcode(status)

    def restart_when_due(self) -> bool:
        if self.pid is not None or time.monotonic() < self._restart_at:
            return False
        self.restarts += 1
        self.start()
        return True

    def check(self) -> bool:
        """Ask the process whether it is ready; one without HTTP is ready when it runs.

        Somebody else's answer on its port isn't taken for its own.
        """
        if not self.is_ready and self.pid is not None:
            self.is_ready = self.port is None or (
                is_held_by(self.port, self.pid)
                and loopback.answers(f"http://127.0.0.1:{self.port}/readyz", timeout_seconds=2)
            )
        return self.is_ready

    def signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            os.kill(self.pid, number)

    def as_state(self) -> ProcessState:
        state = "restarting" if self.pid is None else "running" if self.is_ready else "starting"
        return ProcessState(self.name, self.kind, state, self.pid, self.restarts, self.port, str(self.log))
