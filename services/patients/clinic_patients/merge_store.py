"""Queries of merges, each on the open transaction it is given."""

from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import Row, or_, select, text, update

from clinic_patients.merge_domain import Links, Merge, MergeState
from clinic_patients.tables import patient_merge

_IN_FORCE = MergeState.APPROVED.value
_LISTED = 200

# Up to the record that replaces all others, then down to all that it replaces.
_RECORDS = text("""
    WITH RECURSIVE up AS (
        SELECT CAST(:patient_id AS uuid) AS patient_id
        UNION SELECT m.target_id FROM patient_merge m JOIN up ON m.source_id = up.patient_id
              WHERE m.state = 'approved'
    ), one_person AS (
        SELECT patient_id FROM up
        UNION SELECT m.source_id FROM patient_merge m JOIN one_person p ON m.target_id = p.patient_id
              WHERE m.state = 'approved'
    )
    SELECT patient_id FROM one_person ORDER BY patient_id
""")


async def records_of(tx: Transaction, patient_id: UUID) -> list[UUID]:
    """Return the ids of all records of the person, this one included, in one order for everybody."""
    return [row.patient_id for row in await tx.fetch_all(_RECORDS, {"patient_id": patient_id})]


async def links_of(tx: Transaction, patient_id: UUID) -> Links:
    columns = patient_merge.c
    rows = await tx.fetch_all(
        select(columns.source_id, columns.target_id)
        .where(
            columns.state == _IN_FORCE,
            or_(columns.source_id == patient_id, columns.target_id == patient_id),
        )
        .order_by(columns.decided_at, columns.decision_id)
    )
    return Links(
        replaced_by=next((row.target_id for row in rows if row.source_id == patient_id), None),
        replaces=[row.source_id for row in rows if row.target_id == patient_id],
    )


async def find(tx: Transaction, merge_id: UUID) -> Merge | None:
    row = await tx.fetch_one(select(patient_merge).where(patient_merge.c.decision_id == merge_id))
    return None if row is None else _merge(row)


async def lock(tx: Transaction, merge_id: UUID) -> Merge | None:
    one = select(patient_merge).where(patient_merge.c.decision_id == merge_id)
    row = await tx.fetch_one(one.with_for_update())
    return None if row is None else _merge(row)


async def list_of(tx: Transaction, patient_id: UUID) -> list[Merge]:
    columns = patient_merge.c
    rows = await tx.fetch_all(
        select(patient_merge)
        .where(or_(columns.source_id == patient_id, columns.target_id == patient_id))
        .order_by(columns.decision_id.desc())
        .limit(_LISTED)
    )
    return [_merge(row) for row in rows]


async def undo(tx: Transaction, merge_id: UUID, *, reason: str) -> None:
    await tx.execute(
        update(patient_merge)
        .where(patient_merge.c.decision_id == merge_id)
        .values(
            state=MergeState.UNDONE.value,
            version=patient_merge.c.version + 1,
            undone_by=tx.context.principal.subject,
            undone_at=tx.now,
            undo_reason=reason,
        )
    )


def _merge(row: Row[Any]) -> Merge:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    return Merge(merge_id=values.pop("decision_id"), **values | {"state": MergeState(row.state)})
