"""Ties the processes of one server to the life of whoever asked for them. Standard library only; run as a file.

The asker writes one line, what to run, and keeps standard input open. When that closes, asked for or because
the asker was killed, the processes are stopped in reverse order, and whatever they left behind is killed.
Parent-death signals alone can't do this: they are lost when a script forks on.
"""

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_HELPER_START_SECONDS = 10.0


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


class Guardian:
    def __init__(self, spec: dict[str, Any]) -> None:
        self._commands: list[dict[str, Any]] = spec["commands"]
        self._grace_seconds: float = spec["grace_seconds"]
        self._user: dict[str, Any] = (
            {}
            if spec["user"] is None
            else {"user": spec["user"][0], "group": spec["user"][1], "extra_groups": []}
        )
        self._running: dict[int, dict[str, Any]] = {}
        self._status: int | None = None
        self._stopping = False

    def run(self) -> int:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        for command in self._commands:
            self._start(command)
        print(json.dumps({c["name"]: pid for pid, c in self._running.items()}), flush=True)
        while not self._stopping and self._status is None:
            ready, _, _ = select.select([0, wake_read], [], [])
            if wake_read in ready:
                os.read(wake_read, 512)
            self._stopping |= 0 in ready and not os.read(0, 512)
            self._reap()
        self._stop_all()
        return 0 if self._stopping else self._status or 1

    def _on_signal(self, number: int, _frame: object) -> None:
        self._stopping |= number != signal.SIGCHLD

    def _start(self, command: dict[str, Any]) -> None:
        stop_signal = signal.Signals[command["stop"]]
        log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        process = subprocess.Popen(
            command["argv"],
            env=command["env"],
            cwd=command["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # For the case that this process itself is killed.
            preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, stop_signal),  # noqa: PLW1509 - no threads here
            **self._user,
        )
        os.close(log)
        self._running[process.pid] = command
        if command.get("port"):
            self._wait_for_port(command["port"], time.monotonic() + _HELPER_START_SECONDS)

    def _wait_for_port(self, port: int, deadline: float) -> None:
        while time.monotonic() < deadline and self._status is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
                self._reap()
            else:
                return

    def _reap(self) -> None:
        """Collect everything that has ended, adopted grandchildren included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._running.pop(pid, None) is not None and self._status is None:
                self._status = os.waitstatus_to_exitcode(status) or 1

    def _stop_all(self) -> None:
        for pid, command in reversed(list(self._running.items())):
            self._signal(pid, signal.Signals[command["stop"]])
            self._wait(pid, self._grace_seconds)
            if pid in self._running:
                self._signal(pid, signal.SIGKILL)
                self._wait(pid, 5.0)
        while left := _children():
            for pid in left:
                self._signal(pid, signal.SIGKILL)
            time.sleep(0.02)
            self._reap()

    def _wait(self, pid: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while pid in self._running and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.02)

    def _signal(self, pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            self._reap()


def _children() -> list[int]:
    """Return our children and the orphans that we adopted as their subreaper."""
    me, found = str(os.getpid()), []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name stands in brackets and may hold anything, so read what follows the last one.
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if parent == me and state != "Z":
            found.append(int(entry.parent.name))
    return found


def _first_line() -> bytes:
    """Read the specification unbuffered, so that `select` sees the rest of standard input as it is."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            sys.exit(0)
        line += chunk
    return line


if __name__ == "__main__":
    sys.exit(Guardian(json.loads(_first_line())).run())
