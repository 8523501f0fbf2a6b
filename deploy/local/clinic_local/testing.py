"""A whole system for tests: `running_system` starts one beside any other and takes it down again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clinic_local import state
from clinic_local.commands_status import ProcessStatus, collect
from clinic_local.paths import run_dir

_UP_SECONDS = 600
_DOWN_SECONDS = 240


class System:
    """A system started by `clinic up`, with the means to hurt it."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root = root
        self._environment = environment

    @property
    def addresses(self) -> dict[str, str]:
        """Return the variables of `.run/env`."""
        return state.read_env(self.root)

    @property
    def url(self) -> str:
        return self.addresses["CLINIC_URL"]

    def clinic(
        self, *arguments: str, timeout_seconds: float = _UP_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a `clinic` command against this system."""
        return subprocess.run(
            [sys.executable, "-m", "clinic_local.cli", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )

    def process(self, name: str) -> state.ProcessState:
        running = state.RunState.read(self.root)
        found = None if running is None else running.process(name)
        if found is None:
            raise LookupError(f"{name} isn't part of the running system")
        return found

    def status(self) -> list[ProcessStatus]:
        running = state.RunState.read(self.root)
        return [] if running is None else collect(running)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a process of the system; return the pid it had."""
        pid = self.process(name).pid
        if pid is None:
            raise LookupError(f"{name} doesn't run")
        os.kill(pid, number)
        return pid

    def arm(self, service: str, label: str) -> Path:
        """Let the service die at its next passage of a crash point; return the file that then appears."""
        file = run_dir(self.root) / "crash" / service
        file.write_text(label, encoding="utf-8")
        hit = file.with_name(f"{service}.hit")
        hit.unlink(missing_ok=True)
        return hit

    def wait_until_restarted(
        self, name: str, old_pid: int, *, within_seconds: float = 180
    ) -> state.ProcessState:
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            now = self.process(name)
            if now.pid not in {None, old_pid} and now.state == "running":
                return now
            time.sleep(0.05)
        raise TimeoutError(f"{name} wasn't restarted within {within_seconds} s")


@contextmanager
def running_system(root: Path, **environment: str) -> Iterator[System]:
    """Start a system with its `.run/` in `root`; `environment` is added to every process.

    Raises RuntimeError with the report of a failed start.
    """
    root.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLINIC_")}
    system = System(root, {**kept, "CLINIC_ROOT": str(root), **environment})
    try:
        started = system.clinic("up")
        if started.returncode != 0:
            raise RuntimeError(started.stdout + started.stderr)
        yield system
    finally:
        system.clinic("reset", "--yes", timeout_seconds=_DOWN_SECONDS)
