"""Archives whose time is over: destroyed with their key, and the log goes on proving itself."""

import json

import pytest
from clinic_audit.archiving import ArchiveError
from clinic_audit.destroying import destroy
from clinic_audit.restoring import restore
from clinic_shared.events import audit_outbox
from sqlalchemy import select, text

from .conftest import OLD, YOUNG, Kept

REASON = "its time is over"


async def recorded(kept: Kept) -> list[tuple[str, str, str | None]]:
    """Return the acts on archives that the audit knows of."""
    async with kept.audit.runtime.database.transaction() as tx:
        rows = await tx.fetch_all(select(audit_outbox.c.record).order_by(audit_outbox.c.id))
    records = [json.loads(row.record) for row in rows]
    return [(r["action"], r["details"]["act"], r.get("reason")) for r in records]


async def test_a_destroyed_archive_leaves_the_proof_and_nothing_else(outlived: Kept) -> None:
    assert await outlived.archive() == 1
    assert await restore(outlived.archives, 0) == OLD
    file = outlived.file
    assert await destroy(outlived.archives, 0, reason=REASON)
    assert not file.exists()
    assert await outlived.count("restored_record") == 0
    segment = await outlived.archives.segment(0)
    assert (segment.data_key, segment.destroyed_at is not None) == (None, True)
    report = await outlived.verify()
    assert (report.findings, report.records) == ([], OLD + YOUNG)
    assert (await recorded(outlived))[-1] == ("D", "destroyed", REASON)
    with pytest.raises(ArchiveError, match="was destroyed"):
        await restore(outlived.archives, 0)
    assert await outlived.archive() == 0


async def test_a_file_that_was_left_behind_goes_when_it_is_asked_for_again(outlived: Kept) -> None:
    await outlived.archive()
    file = outlived.file
    content = file.read_bytes()
    await destroy(outlived.archives, 0, reason=REASON)
    file.write_bytes(content)
    acts = await recorded(outlived)
    assert not await destroy(outlived.archives, 0, reason=REASON)
    assert not file.exists()
    assert await recorded(outlived) == acts


async def test_an_archive_is_kept_as_long_as_the_law_asks_whatever_the_clock_says(kept: Kept) -> None:
    await kept.archive()
    for days in (0, 10_000):
        kept.audit.clock.advance(days=days)
        with pytest.raises(ArchiveError, match="is kept until"):
            await destroy(kept.archives, 0, reason=REASON)
    assert kept.file.exists()
    with pytest.raises(ArchiveError, match="no archive begins with record 3"):
        await destroy(kept.archives, 3, reason=REASON)


async def test_an_archive_that_is_still_in_the_log_is_not_destroyed(outlived: Kept) -> None:
    await outlived.archive()
    await outlived.run(
        "ALTER TABLE archive_segment DISABLE TRIGGER USER",
        "UPDATE archive_segment SET removed_at = NULL",
        "ALTER TABLE archive_segment ENABLE TRIGGER USER",
    )
    with pytest.raises(ArchiveError, match="still in the log"):
        await destroy(outlived.archives, 0, reason=REASON)
    async with outlived.audit.runtime.database.transaction() as tx:
        row = await tx.fetch_one(text("SELECT data_key IS NOT NULL AS kept FROM archive_segment"))
    assert row is not None
    assert row.kept
