"""Patients who are one person, as patients tells: who replaces whom now."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.projections import keep_newer
from sqlalchemy import select, text

from clinic_lab_integration.domain import Identifier
from clinic_lab_integration.tables import patient_identifier, patient_merge

# Merges arrive in any order, so for a moment they may seem to lead in a circle: no chain is followed further.
_LONGEST_CHAIN = 8
_SURVIVORS = text("""
    WITH RECURSIVE chain AS (
        SELECT source_id AS patient_id, target_id AS survivor, 1 AS steps FROM patient_merge
        WHERE in_force AND source_id = ANY(CAST(:patient_ids AS uuid[]))
        UNION
        SELECT c.patient_id, m.target_id, c.steps + 1
        FROM chain c JOIN patient_merge m ON m.source_id = c.survivor AND m.in_force
        WHERE c.steps < :longest
    )
    SELECT DISTINCT ON (patient_id) patient_id, survivor FROM chain ORDER BY patient_id, steps DESC
""")
_ABSORBED = text("""
    WITH RECURSIVE chain AS (
        SELECT target_id AS patient_id, source_id AS absorbed, 1 AS steps FROM patient_merge
        WHERE in_force AND target_id = ANY(CAST(:patient_ids AS uuid[]))
        UNION
        SELECT c.patient_id, m.source_id, c.steps + 1
        FROM chain c JOIN patient_merge m ON m.target_id = c.absorbed AND m.in_force
        WHERE c.steps < :longest
    )
    SELECT DISTINCT patient_id, absorbed FROM chain
""")


@dataclass(frozen=True, kw_only=True)
class Merge:
    """`source` is replaced by `target` while it is in force."""

    merge_id: UUID
    version: int
    source_id: UUID
    target_id: UUID
    in_force: bool


async def keep(tx: Transaction, merge: Merge) -> bool:
    """Keep a merge as it is now; False when that is known, or something newer."""
    return await keep_newer(tx, patient_merge, dict(vars(merge)))


async def survivors_of(tx: Transaction, patient_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Return, of those of these patients who were replaced, the record that is in use."""
    if not patient_ids:
        return {}
    asked = {"patient_ids": list(patient_ids), "longest": _LONGEST_CHAIN}
    return {row.patient_id: row.survivor for row in await tx.fetch_all(_SURVIVORS, asked)}


async def survivor_of(tx: Transaction, patient_id: UUID) -> UUID:
    return (await survivors_of(tx, [patient_id])).get(patient_id, patient_id)


async def absorbed_by(tx: Transaction, patient_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Return the records that these patients have replaced, each with the one that replaced it."""
    if not patient_ids:
        return {}
    asked = {"patient_ids": list(patient_ids), "longest": _LONGEST_CHAIN}
    return {row.absorbed: row.patient_id for row in await tx.fetch_all(_ABSORBED, asked)}


async def identifiers_of(tx: Transaction, patient_ids: Collection[UUID]) -> list[Identifier]:
    columns = patient_identifier.c
    rows = await tx.fetch_all(
        select(columns.authority, columns.value)
        .where(columns.patient_id.in_(patient_ids))
        .order_by(columns.authority, columns.value)
    )
    return [Identifier(row.authority, row.value) for row in rows]
