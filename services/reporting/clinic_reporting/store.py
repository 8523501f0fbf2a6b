"""Reporting's storage beside the facts' figures (`cells.py`): the organisation, milestones, witnesses."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from clinic_shared.database import Transaction
from sqlalchemy import (
    Column,
    func,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert

from clinic_reporting import tables
from clinic_reporting.domain import (
    Centre,
    Department,
)

# -- keeping


async def add_witness(tx: Transaction, checkpoint: dict[str, Any]) -> None:
    """Store a checkpoint as it was first seen; nothing ever replaces it."""
    statement = insert(tables.checkpoint_witness).values(**checkpoint, witnessed_at=tx.now)
    await tx.execute(statement.on_conflict_do_nothing())


# -- the organisation


async def list_centres(tx: Transaction) -> list[Centre]:
    table = tables.centre
    rows = await tx.fetch_all(select(table.c.centre_id, table.c.name, table.c.time_zone))
    return [Centre(row.centre_id, row.name, ZoneInfo(row.time_zone)) for row in rows]


async def list_departments(tx: Transaction) -> list[Department]:
    table = tables.department
    rows = await tx.fetch_all(select(table.c.department_id, table.c.centre_id, table.c.name))
    return [Department(row.department_id, row.centre_id, row.name) for row in rows]


async def service_names(tx: Transaction, codes: Iterable[str]) -> dict[str, str]:
    table = tables.service
    rows = await tx.fetch_all(select(table.c.code, table.c.name).where(table.c.code.in_(list(codes))))
    return {row.code: row.name for row in rows}


async def newest(tx: Transaction, columns: Sequence[Column[Any]]) -> datetime | None:
    """Return the newest instant in any of the columns; None while nothing has been heard of."""
    parts = union_all(*(select(func.max(column).label("newest")) for column in columns)).subquery()
    row = await tx.fetch_one(select(func.max(parts.c.newest)))
    return None if row is None else row[0]


# -- witnesses


async def list_witnesses(
    tx: Transaction, *, after: tuple[datetime, UUID, str] | None, limit: int
) -> Sequence[Any]:
    """Return checkpoints, the newest first."""
    table = tables.checkpoint_witness
    key = func.row(table.c.signed_at, table.c.checkpoint_id, table.c.root_hash)
    statement = select(table).order_by(
        table.c.signed_at.desc(), table.c.checkpoint_id.desc(), table.c.root_hash.desc()
    )
    if after is not None:
        statement = statement.where(key < func.row(*after))
    return await tx.fetch_all(statement.limit(limit))


async def list_forks(tx: Transaction) -> Sequence[Any]:
    """Return sizes of a log for which different root hashes were signed: proof that it was rewritten."""
    table = tables.checkpoint_witness.c
    return await tx.fetch_all(
        select(
            table.log_origin,
            table.tree_size,
            func.array_agg(table.root_hash.distinct()).label("root_hashes"),
        )
        .group_by(table.log_origin, table.tree_size)
        .having(func.count(table.root_hash.distinct()) > 1)
        .order_by(table.log_origin, table.tree_size)
        .limit(100)
    )
