"""Two copies of a read model side by side: which rows differ, and a checksum of each.

A row counts by its text, so equal means equal bit for bit in every column.
"""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, Table, text

from clinic_shared.database import Transaction
from clinic_shared.rebuild import LIVE, SHADOW, ReadModel


@dataclass(frozen=True, kw_only=True)
class TableDifference:
    """Rows that only the rebuilt copy has, only the live one has, and that say something else."""

    table: str
    missing: int
    surplus: int
    different: int
    digest: str

    @property
    def count(self) -> int:
        return self.missing + self.surplus + self.different

    def document(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "digest"}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    differences: tuple[TableDifference, ...]
    checksum: str

    @property
    def count(self) -> int:
        return sum(difference.count for difference in self.differences)


async def compare(tx: Transaction, model: ReadModel) -> Comparison:
    """Compare the shadow copy with the live one, as both stand at one moment. Waits for nobody."""
    await tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    await tx.execute(text("SET LOCAL statement_timeout = '30min'"))
    found = [await _difference(tx, table) for table in sorted(model.tables, key=lambda table: table.name)]
    return Comparison(
        differences=tuple(difference for difference in found if difference.count),
        checksum=await checksum(tx, model, SHADOW),
    )


async def checksum(tx: Transaction, model: ReadModel, schema: str = LIVE) -> str:
    """Return a digest of every row of every table, whatever their order."""
    total = 0
    for position, name in enumerate(model.names):
        row = await _one(
            tx,
            f"SELECT coalesce(sum(hashtextextended(t::text, {position})), 0) AS digest "  # noqa: S608
            f'FROM {schema}."{name}" AS t',
        )
        total += int(row.digest)
    return f"{total % 2**64:016x}"


async def _difference(tx: Transaction, table: Table) -> TableDifference:
    keys = ", ".join(f'"{column.name}"' for column in table.primary_key.columns)
    first = next(iter(table.primary_key.columns)).name
    row = await _one(
        tx,
        f"""
        SELECT count(*) FILTER (WHERE live."{first}" IS NULL) AS missing,
               count(*) FILTER (WHERE shadow."{first}" IS NULL) AS surplus,
               count(*) FILTER (WHERE live."{first}" = shadow."{first}") AS different,
               coalesce(sum(hashtextextended(concat(live::text, '/', shadow::text), 0)), 0) AS digest
        FROM {LIVE}."{table.name}" AS live FULL JOIN {SHADOW}."{table.name}" AS shadow USING ({keys})
        WHERE live::text IS DISTINCT FROM shadow::text
        """,  # noqa: S608  # names of our own tables
    )
    return TableDifference(
        table=table.name,
        missing=row.missing,
        surplus=row.surplus,
        different=row.different,
        digest=str(row.digest),
    )


async def _one(tx: Transaction, statement: str) -> Row[Any]:
    return (await tx.execute(text(statement))).one()
