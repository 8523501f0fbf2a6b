"""An archived part of the log beside the live one: found by every search, and put away again when done with."""

from collections.abc import Sequence
from typing import Any

from clinic_shared.database import Transaction
from sqlalchemy import Row, select, text

from clinic_audit import store
from clinic_audit.archive_file import ArchivedRecord
from clinic_audit.archive_tables import archived_record
from clinic_audit.archiving import ArchiveError, Archives, entry, first_of
from clinic_audit.domain import leaf_hash
from clinic_audit.recording import read_index


async def restore(archives: Archives, first_index: int) -> int:
    """Put an archive's records beside the log; returns how many. Doing it twice changes nothing.

    Raises ArchiveError unless each of them is what left the log.
    """
    segment = await archives.segment(first_index)
    if segment.removed_at is None:
        raise ArchiveError(f"{segment.file_name} is still in the log")
    if segment.destroyed_at is not None:
        raise ArchiveError(f"{segment.file_name} was destroyed")
    checked = await archives.check(segment)
    if checked.findings:
        raise ArchiveError(f"{segment.file_name}: {first_of(checked)}")
    rows = [_row(one) for one in checked.records]
    async with archives.database.transaction() as tx:
        if await _left(tx, segment) != [_what_stays(row) for row in rows]:
            raise ArchiveError(f"{segment.file_name} doesn't have the records that left the log")
        await take_away(tx, segment)
        await store.append(tx, rows, table="restored_record")
        tx.audit(entry("restored", segment.first_index, segment.end_index))
    return len(rows)


async def put_away(archives: Archives, first_index: int) -> None:
    """Take restored records out again. Raises ArchiveError when there is no such archive."""
    segment = await archives.segment(first_index)
    async with archives.database.transaction() as tx:
        await take_away(tx, segment)
        tx.audit(entry("put-away", segment.first_index, segment.end_index))


async def _left(tx: Transaction, segment: Row[Any]) -> Sequence[tuple[Any, ...]]:
    column = archived_record.c.leaf_index
    rows = await tx.fetch_all(
        select(archived_record)
        .where(column >= segment.first_index, column < segment.end_index)
        .order_by(column)
    )
    return [_what_stays(row._asdict()) for row in rows]


def _what_stays(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["leaf_index"], row["producer"], row["pseq"], bytes(row["leaf_hash"])


async def take_away(tx: Transaction, segment: Row[Any]) -> None:
    """Take out what was restored of an archive."""
    bounds = {"first": segment.first_index, "end": segment.end_index}
    await tx.execute(
        text("DELETE FROM restored_record WHERE leaf_index >= :first AND leaf_index < :end"), bounds
    )


def _row(one: ArchivedRecord) -> dict[str, Any]:
    return {
        "leaf_index": one.leaf_index,
        "producer": one.producer,
        "pseq": one.pseq,
        "leaf_hash": leaf_hash(one.record),
        "record": one.record,
        "received_at": one.received_at,
        **read_index(one.record).columns(),
    }
