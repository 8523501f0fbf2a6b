"""Keeping other services' aggregates: upserted as they are now, by newer versions only.

Events carry the aggregate's resulting state, so a projection needs no gap filling, and an event that
arrives late changes nothing.
"""

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects.postgresql import insert

from clinic_shared.database import Transaction


async def keep_newer(transaction: Transaction, table: Table, values: dict[str, Any]) -> bool:
    """Store the row unless a newer or the same `version` of it is there; returns whether it was stored."""
    keys = [column.name for column in table.primary_key.columns]
    statement = insert(table).values(values)
    row = await transaction.fetch_one(
        statement.on_conflict_do_update(
            index_elements=keys,
            set_={name: statement.excluded[name] for name in values if name not in keys},
            where=table.c.version < statement.excluded.version,
        ).returning(table.c.version)
    )
    return row is not None
