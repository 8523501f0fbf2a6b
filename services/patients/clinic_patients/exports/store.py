"""Queries of exports, each on the open transaction it is given. Pieces lie as they came: sealed to the export's key."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.encryption.backlog import Kind
from clinic_shared.encryption.ciphers import Place
from clinic_shared.exporting import INCLUDED, TOO_LARGE, Piece
from sqlalchemy import Row, Uuid, cast, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_patients.exports.domain import Export, ExportState, PartState, Purpose
from clinic_patients.tables import patient_export, patient_export_piece

_LISTED = 100
_COLUMNS = [patient_export.c[name] for name in Export.__dataclass_fields__]
_KEY = "private_key"
ERASED = "erased"
"""Of a piece whose content was gone before it came here."""
_STATES = {INCLUDED: PartState.INCLUDED, TOO_LARGE: PartState.TOO_LARGE}


def _place(export_id: UUID) -> Place:
    return Place("patients", "patient_export", str(export_id))


EXPORT_KEYS = Kind(patient_export, lambda _, row: _place(row.export_id))


async def add(tx: Transaction, new: Export, private_key: bytes) -> None:
    sealed = tx.keyring.seal_row(_place(new.export_id), {_KEY: private_key})
    stored = {_KEY: sealed.values[_KEY], "data_key": sealed.data_key}
    await tx.execute(insert(patient_export).values(_values(new) | stored))


async def save(tx: Transaction, changed: Export) -> None:
    this = patient_export.c.export_id == changed.export_id
    await tx.execute(update(patient_export).where(this).values(_values(changed)))


async def destroy(tx: Transaction, export_id: UUID) -> None:
    """Destroy the key, and with it every copy of a piece that there is anywhere."""
    this = patient_export.c.export_id == export_id
    gone = {_KEY: None, "data_key": None, "state": ExportState.EXPIRED.value}
    await tx.execute(update(patient_export).where(this).values(gone))
    await tx.execute(delete(patient_export_piece).where(patient_export_piece.c.export_id == export_id))


async def lock(tx: Transaction, export_id: UUID) -> Export | None:
    one = select(*_COLUMNS).where(patient_export.c.export_id == export_id)
    row = await tx.fetch_one(one.with_for_update())
    return None if row is None else _export(row)


async def find(tx: Transaction, export_id: UUID) -> Export | None:
    row = await tx.fetch_one(select(*_COLUMNS).where(patient_export.c.export_id == export_id))
    return None if row is None else _export(row)


async def find_gathering(tx: Transaction, patient_id: UUID, requested_by: UUID) -> Export | None:
    columns = patient_export.c
    row = await tx.fetch_one(
        select(*_COLUMNS)
        .where(
            columns.patient_id == patient_id,
            columns.requested_by == requested_by,
            columns.state == ExportState.GATHERING.value,
        )
        .order_by(columns.export_id.desc())
        .limit(1)
    )
    return None if row is None else _export(row)


async def list_of(tx: Transaction, patient_id: UUID, requested_by: UUID) -> list[Export]:
    columns = patient_export.c
    rows = await tx.fetch_all(
        select(*_COLUMNS)
        .where(columns.patient_id == patient_id, columns.requested_by == requested_by)
        .order_by(columns.export_id.desc())
        .limit(_LISTED)
    )
    return [_export(row) for row in rows]


async def unexpired_of(tx: Transaction, patient_id: UUID) -> list[UUID]:
    """Return the exports that have something of a record in them, whichever record they were asked for."""
    columns = patient_export.c
    rows = await tx.fetch_all(
        select(columns.export_id)
        .where(
            columns.record_ids.op("@>")(cast(literal([patient_id], ARRAY(Uuid)), ARRAY(Uuid))),
            columns.state != ExportState.EXPIRED.value,
        )
        .order_by(columns.export_id)
        .with_for_update()
    )
    return [row.export_id for row in rows]


async def private_key_of(tx: Transaction, export_id: UUID) -> bytes | None:
    columns = patient_export.c
    row = await tx.fetch_one(
        select(columns.private_key, columns.data_key).where(columns.export_id == export_id)
    )
    if row is None or row.private_key is None:
        return None
    return tx.keyring.open_row(_place(export_id), row.data_key, {_KEY: row.private_key})[_KEY]


# -- parts


async def keep_piece(tx: Transaction, export_id: UUID, service: str, piece: Piece) -> None:
    row = {
        "export_id": export_id,
        "service": service,
        "number": piece.number,
        "piece_count": piece.count,
        "outcome": piece.outcome,
        "content": piece.content,
        "received_at": tx.now,
    }
    await tx.execute(upsert(patient_export_piece).values(row).on_conflict_do_nothing())


async def arrived(tx: Transaction, export_ids: Sequence[UUID]) -> Mapping[UUID, dict[str, PartState]]:
    """Return, by export, the services whose part is here whole, and whether it could be included.

    Of several outcomes of one part, ERASED sorts first.
    """
    columns = patient_export_piece.c
    rows = await tx.fetch_all(
        select(columns.export_id, columns.service, func.min(columns.outcome).label("outcome"))
        .where(columns.export_id.in_(export_ids))
        .group_by(columns.export_id, columns.service)
        .having(func.count() == func.max(columns.piece_count))
    )
    found: defaultdict[UUID, dict[str, PartState]] = defaultdict(dict)
    for row in rows:
        found[row.export_id][row.service] = _STATES.get(row.outcome, PartState.MISSING)
    return found


async def pieces_of(tx: Transaction, export_id: UUID) -> Mapping[str, list[bytes]]:
    """Return the pieces with content, by service, in their order."""
    columns = patient_export_piece.c
    rows = await tx.fetch_all(
        select(columns.service, columns.content)
        .where(columns.export_id == export_id, columns.content.is_not(None))
        .order_by(columns.service, columns.number)
    )
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    for row in rows:
        found[row.service].append(bytes(row.content))
    return found


def _values(export: Export) -> dict[str, Any]:
    lists = {"record_ids": list(export.record_ids), "awaited": list(export.awaited)}
    return asdict(export) | lists | {"state": export.state.value, "purpose": export.purpose.value}


def _export(row: Row[Any]) -> Export:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    return Export(**values | {"state": ExportState(row.state), "purpose": Purpose(row.purpose)})
