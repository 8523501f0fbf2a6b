"""Care relationships kept from events, and who is let at which patient's record because of them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from clinic_shared import care
from clinic_shared.database import Transaction
from clinic_shared.errors import ConcealedError
from clinic_shared.policy import Decision, Place, Reach, Record, current
from clinic_shared.policy_filters import Columns, visible
from clinic_shared.principal import Principal
from clinic_shared.projections import keep_newer
from sqlalchemy import ColumnElement, select

from clinic_patients import merge_store, store, tables
from clinic_patients.care_domain import CareRelationship
from clinic_patients.events import care_event


async def keep(tx: Transaction, relationships: Iterable[CareRelationship]) -> None:
    """Keep what a source says now of who has the patient in their care; tell of it when that is news."""
    for relationship in relationships:
        before = await _find(tx, relationship)
        values = vars(relationship) | {"kind": relationship.kind.value}
        if await keep_newer(tx, tables.care_relationship, values) and relationship.differs_from(before):
            tx.emit(care_event(relationship, now=tx.now))


async def _find(tx: Transaction, like: CareRelationship) -> Mapping[str, Any] | None:
    columns = tables.care_relationship.c
    row = await tx.fetch_one(
        select(tables.care_relationship)
        .where(columns.kind == like.kind.value, columns.source_id == like.source_id)
        .with_for_update()
    )
    return None if row is None else dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it


async def permit(tx: Transaction, patient_id: UUID, permission: str, *, caller: Principal) -> Decision:
    """Let the caller at a patient's record, for a reason that the audit is told.

    Raises ConcealedError: a patient who isn't there and one who isn't the caller's business answer the
    same, and are looked up the same.
    """
    known, centre_id = await store.find_centre_of_patient(tx, patient_id)
    records = await merge_store.records_of(tx, patient_id)
    relations = await care.relations_of(tx, tables.care_relationship, records)
    standing = await _standing(tx, caller, permission)
    if not known:
        raise ConcealedError(patient_id=patient_id)
    record = Record(
        patient_id=patient_id,
        places=[Place(centre_id=centre_id)],
        # Whoever treats one record of a person treats the person.
        relations=[one for record_id in records for one in relations.get(record_id, [])],
        follows_care=True,
    )
    return care.permit(standing, permission, record, now=tx.now)


async def visible_to(tx: Transaction, permission: str, *, caller: Principal) -> ColumnElement[bool]:
    """Return the condition that a patient is one that the caller may use the permission on."""
    patient = tables.patient.c
    columns = Columns(
        patient_id=patient.patient_id,
        places=[(patient.centre_id, None)],
        relations=tables.care_relationship,
        follows_care=True,
    )
    return visible(current(), await _standing(tx, caller, permission), permission, columns, now=tx.now)


async def explain(
    tx: Transaction, centre_ids: Mapping[UUID, UUID | None], permission: str, *, caller: Principal
) -> Mapping[UUID, Decision]:
    """Return, for patients of a list, why each of them is in it. They come with their centres."""
    relations = await care.relations_of(tx, tables.care_relationship, list(centre_ids))
    standing = await _standing(tx, caller, permission)
    return {
        patient_id: current().decide(
            standing,
            permission,
            Record(
                patient_id=patient_id,
                places=[Place(centre_id=centre_id)],
                relations=relations.get(patient_id, []),
                follows_care=True,
            ),
            now=tx.now,
        )
        for patient_id, centre_id in centre_ids.items()
    }


async def _standing(tx: Transaction, caller: Principal, permission: str) -> Principal:
    """Return the caller with the centres of their departments: patients are registered at centres."""
    if caller.network or Reach.DEPARTMENT not in current().reach_of(caller, permission):
        return caller
    own = await store.centres_of_departments(tx, caller.department_ids)
    return replace(caller, centre_ids=caller.centre_ids | own)
