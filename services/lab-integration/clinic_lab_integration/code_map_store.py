"""The queries of code maps, of what they lack, and of panic ranges."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7
from sqlalchemy import Row, and_, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_lab_integration.meaning import CodeMap, MapKind, PanicRange, SourceCode, Target
from clinic_lab_integration.tables import code_map_entry, code_map_version, panic_range, unmapped_code


async def current_version(tx: Transaction, partner_id: UUID) -> int:
    row = await tx.fetch_one(
        select(func.coalesce(func.max(code_map_version.c.version), 0).label("version")).where(
            code_map_version.c.partner_id == partner_id
        )
    )
    return int(row.version) if row else 0


async def read_map(tx: Transaction, partner_id: UUID, version: int) -> CodeMap:
    rows = await tx.fetch_all(
        select(code_map_entry).where(code_map_entry.c.partner_id == partner_id, _holds_in(version))
    )
    return CodeMap(version, {_source(row): _target(row) for row in rows})


async def list_entries(
    tx: Transaction, partner_id: UUID, version: int, *, after: UUID | None, limit: int
) -> Sequence[Row[Any]]:
    statement = select(code_map_entry).where(code_map_entry.c.partner_id == partner_id, _holds_in(version))
    if after is not None:
        statement = statement.where(code_map_entry.c.entry_id > after)
    return await tx.fetch_all(statement.order_by(code_map_entry.c.entry_id).limit(limit))


def _holds_in(version: int) -> Any:
    until = code_map_entry.c.until_version
    return and_(code_map_entry.c.since_version <= version, or_(until.is_(None), until > version))


async def add_version(
    tx: Transaction,
    partner_id: UUID,
    version: int,
    changes: Mapping[SourceCode, Target | None],
    *,
    changed_by: UUID,
) -> None:
    """End the entries that change, and add what replaces them. The partner is locked."""
    await tx.execute(
        insert(code_map_version).values(
            partner_id=partner_id, version=version, changed_at=tx.now, changed_by=changed_by
        )
    )
    await tx.execute(
        update(code_map_entry)
        .where(
            code_map_entry.c.partner_id == partner_id,
            code_map_entry.c.until_version.is_(None),
            _named(code_map_entry, changes),
        )
        .values(until_version=version)
    )
    rows = [
        {
            "entry_id": uuid7(),
            "partner_id": partner_id,
            **_key(source),
            "since_version": version,
            "code": target.code,
            "display": target.display,
            "unit": target.unit,
        }
        for source, target in changes.items()
        if target is not None
    ]
    if rows:
        await tx.execute(insert(code_map_entry), rows)
    mapped = [source for source, target in changes.items() if target is not None]
    if mapped:
        await tx.execute(
            delete(unmapped_code).where(
                unmapped_code.c.partner_id == partner_id, _named(unmapped_code, mapped)
            )
        )


def _named(table: Any, sources: Iterable[SourceCode]) -> Any:
    key = tuple_(table.c.kind, table.c.source_system, table.c.source_code)
    return key.in_([(s.kind.value, s.system, s.code) for s in sources])


# -- what nobody has mapped


async def add_unmapped(
    tx: Transaction, partner_id: UUID, codes: Mapping[SourceCode, str | None], *, message_id: UUID
) -> None:
    rows = [
        {
            "unmapped_id": uuid7(),
            "partner_id": partner_id,
            **_key(source),
            "display": codes[source],
            "message_id": message_id,
            "seen_at": tx.now,
        }
        for source in sorted(codes, key=lambda s: (s.kind.value, s.system, s.code))
    ]
    await tx.execute(upsert(unmapped_code).on_conflict_do_nothing(), rows)


async def list_unmapped(
    tx: Transaction, *, partner_id: UUID | None, after: UUID | None, limit: int
) -> Sequence[Row[Any]]:
    """Return them in the order in which they were met."""
    columns = unmapped_code.c
    statement = select(unmapped_code).order_by(columns.unmapped_id).limit(limit)
    if partner_id is not None:
        statement = statement.where(columns.partner_id == partner_id)
    if after is not None:
        statement = statement.where(columns.unmapped_id > after)
    return await tx.fetch_all(statement)


# -- panic ranges


async def panic_ranges(tx: Transaction) -> dict[str, PanicRange]:
    rows = await list_panic_ranges(tx)
    return {row.code: PanicRange(row.code, row.unit, row.low, row.high) for row in rows}


async def list_panic_ranges(tx: Transaction) -> Sequence[Row[Any]]:
    return await tx.fetch_all(select(panic_range).order_by(panic_range.c.code))


async def find_panic_range(tx: Transaction, code: str) -> Row[Any] | None:
    return await tx.fetch_one(select(panic_range).where(panic_range.c.code == code).with_for_update())


async def save_panic_range(
    tx: Transaction, changed: PanicRange, *, version: int, display: str | None
) -> None:
    values = {**vars(changed), "version": version, "display": display, "changed_at": tx.now}
    await tx.execute(
        upsert(panic_range).values(values).on_conflict_do_update(index_elements=["code"], set_=values)
    )


async def delete_panic_range(tx: Transaction, code: str) -> None:
    await tx.execute(delete(panic_range).where(panic_range.c.code == code))


# -- rows to values


def _key(source: SourceCode) -> dict[str, str]:
    return {"kind": source.kind.value, "source_system": source.system, "source_code": source.code}


def _source(row: Row[Any]) -> SourceCode:
    return SourceCode(MapKind(row.kind), row.source_system, row.source_code)


def _target(row: Row[Any]) -> Target:
    return Target(code=row.code, display=row.display, unit=row.unit)
