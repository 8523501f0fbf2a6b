"""The end of an archive: its key goes first, then its file. Numbers and leaf hashes stay, so the log still proves itself."""

import asyncio

from sqlalchemy import update

from clinic_audit.archive_tables import archive_segment
from clinic_audit.archiving import ArchiveError, Archives, entry, trusted_now
from clinic_audit.restoring import take_away


async def destroy(archives: Archives, first_index: int, *, reason: str) -> bool:
    """Destroy an archive whose time is over; returns whether it wasn't before. Raises ArchiveError.

    The database refuses it earlier, whatever this process's clock says (`0006_archives.py`). Killed between key and
    file, it is done again by asking again.
    """
    segment = await archives.segment(first_index)
    if segment.removed_at is None:
        raise ArchiveError(f"{segment.file_name} is still in the log")
    if segment.destroyed_at is None:
        async with archives.database.transaction() as tx:
            if segment.kept_until > await trusted_now(tx):
                raise ArchiveError(f"{segment.file_name} is kept until {segment.kept_until:%Y-%m-%d}")
            await take_away(tx, segment)
            await tx.execute(
                update(archive_segment)
                .where(archive_segment.c.first_index == first_index)
                .values(destroyed_at=tx.now, data_key=None)
            )
            tx.audit(entry("destroyed", segment.first_index, segment.end_index, reason=reason))
    await asyncio.to_thread((archives.folder / segment.file_name).unlink, missing_ok=True)
    return segment.destroyed_at is None
