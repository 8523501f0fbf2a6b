"""Short-lived work of a start: children that must all end well, and a thread that must have ended before a fork."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from clinic_local.errors import SetupError
from clinic_local.fork import fork

_LONGEST_SECONDS = 120.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Task:
    target: Callable[[], object]
    environment: Mapping[str, str]
    log: Path


def run_tasks(tasks: Mapping[str, Task]) -> None:
    """Run the tasks side by side, each in a fork, until all have ended. Raises SetupError for the first failure."""
    running = {}
    for name, task in tasks.items():
        task.log.unlink(missing_ok=True)
        running[fork(name, task.target, environment=task.environment, log=task.log)] = name
    deadline = time.monotonic() + _LONGEST_SECONDS
    while running:
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                name = running.pop(pid)
                if status:
                    raise SetupError(
                        name, "it failed", "Read the log, then try: make up", log=tasks[name].log
                    )
        if running and time.monotonic() > deadline:
            name = next(iter(running.values()))
            raise SetupError(name, f"it took longer than {_LONGEST_SECONDS:.0f} s", log=tasks[name].log)
        time.sleep(_POLL_SECONDS)


class Background:
    """A thread beside the start. `wait` for it before anything is forked: a fork copies locks, not threads."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._error: SetupError | None = None
        self._work = work
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except SetupError as error:
            self._error = error

    def wait(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error
