"""Secrets that change while a process runs: files are read again, and whoever uses one is told.

A rotation is then three changes of files and no restart. What can't be used is refused as a whole and
named; the process goes on with what it has, and tries again with the next change.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from pydantic import ValidationError

from clinic_shared.health import Health
from clinic_shared.loops import pause
from clinic_shared.metrics import SECRET_RELOADS
from clinic_shared.settings import ServiceSettings

log = structlog.get_logger()

NAME = "secrets"
POLL_SECONDS = 2.0

Listener = Callable[[ServiceSettings], None]


class SecretFiles:
    """A folder of secrets. Kubernetes replaces all files of one at once, by a symbolic link."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._fingerprint()

    def have_changed(self) -> bool:
        """Tell whether anything differs from what was there at the last call."""
        now = self._fingerprint()
        changed, self._seen = now != self._seen, now
        return changed

    def _fingerprint(self) -> frozenset[tuple[str, int, int, int]]:
        try:
            # Hidden files are drafts, and Kubernetes' own links: the visible ones lead through them.
            visible = (file for file in self._folder.iterdir() if not file.name.startswith("."))
            return frozenset(filter(None, map(_stamp, visible)))
        except OSError:
            return frozenset()


def _stamp(file: Path) -> tuple[str, int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return file.name, status.st_ino, status.st_mtime_ns, status.st_size


async def follow_secrets(
    folder: Path | None, take: Callable[[], None], health: Health, stop: asyncio.Event
) -> None:
    """Call `take` whenever a file in the folder of secrets has changed, until what is there can be used."""
    if folder is None:
        return
    files, due = SecretFiles(folder), False
    while not stop.is_set():
        await pause(stop, POLL_SECONDS)
        due = files.have_changed() or due
        if due:
            due = not reload(take, health)


def reload(take: Callable[[], None], health: Health) -> bool:
    """Take what the files say now. Returns False when something in them can't be used."""
    try:
        take()
    except (ValidationError, ValueError, RuntimeError, OSError) as error:
        SECRET_RELOADS.labels(outcome="refused").inc()
        health.report(NAME, f"changed, but can't be used: {type(error).__name__}")
        log.error("secrets_refused", settings=_named(error), error_class=type(error).__name__)  # noqa: TRY400  # a traceback may hold the value
        return False
    SECRET_RELOADS.labels(outcome="taken").inc()
    health.report(NAME, None)
    log.info("secrets_reloaded")
    return True


def _named(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return ""
    return ", ".join(str(part["loc"][0]) for part in error.errors() if part["loc"])
