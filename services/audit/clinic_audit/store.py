"""Audit's queries, each on the open transaction it is given."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7
from sqlalchemy import func, insert, select, text, update

from clinic_audit.domain import Checkpoint, Tree
from clinic_audit.tables import audit_record, checkpoint, incident, tree
from clinic_audit.witnessing import Statement

if TYPE_CHECKING:
    import psycopg

CHUNK = 1000


async def lock_tree(tx: Transaction) -> Tree:
    """Lock the log for appending: indexes are given out one batch after the other."""
    row = await tx.fetch_one(select(tree).with_for_update())
    return Tree() if row is None else Tree(row.size, tuple(row.subtrees))


async def read_tree(tx: Transaction) -> Tree:
    row = await tx.fetch_one(select(tree))
    return Tree() if row is None else Tree(row.size, tuple(row.subtrees))


async def save_tree(tx: Transaction, grown: Tree) -> None:
    await tx.execute(update(tree).values(size=grown.size, subtrees=list(grown.subtrees)))


async def known_leaves(tx: Transaction, keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
    """Return the leaf hashes that these (producer, pseq) have in the log already."""
    asked = text(_KNOWN).bindparams(producers=[key[0] for key in keys], numbers=[key[1] for key in keys])
    rows = (await tx.execute(asked)).all()
    return {(row.producer, row.pseq): row.leaf_hash for row in rows}


_KNOWN = """
WITH asked (producer, pseq) AS (
    SELECT * FROM unnest(CAST(:producers AS text[]), CAST(:numbers AS bigint[]))
)
SELECT producer, pseq, leaf_hash FROM asked JOIN ONLY audit_record USING (producer, pseq)
UNION ALL
SELECT producer, pseq, leaf_hash FROM asked JOIN archived_record USING (producer, pseq)
"""
"""Arrays, so that a batch of any size is one prepared statement."""


async def append(tx: Transaction, rows: Sequence[Mapping[str, Any]], *, table: str = "audit_record") -> None:
    """Append by COPY, which takes a third of what inserting takes here and in the server."""
    pooled = await tx.connection.get_raw_connection()
    connection = cast("psycopg.AsyncConnection[Any]", pooled.driver_connection)
    async with connection.cursor() as cursor, cursor.copy(_APPEND.format(table=table)) as copy:
        for row in rows:
            await copy.write_row([row[name] for name in _APPENDED])


_APPENDED = tuple(audit_record.columns.keys())
_APPEND = f"COPY {{table}} ({', '.join(_APPENDED)}) FROM STDIN"


async def add_incident(
    tx: Transaction, kind: str, *, producer: str | None, pseq: int | None, record: bytes
) -> None:
    """Keep what can't go into the log. A redelivery of the same only counts."""
    same = (incident.c.kind == kind) & (incident.c.record == record)
    again = await tx.fetch_one(
        update(incident)
        .where(same)
        .values(occurrences=incident.c.occurrences + 1)
        .returning(incident.c.incident_id)
    )
    if again is None:
        await tx.execute(
            insert(incident).values(
                incident_id=uuid7(),
                kind=kind,
                producer=producer,
                pseq=pseq,
                record=record,
                received_at=tx.now,
                occurrences=1,
            )
        )


async def count_incidents(tx: Transaction) -> int:
    row = await tx.fetch_one(select(func.count()).select_from(incident))
    return 0 if row is None else int(row[0])


async def last_checkpoint_size(tx: Transaction) -> int:
    row = await tx.fetch_one(select(func.coalesce(func.max(checkpoint.c.tree_size), 0)))
    return 0 if row is None else int(row[0])


async def add_checkpoint(tx: Transaction, signed: Checkpoint) -> None:
    await tx.execute(insert(checkpoint).values(**vars(signed)))


async def list_checkpoints(tx: Transaction) -> list[Checkpoint]:
    rows = await tx.fetch_all(select(checkpoint).order_by(checkpoint.c.tree_size))
    return [Checkpoint(**row._mapping) for row in rows]  # noqa: SLF001  # SQLAlchemy's public name for it


async def next_statements(tx: Transaction, size: int, *, limit: int = 10) -> list[Statement]:
    """Return the next checkpoints beyond a size, each with the leaf hashes that it is the first to cover."""
    rows = await tx.fetch_all(
        select(checkpoint).where(checkpoint.c.tree_size > size).order_by(checkpoint.c.tree_size).limit(limit)
    )
    found: list[Statement] = []
    for row in rows:
        signed = Checkpoint(**row._mapping)  # noqa: SLF001  # as above
        leaves = await tx.fetch_all(text(_LEAVES), {"first": size, "end": signed.tree_size})
        found.append(Statement(signed, [bytes(leaf.leaf_hash) for leaf in leaves]))
        size = signed.tree_size
    return found


_LEAVES = """
SELECT leaf_index, leaf_hash FROM ONLY audit_record WHERE leaf_index >= :first AND leaf_index < :end
UNION ALL
SELECT leaf_index, leaf_hash FROM archived_record WHERE leaf_index >= :first AND leaf_index < :end
ORDER BY leaf_index
"""


async def get_checkpoint(tx: Transaction, size: int) -> Checkpoint | None:
    row = await tx.fetch_one(select(checkpoint).where(checkpoint.c.tree_size == size))
    return None if row is None else Checkpoint(**row._mapping)  # noqa: SLF001  # as above


async def stream_since(tx: Transaction, since: datetime, *, at_most: int) -> AsyncIterator[bytes]:
    """Yield the bytes of what was recorded since then, the newest first."""
    before, left = None, at_most
    while left > 0:
        statement = (
            select(audit_record.c.leaf_index, audit_record.c.record)
            .where(audit_record.c.recorded_at >= since)
            .order_by(audit_record.c.leaf_index.desc())
            .limit(min(CHUNK, left))
        )
        if before is not None:
            statement = statement.where(audit_record.c.leaf_index < before)
        rows = await tx.fetch_all(statement)
        if not rows:
            return
        for row in rows:
            yield row.record
        before, left = rows[-1].leaf_index, left - len(rows)
