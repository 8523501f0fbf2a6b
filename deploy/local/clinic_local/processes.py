"""Server processes under a guardian (`guardian.py`): start, watch, stop; none of them outlives us."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from clinic_local.accounts import ServerUser
from clinic_local.errors import SetupError

_GUARDIAN = Path(__file__).with_name("guardian.py")
_STOP_MARGIN_SECONDS = 15.0


@dataclass(frozen=True)
class Command:
    """One process of a server. `port` set: the next command starts when this one listens there."""

    name: str
    argv: Sequence[str | Path]
    env: dict[str, str]
    cwd: Path
    log: Path
    stop_signal: str = "SIGTERM"
    port: int | None = None

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "argv": [str(part) for part in self.argv],
            "env": self.env,
            "cwd": str(self.cwd),
            "log": str(self.log),
            "stop": self.stop_signal,
            "port": self.port,
        }


class GuardedProcess:
    """The processes of one server, started in order; stopped in reverse order by `stop()` or by our own death."""

    def __init__(
        self, component: str, commands: Sequence[Command], *, user: ServerUser | None, grace_seconds: float
    ) -> None:
        spec = {
            "commands": [command.as_json() for command in commands],
            "user": None if user is None else [user.uid, user.gid],
            "grace_seconds": grace_seconds,
        }
        self._component = component
        self._grace_seconds = grace_seconds
        self._log = commands[-1].log
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARDIAN)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            cwd="/",
        )
        self._lifeline = cast("IO[bytes]", self._popen.stdin)
        self._stop_lock = threading.Lock()
        self._lifeline.write(json.dumps(spec).encode() + b"\n")
        self._lifeline.flush()
        self.pids: dict[str, int] = self._read_pids()

    def _read_pids(self) -> dict[str, int]:
        with cast("IO[bytes]", self._popen.stdout) as status:
            line = status.readline()
        if not line:
            self.stop()
            raise SetupError(self._component, "its processes couldn't be started", log=self._log)
        return dict(json.loads(line))

    @property
    def guardian_pid(self) -> int:
        return self._popen.pid

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def ask_to_stop(self) -> None:
        """Let the guardian begin to stop the processes; `stop()` then waits for the end."""
        with self._stop_lock:
            self._lifeline.close()

    def stop(self) -> None:
        """Stop the processes and wait until they have gone; a second call does nothing."""
        with self._stop_lock:
            self._lifeline.close()
            try:
                self._popen.wait(self._grace_seconds + _STOP_MARGIN_SECONDS)
            except subprocess.TimeoutExpired:
                # Its children have a parent-death signal for this case.
                self._popen.kill()
                self._popen.wait()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
