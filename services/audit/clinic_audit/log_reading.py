"""The whole log in its order, as fast as it can be read: for verifying, by the driver's own cursor on the server.

SQLAlchemy's rows cost several times the hashing that is done with them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from clinic_shared.database import Transaction
from sqlalchemy import text

if TYPE_CHECKING:
    import psycopg

CHUNK = 2000
Row = TypeVar("Row")


class StoredRecord(NamedTuple):
    """A row of the log; ids as text, which is how records spell them."""

    leaf_index: int
    producer: str
    pseq: int
    leaf_hash: bytes
    record: bytes
    record_id: str
    recorded_at: datetime
    action: str
    outcome: str
    agent: str
    entity_type: str
    entity_id: str | None
    patient_id: str | None
    request_id: str | None
    agent_kind: str | None
    received_at: datetime


class ArchivedLeaf(NamedTuple):
    """What stays of a record that was archived."""

    leaf_index: int
    producer: str
    pseq: int
    leaf_hash: bytes


_IDS = {"record_id", "agent", "patient_id", "request_id"}
_COLUMNS = ", ".join(f"{name}::text" if name in _IDS else name for name in StoredRecord._fields)
_ROWS = f"SELECT {_COLUMNS} FROM ONLY"  # noqa: S608  # our own names
_LOG = f"{_ROWS} audit_record WHERE leaf_index >= %s AND leaf_index < %s ORDER BY leaf_index"
_RESTORED = f"{_ROWS} restored_record WHERE leaf_index >= %s AND leaf_index < %s ORDER BY leaf_index"
_ARCHIVED = f"SELECT {', '.join(ArchivedLeaf._fields)} FROM archived_record ORDER BY leaf_index"  # noqa: S608  # same
START, END = -(2**63), 2**63 - 1


async def read_log(
    tx: Transaction, *, first: int = START, end: int = END, restored: bool = False
) -> AsyncIterator[Sequence[StoredRecord]]:
    """Yield the log by index in chunks, in constant memory; or what was restored beside it."""
    statement = _RESTORED if restored else _LOG
    async for rows in _stream(tx, statement, (first, end), StoredRecord._make):
        yield rows


async def read_archived(tx: Transaction) -> AsyncIterator[Sequence[ArchivedLeaf]]:
    """Yield what stayed of archived records, by index in chunks."""
    async for rows in _stream(tx, _ARCHIVED, (), ArchivedLeaf._make):
        yield rows


async def _stream(
    tx: Transaction, statement: str, parameters: tuple[int, ...], make: Callable[[Sequence[Any]], Row]
) -> AsyncIterator[Sequence[Row]]:
    pooled = await tx.connection.get_raw_connection()
    connection = cast("psycopg.AsyncConnection[Any]", pooled.driver_connection)
    async with connection.cursor(name="whole_log", row_factory=lambda _: make) as cursor:
        await cursor.execute(statement, parameters, binary=True)
        coming = asyncio.create_task(cursor.fetchmany(CHUNK))
        try:
            while rows := await coming:
                coming = asyncio.create_task(cursor.fetchmany(CHUNK))
                # So that it is asked for before these are looked at: the server prepares the next meanwhile.
                await asyncio.sleep(0)
                yield rows
        finally:
            # Nobody else may use the connection before its answer is there.
            await asyncio.wait({coming})


async def count_astray(tx: Transaction) -> int:
    """Count what left the log into no archive."""
    row = await tx.fetch_one(text(_ASTRAY))
    return 0 if row is None else int(row[0])


_ASTRAY = """
SELECT count(*) FROM archived_record WHERE NOT EXISTS (
    SELECT FROM archive_segment WHERE leaf_index >= first_index AND leaf_index < end_index
)
"""


async def restored_otherwise(tx: Transaction) -> list[int]:
    """Return which restored records aren't those that left the log."""
    rows = await tx.fetch_all(text(_RESTORED_OTHERWISE))
    return [int(row.leaf_index) for row in rows]


_RESTORED_OTHERWISE = """
SELECT restored.leaf_index FROM restored_record restored LEFT JOIN archived_record archived USING (leaf_index)
WHERE (archived.leaf_hash, archived.producer, archived.pseq)
    IS DISTINCT FROM (restored.leaf_hash, restored.producer, restored.pseq)
ORDER BY restored.leaf_index LIMIT 100
"""
