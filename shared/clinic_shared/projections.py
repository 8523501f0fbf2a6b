"""Keeping other services' aggregates: upserted as they are now, by newer versions only.

Events carry the aggregate's resulting state, so a projection needs no gap filling, and an event that
arrives late changes nothing. Rows of a read model (`Kept`) merge by a rule for which neither order nor
repetition matters: whatever is told in whatever order, twice or by a replay, ends in the same rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import orjson
from sqlalchemy import Table, TextClause, text
from sqlalchemy.dialects.postgresql import Insert, insert

from clinic_shared.bulk import InsertRows, excluded
from clinic_shared.database import Transaction


async def keep_newer(transaction: Transaction, table: Table, values: dict[str, Any]) -> bool:
    """Store the row unless a newer or the same `version` of it is there; returns whether it was stored."""
    statement = _newer_wins(table, tuple(values)).values(values)
    return await transaction.fetch_one(statement.returning(table.c.version)) is not None


def keep_newer_later(transaction: Transaction, table: Table, values: dict[str, Any]) -> None:
    """Store the row as `keep_newer` does, where nobody asks whether it was: with those of other messages."""
    transaction.write_later(_keep_newer_rows(table, tuple(values)), values)


@lru_cache(maxsize=256)
def _keep_newer_rows(table: Table, names: tuple[str, ...]) -> InsertRows:
    keys = {column.name for column in table.primary_key.columns}
    changes = excluded([name for name in names if name not in keys])
    return InsertRows(table, named=names, replacing=changes, where="kept.version < excluded.version")


@lru_cache(maxsize=256)
def _newer_wins(table: Table, names: tuple[str, ...]) -> Insert:
    keys = [column.name for column in table.primary_key.columns]
    statement = insert(table)
    return statement.on_conflict_do_update(
        index_elements=keys,
        set_={name: statement.excluded[name] for name in names if name not in keys},
        where=table.c.version < statement.excluded.version,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A row that an event leaves in a read model: of each key the newest, or the earliest, stays.

    `values` names every column. Without `earliest` (the column that decides), the greater `version` wins.
    """

    table: Table
    values: Mapping[str, Any]
    earliest: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        return tuple(self.values[column.name] for column in self.table.primary_key.columns)

    def outdoes(self, other: "Kept") -> bool:
        if self.earliest is not None:
            return bool(self.values[self.earliest] < other.values[self.earliest])
        return bool(self.values["version"] > other.values["version"])


async def keep_in_read_model(tx: Transaction, rows: Sequence[Kept]) -> None:
    """Keep rows in the live read model, and in a copy that is being built or kept to roll back to.

    They are written before the commit, with those of all other messages of the transaction.
    """
    waiting: list[Kept] | None = tx.known.get(_WAITING)
    if waiting is None:
        waiting = tx.known[_WAITING] = []
        tx.write_last(partial(_keep_all, tx, waiting))
    waiting.extend(rows)


async def _keep_all(tx: Transaction, rows: Sequence[Kept]) -> None:
    copies = (await tx.execute(_GATE)).scalar_one()
    await keep(tx, rows)
    for copy in copies:
        await keep(tx, rows, schema=copy)


_WAITING = "read-model"
_GATE = text("SELECT read_model_gate()")


async def keep(tx: Transaction, rows: Iterable[Kept], *, schema: str | None = None) -> None:
    """Merge rows into their tables, those of one table with one statement.

    Tables and keys are always taken in the same order, so that two who do this never wait for each other.
    """
    folded: dict[tuple[str, str | None], dict[tuple[Any, ...], Kept]] = {}
    tables: dict[str, Table] = {}
    for row in rows:
        tables[row.table.name] = row.table
        of_table = folded.setdefault((row.table.name, row.earliest), {})
        before = of_table.get(row.key)
        if before is None or row.outdoes(before):
            of_table[row.key] = row
    for (name, earliest), by_key in sorted(folded.items(), key=lambda item: item[0][0]):
        values = [dict(by_key[key].values) for key in sorted(by_key)]
        await tx.execute(_upsert(tables[name], schema, earliest), {"rows": orjson.dumps(values).decode()})


@lru_cache(maxsize=256)
def _upsert(table: Table, schema: str | None, earliest: str | None) -> TextClause:
    # JSON, because one statement then does for any number of rows and every type of column.
    name = f'"{schema}"."{table.name}"' if schema else f'"{table.name}"'
    columns = [f'"{column.name}"' for column in table.columns]
    keys = [f'"{column.name}"' for column in table.primary_key.columns]
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in keys)
    decides = f'kept."{earliest}" > excluded."{earliest}"' if earliest else "kept.version < excluded.version"
    listed = ", ".join(columns)
    return text(
        f"INSERT INTO {name} AS kept ({listed}) "  # noqa: S608  # names of our own tables
        f"SELECT {listed} FROM json_populate_recordset(NULL::{name}, CAST(:rows AS json)) "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes} WHERE {decides}"
    )
