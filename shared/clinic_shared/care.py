"""Care relationships, where a service keeps them: who has which patient in their care, from when until when.

patients derives them from what happens to a patient and tells of each; other services keep what it tells.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import BigInteger, Column, DateTime, MetaData, Row, Table, Text, Uuid, select

from clinic_shared import merges
from clinic_shared.database import Transaction
from clinic_shared.errors import ConcealedError
from clinic_shared.policy import Decision, Record, Relation, current
from clinic_shared.principal import Principal
from clinic_shared.projections import keep_newer


def care_relationship_table(metadata: MetaData) -> Table:
    """Make the table; the service's migrations make it in the database, with an index on the patient."""
    return Table(
        "care_relationship",
        metadata,
        Column("kind", Text, primary_key=True),
        Column("source_id", Uuid, primary_key=True),
        Column("version", BigInteger, nullable=False),
        Column("patient_id", Uuid, nullable=False),
        Column("practitioner_id", Uuid),
        Column("centre_id", Uuid),
        Column("department_id", Uuid),
        Column("begins_at", DateTime(timezone=True), nullable=False),
        Column("ends_at", DateTime(timezone=True)),
    )


class ToldRelationship(BaseModel):
    """What patients tells of one (CareRelationshipStarted, CareRelationshipEnded)."""

    kind: str
    source_id: UUID
    version: int
    patient_id: UUID
    practitioner_id: UUID | None
    centre_id: UUID | None
    department_id: UUID | None
    begins_at: datetime
    ends_at: datetime | None


async def keep_told(tx: Transaction, table: Table, told: ToldRelationship) -> None:
    await keep_newer(tx, table, told.model_dump())


async def relations_of(
    tx: Transaction, table: Table, patient_ids: Collection[UUID]
) -> Mapping[UUID, list[Relation]]:
    """Return what isn't over yet, whoever it concerns, by patient."""
    columns = table.c
    rows = await tx.fetch_all(
        select(table).where(
            columns.patient_id.in_(patient_ids), columns.ends_at.is_(None) | (columns.ends_at > tx.now)
        )
    )
    found: defaultdict[UUID, list[Relation]] = defaultdict(list)
    for row in rows:
        found[row.patient_id].append(_relation(row))
    return found


async def relations_of_person(tx: Transaction, table: Table, patient_id: UUID) -> list[Relation]:
    """Return those of all the person's records: whoever treats one of them treats the person."""
    of_records = await relations_of(tx, table, await merges.records_of(tx, patient_id))
    return [relation for relations in of_records.values() for relation in relations]


def permit(caller: Principal, permission: str, record: Record, *, now: datetime) -> Decision:
    """Decide by the policy, or refuse like an absence. Raises ConcealedError."""
    decision = current().decide(caller, permission, record, now=now)
    if not decision.allowed:
        raise ConcealedError(patient_id=record.patient_id, explanation=decision.explained())
    return decision


def _relation(row: Row[Any]) -> Relation:
    return Relation(
        kind=row.kind,
        source_id=row.source_id,
        practitioner_id=row.practitioner_id,
        centre_id=row.centre_id,
        department_id=row.department_id,
        begins_at=row.begins_at,
        ends_at=row.ends_at,
    )
