"""Old parts of the log in archives: proven before anything is removed, kept as long as the law says, restored."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clinic_audit import archiving, store
from clinic_audit.archive_file import UnreadableArchiveError
from clinic_audit.archiving import ArchiveError, Rules
from clinic_audit.local_witness import show
from clinic_audit.recording import IncomingRecord, record_batch
from clinic_audit.restoring import put_away, restore
from clinic_audit.witnessing import Witness
from clinic_shared.audit import leaf_hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .conftest import OLD, PATIENT, RULES, YOUNG, Kept, RecordFactory

_PEM = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo


async def test_old_months_leave_the_log_and_it_stays_whole(kept: Kept, tmp_path: Path) -> None:
    assert await kept.archive() == 1
    assert (await kept.count("audit_record"), await kept.count("archived_record")) == (YOUNG, OLD)
    report = await kept.verify()
    assert (report.findings, report.records, report.archived) == ([], OLD + YOUNG, OLD)
    assert report.producers == {"scheduling": OLD + YOUNG}
    witness = Witness(tmp_path / "checkpoints.jsonl", kept.archives.public_key)
    await show(kept.audit.runtime, witness)
    assert witness.size == OLD + YOUNG
    assert await kept.archive() == 0


async def test_a_long_log_goes_into_several_archives_that_continue_each_other(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "MOST_RECORDS", 4)
    assert await kept.archive() == 2
    first, second = sorted(kept.archives.folder.iterdir())
    checked = [kept.check(file.read_bytes()) for file in (first, second)]
    assert [(one.manifest.first_index, one.manifest.end_index) for one in checked] == [(0, 10), (10, OLD)]
    assert [one.findings for one in checked] == [[], []]
    assert await restore(kept.archives, 10) == 5
    assert (await kept.verify()).findings == []


async def test_an_archive_proves_itself_without_the_database_and_shows_nothing(kept: Kept) -> None:
    await kept.archive()
    checked = kept.check()
    assert (checked.findings, checked.opened) == ([], True)
    assert [one.leaf_index for one in checked.records] == list(range(OLD))
    closed = kept.check(with_keys=False)
    assert (closed.findings, closed.opened, closed.records) == ([], False, [])
    assert str(PATIENT).encode() not in kept.file.read_bytes()
    assert kept.file.stat().st_mode & 0o077 == 0


def _swap(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[4], lines[3], *lines[5:]]


def _with(line: bytes, **changes: Any) -> bytes:
    return json.dumps(json.loads(line) | changes, separators=(",", ":")).encode()


def _exchange_contents(lines: list[bytes]) -> list[bytes]:
    one, other = json.loads(lines[3]), json.loads(lines[4])
    return [
        *lines[:3],
        _with(lines[3], sealed=other["sealed"]),
        _with(lines[4], sealed=one["sealed"]),
        *lines[5:],
    ]


def _alter_leaf(lines: list[bytes]) -> list[bytes]:
    manifest = json.loads(lines[0])
    leaves = manifest["ends"]["leaves"]
    manifest["ends"]["leaves"] = ("B" if leaves[0] == "A" else "A") + leaves[1:]
    return [json.dumps(manifest).encode(), *lines[1:]]


TAMPERINGS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str, str]] = {
    "altered": (
        lambda lines: [*lines[:4], _with(lines[4], sealed="AQ=="), *lines[5:]],
        "altered",
        "record 3",
    ),
    "exchanged": (_exchange_contents, "altered", "record 2 isn't as it was sealed"),
    "renumbered": (lambda lines: [*lines[:4], _with(lines[4], pseq=99), *lines[5:]], "altered", "record 3"),
    "unreadable": (lambda lines: [*lines[:4], b"{", *lines[5:]], "altered", "in the place of record 3"),
    "removed": (lambda lines: lines[:4] + lines[5:], "missing", "record 3 is missing"),
    "cut-off": (lambda lines: lines[:-3], "missing", f"record {OLD - 1} is missing"),
    "swapped": (_swap, "reordered", "record 2 stands after record 3"),
    "doubled": (lambda lines: [*lines[:4], lines[3], *lines[4:]], "inserted", "number 2"),
    "another-leaf": (_alter_leaf, "checkpoint", "don't lead"),
}


async def test_what_was_done_to_an_archive_is_named_and_nothing_of_it_restored(kept: Kept) -> None:
    await kept.archive()
    file = kept.file
    lines = file.read_bytes().rstrip(b"\n").split(b"\n")
    for tampering, (change, kind, says) in TAMPERINGS.items():
        file.write_bytes(b"\n".join(change(lines)) + b"\n")
        found = kept.check().findings
        assert any(f.kind == kind and says in f.text for f in found), (tampering, found)
        with pytest.raises(ArchiveError):
            await restore(kept.archives, 0)
        assert await kept.count("restored_record") == 0


async def test_what_is_no_archive_is_told(kept: Kept) -> None:
    with pytest.raises(UnreadableArchiveError):
        kept.check(b"{}\n")


async def test_an_altered_log_is_not_archived(kept: Kept) -> None:
    await kept.run(
        "ALTER TABLE audit_record DISABLE TRIGGER USER",
        "UPDATE audit_record SET leaf_hash = sha256('x') WHERE leaf_index = 7",
        "ALTER TABLE audit_record ENABLE TRIGGER USER",
    )
    with pytest.raises(ArchiveError, match="records 0 to 14"):
        await kept.archive()
    assert await kept.count("audit_record") == OLD + YOUNG


async def test_what_is_not_handed_on_yet_stays(kept: Kept) -> None:
    waiting = Rules(online=RULES.online, kept_years=6, jurisdiction="gdpr", waits_for_syslog=True)
    assert await kept.archive(waiting) == 0
    await kept.run("INSERT INTO feed VALUES ('syslog feed', 12)")
    assert await kept.archive(waiting) == 1
    assert await kept.count("archived_record") == 10


async def test_an_archived_record_that_comes_again_is_known(kept: Kept, record: RecordFactory) -> None:
    await kept.archive()
    [kept_one] = [one for one in kept.check().records if one.pseq == 3]
    same = IncomingRecord(
        producer="scheduling", pseq=3, leaf_hash=leaf_hash(kept_one.record), record=kept_one.record
    )
    async with kept.audit.runtime.database.transaction() as tx:
        assert await record_batch(tx, [same, record(3)]) == 0
        assert await store.count_incidents(tx) == 1


async def test_a_restored_part_is_searched_beside_the_live_one(kept: Kept) -> None:
    assert await kept.found() == [3]
    await kept.archive()
    assert await kept.found() == []
    for _ in range(2):
        assert await restore(kept.archives, 0) == OLD
    assert await kept.found() == [3]
    report = await kept.verify()
    assert (report.findings, report.records) == ([], OLD + YOUNG)
    await kept.run("UPDATE restored_record SET record = record || ' ' WHERE leaf_index = 3")
    assert ("altered", "record 3") in {(f.kind, f.text[:8]) for f in (await kept.verify()).findings}
    await put_away(kept.archives, 0)
    assert await kept.found() == []
    assert (await kept.verify()).intact


async def test_an_archive_that_is_gone_is_not_restored(kept: Kept) -> None:
    await kept.archive()
    kept.file.unlink()
    with pytest.raises(ArchiveError, match="can't be read"):
        await restore(kept.archives, 0)
    with pytest.raises(ArchiveError, match="no archive begins"):
        await restore(kept.archives, 5)


ARCHIVING = """
import asyncio, pathlib, sys
from datetime import UTC, datetime, timedelta
from clinic_audit import archiving
from clinic_audit.app import service
from clinic_shared.service import running
from cryptography.hazmat.primitives import serialization

archiving.REMOVED_AT_ONCE = 4
async def main():
    async with running(service, service.settings.load()) as runtime:
        key = serialization.load_pem_public_key(pathlib.Path(sys.argv[2]).read_bytes())
        archives = archiving.Archives(database=runtime.database, public_key=key, folder=pathlib.Path(sys.argv[1]))
        await archives.archive_old(archiving.Rules(online=timedelta(days=400), kept_years=6, jurisdiction="gdpr"))
asyncio.run(main())
"""


async def _dies_at(label: str, kept: Kept, public_key: Path) -> None:
    settings = kept.audit.runtime.settings
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ARCHIVING, str(kept.archives.folder), str(public_key)),
        env={
            **os.environ,
            "CLINIC_ENVIRONMENT": "test",
            "CLINIC_DATABASE_URL": settings.database_url.get_secret_value(),
            "CLINIC_AMQP_URL": settings.amqp_url.get_secret_value(),
            "CLINIC_CRASH_AT": label,
        },
    )
    try:
        async with asyncio.timeout(120):
            assert await process.wait() == -signal.SIGKILL, label
    finally:
        if process.returncode is None:
            process.kill()


async def test_archiving_that_is_killed_at_any_step_loses_nothing(kept: Kept, tmp_path: Path) -> None:
    public_key = tmp_path / "public.pem"
    public_key.write_bytes(kept.archives.public_key.public_bytes(*_PEM))
    for label, in_log in (
        ("archive.written", OLD + YOUNG),
        ("archive.placed", OLD + YOUNG),
        ("archive.recorded", OLD + YOUNG),
        ("archive.removed:2", OLD + YOUNG - 8),
    ):
        await _dies_at(label, kept, public_key)
        assert (await kept.count("audit_record"), label) == (in_log, label)
        assert (await kept.verify()).findings == []
    assert await kept.archive() == 1
    assert (await kept.count("audit_record"), await kept.count("archived_record")) == (YOUNG, OLD)
    assert [one.leaf_index for one in kept.check().records] == list(range(OLD))
    assert [path.name for path in kept.archives.folder.iterdir()] == [kept.file.name]


async def test_nothing_more_is_removed_once_the_archive_is_damaged(kept: Kept, tmp_path: Path) -> None:
    public_key = tmp_path / "public.pem"
    public_key.write_bytes(kept.archives.public_key.public_bytes(*_PEM))
    await _dies_at("archive.recorded", kept, public_key)
    kept.file.write_bytes(kept.file.read_bytes().replace(b'"pseq":3', b'"pseq":4'))
    with pytest.raises(ArchiveError, match="record 3"):
        await kept.archive()
    assert await kept.count("audit_record") == OLD + YOUNG
