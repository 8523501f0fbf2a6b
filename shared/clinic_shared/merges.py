"""Patients who are one person, kept as patients tells: who replaces whom now.

A service that keeps this declares `patient_merge_table` in its own metadata, with a migration of the same shape.
"""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import BigInteger, Boolean, Column, MetaData, Row, Table, TextClause, Uuid, text

from clinic_shared.database import Transaction
from clinic_shared.projections import keep_newer

TOLD_BY = ("patients.patients-merged.v1", "patients.patients-unmerged.v1")

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


def patient_merge_table(metadata: MetaData) -> Table:
    return Table(
        "patient_merge",
        metadata,
        Column("merge_id", Uuid, primary_key=True),
        Column("version", BigInteger, nullable=False),
        Column("source_id", Uuid, nullable=False),
        Column("target_id", Uuid, nullable=False),
        Column("in_force", Boolean, nullable=False),
    )


class ToldMerge(BaseModel):
    """`source` is replaced by `target` while the status is `merged`."""

    merge_id: UUID
    version: int
    status: str
    source_patient_id: UUID
    target_patient_id: UUID

    @property
    def both(self) -> list[UUID]:
        return [self.source_patient_id, self.target_patient_id]


async def keep_told(tx: Transaction, table: Table, told: ToldMerge) -> bool:
    """Keep a merge as it is now; False when that is known, or something newer."""
    row = {
        "merge_id": told.merge_id,
        "version": told.version,
        "source_id": told.source_patient_id,
        "target_id": told.target_patient_id,
        "in_force": told.status == "merged",
    }
    return await keep_newer(tx, table, row)


async def survivors_of(tx: Transaction, patient_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Return, of those of these patients who were replaced, the record that is in use."""
    rows = await _chains(tx, _SURVIVORS, patient_ids)
    return {row.patient_id: row.survivor for row in rows}


async def survivor_of(tx: Transaction, patient_id: UUID) -> UUID:
    return (await survivors_of(tx, [patient_id])).get(patient_id, patient_id)


async def are_one_person(tx: Transaction, one: UUID, other: UUID) -> bool:
    return one == other or await survivor_of(tx, one) == await survivor_of(tx, other)


async def records_of(tx: Transaction, patient_id: UUID) -> list[UUID]:
    """Return all records of the person, this one included, in one order for everybody."""
    survivor = await survivor_of(tx, patient_id)
    return sorted({patient_id, survivor, *await absorbed_by(tx, [survivor])})


async def absorbed_by(tx: Transaction, patient_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Return the records that these patients have replaced, each with the one that replaced it."""
    rows = await _chains(tx, _ABSORBED, patient_ids)
    return {row.absorbed: row.patient_id for row in rows}


async def _chains(tx: Transaction, statement: TextClause, patient_ids: Collection[UUID]) -> list[Row[Any]]:
    if not patient_ids:
        return []
    asked = {"patient_ids": list(patient_ids), "longest": _LONGEST_CHAIN}
    return list(await tx.fetch_all(statement, asked))
