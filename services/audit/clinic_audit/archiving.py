"""Old parts of the log move into archives: written, read again and proven, only then removed from where they stood.

It can be interrupted anywhere and begins again: an archive counts once its row is committed, and each removal
leaves number and leaf hash behind in the transaction that takes the content. What the law asks to be kept, and
for how long, the database holds too (`0006_archives.py`). One process at a time.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import structlog
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.crash import crash_point
from clinic_shared.database import Database, Transaction
from clinic_shared.health import Health
from clinic_shared.jurisdictions import Jurisdiction
from clinic_shared.loops import keep_running, pause
from clinic_shared.partitions import Month
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Row, func, select, text, update

from clinic_audit import archive_file, log_reading, store
from clinic_audit.archive_file import ArchivedRecord, Checked, UnreadableArchiveError
from clinic_audit.archive_tables import archive_segment
from clinic_audit.domain import Checkpoint, Tree
from clinic_audit.settings import ArchiveSettings, AuditSettings
from clinic_audit.signing import Signer
from clinic_audit.syslog_feed import NAME as SYSLOG

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

NAME = "audit archives"
INTERVAL_SECONDS = 3600
MOST_RECORDS = 20_000
"""In one archive: as many as are sealed, checked and restored in a few seconds and some dozens of MB."""
REMOVED_AT_ONCE = 2_000
_LOCK = 0x0C11_A7C5


class ArchiveError(Exception):
    """What stands in the log, or in an archive, isn't what was signed: nothing was removed or restored."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What may leave the log when; `kept_years` is what the archive is kept at least."""

    online: timedelta
    kept_years: int
    jurisdiction: Jurisdiction
    waits_for_syslog: bool = False

    @classmethod
    def of(cls, settings: ArchiveSettings) -> "Rules":
        return cls(
            online=timedelta(days=settings.audit_online_days),
            kept_years=settings.kept_years,
            jurisdiction=settings.jurisdiction,
            waits_for_syslog=settings.audit_syslog_address is not None,
        )


@dataclass(frozen=True, kw_only=True)
class Archives:
    """The archives of a log: its database, whose keyring seals them, and the folder they are kept in."""

    database: Database
    public_key: Ed25519PublicKey
    folder: Path

    async def listed(self) -> Sequence[Row[Any]]:
        async with self.database.transaction() as tx:
            return await tx.fetch_all(select(archive_segment).order_by(archive_segment.c.first_index))

    async def segment(self, first_index: int) -> Row[Any]:
        """Raises ArchiveError when no archive begins there."""
        async with self.database.transaction() as tx:
            found = await tx.fetch_one(
                select(archive_segment).where(archive_segment.c.first_index == first_index)
            )
        if found is None:
            raise ArchiveError(f"no archive begins with record {first_index}")
        return found

    async def check(self, segment: Row[Any]) -> Checked:
        """Read an archive and check it against its checkpoint and its digest. Raises ArchiveError."""
        try:
            content = await asyncio.to_thread((self.folder / segment.file_name).read_bytes)
        except OSError as error:
            raise ArchiveError(f"{segment.file_name} can't be read: {error.strerror}") from error
        checked = await self._checked(segment.file_name, content, segment.data_key)
        if hashlib.sha256(content).digest() != segment.file_digest:
            checked.add("altered", f"{segment.file_name} isn't the file that was written")
        return checked

    async def _checked(self, name: str, content: bytes, data_key: bytes | None) -> Checked:
        keyring = self.database.keyring
        try:
            return await asyncio.to_thread(
                archive_file.check, content, self.public_key, keyring, data_key=data_key
            )
        except UnreadableArchiveError as error:
            raise ArchiveError(f"{name} can't be read: {error}") from error

    async def archive_old(self, rules: Rules) -> int:
        """Archive and remove what is old enough, oldest first; returns how many archives. Raises ArchiveError."""
        done = 0
        async with alone(self.database) as mine:
            while mine:
                segment = await self._unfinished() or await self._export(rules)
                if segment is None:
                    break
                await self._remove(segment)
                done += 1
        return done

    async def _unfinished(self) -> Row[Any] | None:
        async with self.database.transaction() as tx:
            return await tx.fetch_one(select(archive_segment).where(archive_segment.c.removed_at.is_(None)))

    async def _export(self, rules: Rules) -> Row[Any] | None:
        async with self.database.transaction() as tx:
            part = await _next_part(tx, rules)
        if part is None:
            return None
        name = archive_file.file_name(part.before.size, part.checkpoint.tree_size)
        written = await asyncio.to_thread(
            archive_file.encode, part.before, part.checkpoint, part.records, self.database.keyring
        )
        await asyncio.to_thread(archive_file.write, self.folder / name, written)
        crash_point("archive.placed")
        content = await asyncio.to_thread((self.folder / name).read_bytes)
        checked = await self._checked(name, content, None)
        if checked.findings or checked.records != part.records:
            raise ArchiveError(f"{name} isn't what was to be written: {first_of(checked)}")
        async with self.database.transaction() as tx:
            segment = await _record(tx, part, rules, name=name, content=content, checked=checked)
        crash_point("archive.recorded")
        log.info("audit_archived", file=name, records=len(part.records))
        return segment

    async def _remove(self, segment: Row[Any]) -> None:
        """Take the content of what was archived out of the log. Raises ArchiveError unless the archive stands."""
        checked = await self.check(segment)
        if checked.findings:
            raise ArchiveError(f"{segment.file_name}: {first_of(checked)}")
        for start in range(segment.first_index, segment.end_index, REMOVED_AT_ONCE):
            bounds = {"first": start, "end": min(start + REMOVED_AT_ONCE, segment.end_index)}
            async with self.database.transaction() as tx:
                await tx.execute(_LEAVE_BEHIND, bounds)
                await tx.execute(_TAKE_OUT, bounds)
            crash_point("archive.removed")
        async with self.database.transaction() as tx:
            this = archive_segment.c.first_index == segment.first_index
            await tx.execute(update(archive_segment).where(this).values(removed_at=tx.now))


_LEAVE_BEHIND = text("""
    INSERT INTO archived_record (leaf_index, producer, pseq, leaf_hash)
    SELECT leaf_index, producer, pseq, leaf_hash FROM ONLY audit_record
    WHERE leaf_index >= :first AND leaf_index < :end
""")
_TAKE_OUT = text("DELETE FROM ONLY audit_record WHERE leaf_index >= :first AND leaf_index < :end")


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is to be archived next: the records from `before` up to the checkpoint."""

    before: Tree
    checkpoint: Checkpoint
    records: list[ArchivedRecord]
    tree: Tree


async def _next_part(tx: Transaction, rules: Rules) -> Part | None:
    """Return the next part that is old enough as a whole. Raises ArchiveError when the log was altered there."""
    last = await tx.fetch_one(
        select(archive_segment.c.end_index, archive_segment.c.subtrees)
        .order_by(archive_segment.c.end_index.desc())
        .limit(1)
    )
    before = Tree() if last is None else Tree(last.end_index, tuple(map(bytes, last.subtrees)))
    checkpoint = await _end_of_part(tx, before.size, rules)
    if checkpoint is None:
        return None
    rows = [
        row
        async for chunk in log_reading.read_log(tx, first=before.size, end=checkpoint.tree_size)
        for row in chunk
    ]
    tree = before.append(row.leaf_hash for row in rows)
    if (tree.size, tree.root) != (checkpoint.tree_size, checkpoint.root_hash):
        raise ArchiveError(
            f"records {before.size} to {checkpoint.tree_size - 1} of the log aren't those that were signed"
        )
    records = [
        ArchivedRecord(row.leaf_index, row.producer, row.pseq, row.received_at.astimezone(UTC), row.record)
        for row in rows
    ]
    return Part(before=before, checkpoint=checkpoint, records=records, tree=tree)


async def _end_of_part(tx: Transaction, first: int, rules: Rules) -> Checkpoint | None:
    """Whole months only, so that a log of a day isn't an archive of a few records an hour."""
    found = await tx.fetch_one(
        text(_END),
        {
            "first": first,
            "most": first + MOST_RECORDS,
            "before": Month.of(await trusted_now(tx) - rules.online).starts_at,
            "handed_on": await _handed_on(tx) if rules.waits_for_syslog else None,
        },
    )
    size = None if found is None else found.tree_size
    return None if size is None else await store.get_checkpoint(tx, size)


# The last checkpoint within reach of one archive that covers nothing too young; the next one is always in reach.
_END = """
    WITH reach AS (
        SELECT greatest(CAST(:most AS bigint), min(tree_size)) AS size FROM checkpoint WHERE tree_size > :first
    ), young AS (
        SELECT min(leaf_index) AS leaf_index FROM ONLY audit_record, reach
        WHERE leaf_index >= :first AND leaf_index < reach.size AND received_at >= :before
    )
    SELECT max(tree_size) AS tree_size FROM checkpoint, reach, young
    WHERE tree_size > :first AND tree_size <= reach.size
        AND tree_size <= coalesce(young.leaf_index, tree_size)
        AND tree_size <= coalesce(CAST(:handed_on AS bigint), tree_size)
"""


async def trusted_now(tx: Transaction) -> datetime:
    """Return the earlier of this process's clock and the database's: neither alone can make anything older."""
    row = await tx.fetch_one(select(func.now()))
    return tx.now if row is None else min(tx.now, row[0])


async def _handed_on(tx: Transaction) -> int:
    row = await tx.fetch_one(text("SELECT next_index FROM feed WHERE name = :name"), {"name": SYSLOG})
    return 0 if row is None else int(row.next_index)


async def _record(
    tx: Transaction, part: Part, rules: Rules, *, name: str, content: bytes, checked: Checked
) -> Row[Any]:
    """Write down that the archive stands: from here on it is what its records are kept in."""
    tx.audit(entry("archived", part.before.size, part.tree.size))
    row = await tx.fetch_one(
        text(_RECORD).columns(*archive_segment.columns),
        {
            "first_index": part.before.size,
            "end_index": part.tree.size,
            "subtrees": list(part.tree.subtrees),
            "file_name": name,
            "file_digest": hashlib.sha256(content).digest(),
            "data_key": checked.manifest.data_key,
            "jurisdiction": rules.jurisdiction,
            "last_received_at": max(one.received_at for one in part.records),
            "kept_years": rules.kept_years,
            "archived_at": tx.now,
        },
    )
    return cast("Row[Any]", row)


_RECORD = """
    INSERT INTO archive_segment (first_index, end_index, subtrees, file_name, file_digest, data_key, jurisdiction,
        last_received_at, kept_until, archived_at)
    VALUES (:first_index, :end_index, CAST(:subtrees AS bytea[]), :file_name, :file_digest, :data_key, :jurisdiction,
        :last_received_at, CAST(:last_received_at AS timestamptz) + make_interval(years => :kept_years), :archived_at)
    RETURNING *
"""


def entry(act: str, first: int, end: int, *, reason: str | None = None) -> AuditEntry:
    """Return the record of something done to an archive."""
    return AuditEntry(
        action=Action.EXECUTE if reason is None else Action.DELETE,
        resource_type="AuditArchive",
        resource_id=str(first),
        reason=reason,
        details={"act": act, "records": str(end - first)},
    )


def first_of(checked: Checked) -> str:
    """Say what is wrong, in a line."""
    return "; ".join(finding.text for finding in checked.findings[:3]) or "its records differ"


@asynccontextmanager
async def alone(database: Database) -> AsyncIterator[bool]:
    """Say whether nobody else is archiving, and keep it so."""
    async with database.engine.connect() as connection:
        mine = bool(await connection.scalar(text(f"SELECT pg_try_advisory_lock({_LOCK})")))
        await connection.commit()
        try:
            yield mine
        finally:
            await connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK})"))
            await connection.commit()


async def archive_months(runtime: "Runtime", stop: asyncio.Event) -> None:
    """Archive what is old enough, now and every hour, until told to stop."""
    settings = cast("AuditSettings", runtime.settings)
    folder = settings.audit_archive_dir
    if folder is None:
        return
    archives = Archives(database=runtime.database, public_key=runtime.get(Signer).public_key, folder=folder)
    health = Health.of(runtime)

    async def work() -> None:
        while not stop.is_set():
            await archives.archive_old(Rules.of(settings))
            health.report(NAME, None)
            await pause(stop, INTERVAL_SECONDS)

    await keep_running(NAME, stop, work, health)
