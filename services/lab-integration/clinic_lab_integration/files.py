"""Laboratories that can only write files: a folder each, usually the target of SFTP.

`<folder>/<client id>/in/NAME` is taken when it has stopped growing; its answer becomes `out/NAME.ack`, and the
file is removed, since its messages are durable by then. What is no message goes to `refused/`.
A crash in between takes a file twice: the second time it is a duplicate, with the same answer.
"""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import structlog
from clinic_shared.context import Context
from clinic_shared.errors import DomainError, TemporarilyUnavailableError
from clinic_shared.health import Health
from clinic_shared.ids import uuid7
from clinic_shared.loops import keep_running, pause
from clinic_shared.service import Runtime

from clinic_lab_integration import partners, receiving
from clinic_lab_integration.connection import Protocol
from clinic_lab_integration.messages import MAX_BODY_BYTES
from clinic_lab_integration.partners import PartnerDirectory
from clinic_lab_integration.settings import LabSettings
from clinic_lab_integration.store import Partner

log = structlog.get_logger()

NAME = "lab-files"
CONTENT_TYPE = "application/hl7-v2; transport=file"
POLL_SECONDS = 2.0
_UNFINISHED = (".tmp", ".part", ".filepart", ".writing")

_Seen = tuple[int, int]


async def watch_folder(runtime: Runtime, stop: asyncio.Event) -> None:
    """Take files for as long as the process runs, if the settings name a folder."""
    folder = cast("LabSettings", runtime.settings).lab_files_dir
    if folder is not None:
        health = Health.of(runtime)
        watcher = FolderWatcher(runtime, folder)
        await keep_running(NAME, stop, partial(watcher.run, stop, health), health)


@dataclass(frozen=True)
class Drop:
    """A file that a laboratory has put down, as it was last seen."""

    client_id: str
    path: Path
    seen: _Seen

    @property
    def home(self) -> Path:
        return self.path.parent.parent


class FolderWatcher:
    """Remembers how large files were, to know which have stopped growing."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self._runtime = runtime
        self._folder = folder
        self._last: dict[Path, _Seen] = {}

    async def run(self, stop: asyncio.Event, health: Health) -> None:
        while not stop.is_set():
            await self.look()
            health.report(NAME, None)
            await pause(stop, POLL_SECONDS)

    async def look(self) -> int:
        """Take every file that is as it was at the last look; returns how many were taken."""
        drops = await asyncio.to_thread(lambda: list(_drops(self._folder)))
        finished = [drop for drop in drops if self._last.get(drop.path) == drop.seen]
        self._last = {drop.path: drop.seen for drop in drops}
        taken = 0
        for drop in finished:
            taken += await self._take(drop)
        return taken

    async def _take(self, drop: Drop) -> bool:
        partner = self._runtime.get(PartnerDirectory).by_client_id(drop.client_id)
        if partner is None:
            return False
        try:
            payload = await asyncio.to_thread(_read, drop.path)
            answer = await self._receive(payload, partner)
        except (TemporarilyUnavailableError, FileNotFoundError):
            return False  # the file stays, or another process has it
        except DomainError as error:
            log.warning("lab_file_refused", partner_id=partner.partner_id, reason=error.slug)
            await asyncio.to_thread(_refuse, drop, error.title)
            return True
        await asyncio.to_thread(_settle, drop, answer)
        return True

    async def _receive(self, payload: bytes, partner: Partner) -> bytes:
        principal = partners.principal_of(partner)
        await partners.sender(self._runtime, principal, Protocol.FILES)
        context = Context(principal=principal, correlation_id=uuid7())
        received = await receiving.receive(
            self._runtime, payload, CONTENT_TYPE, partner=partner, context=context
        )
        if not received.complete:
            raise TemporarilyUnavailableError
        return received.answer or b""


def _drops(folder: Path) -> Iterator[Drop]:
    for inbox in sorted(folder.glob("*/in")):
        for path in sorted(inbox.iterdir()):
            is_draft = path.name.startswith(".") or path.name.endswith(_UNFINISHED)
            # A link could lead out of the laboratory's folder.
            if not is_draft and path.is_file() and not path.is_symlink():
                status = path.stat()
                yield Drop(inbox.parent.name, path, (status.st_size, status.st_mtime_ns))


def _read(path: Path) -> bytes:
    """At most one byte more than is taken, so that what is too large is known as that."""
    with path.open("rb") as file:
        return file.read(MAX_BODY_BYTES + 1)


def _settle(drop: Drop, answer: bytes) -> None:
    _write(drop.home / "out", f"{drop.path.name}.ack", answer)
    drop.path.unlink(missing_ok=True)


def _refuse(drop: Drop, why: str) -> None:
    _write(drop.home / "out", f"{drop.path.name}.refused.txt", f"{why}\n".encode())
    refused = drop.home / "refused"
    refused.mkdir(exist_ok=True)
    drop.path.replace(refused / drop.path.name)


def _write(folder: Path, name: str, content: bytes) -> None:
    """Whole or not at all, for whoever fetches it."""
    folder.mkdir(exist_ok=True)
    draft = folder / f".{name}"
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / name)
