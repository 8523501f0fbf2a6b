"""The queries that look for whom an unmatched group may be about."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import asdict
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_lab_integration import protection
from clinic_lab_integration.candidates import Known, Person, Reason
from clinic_lab_integration.domain import Identifier
from clinic_lab_integration.tables import lab_order, patient, patient_identifier

_ENOUGH = 200
"""Of a common name, or a common birth date: a person doesn't read more, and the likeliest have both."""


async def find_known(
    tx: Transaction,
    sent: Person,
    *,
    identifiers: Collection[Identifier],
    numbers: Collection[str],
    order_numbers: Collection[str],
) -> list[Known]:
    """Return patients who share something with what was sent; `numbers` are all that came, whoever gave them."""
    found_by: defaultdict[UUID, set[Reason]] = defaultdict(set)
    wanted = {(i.authority, i.value) for i in identifiers}
    same_number = select(patient_identifier).where(
        patient_identifier.c.value.in_(protection.all_forms(tx, numbers))
    )
    for row in await tx.fetch_all(same_number.limit(_ENOUGH)):
        number = protection.opened_number(tx, row)
        same = (number.authority, number.value) in wanted
        found_by[row.patient_id].add(Reason.SAME_IDENTIFIER if same else Reason.NUMBER_OF_ANOTHER_AUTHORITY)
    named = select(lab_order.c.patient_id).where(lab_order.c.placer_order_number.in_(sorted(order_numbers)))
    for row in await tx.fetch_all(named):
        found_by[row.patient_id].add(Reason.ORDER)
    return await _known(tx, sent, found_by)


async def _known(tx: Transaction, sent: Person, found_by: dict[UUID, set[Reason]]) -> list[Known]:
    columns = patient.c
    alike: list[ColumnElement[bool]] = [columns.patient_id.in_(found_by)]
    if sent.family_key and sent.given_key:
        alike.append(protection.has_name_of(tx, sent))
    if sent.family_key and sent.birth_on is not None:
        alike.append(protection.has_birth_date_of(tx, sent))
    rows = await tx.fetch_all(select(patient).where(columns.active, or_(*alike)).limit(_ENOUGH))
    return [
        Known(
            patient_id=row.patient_id,
            person=protection.person_of(tx, row),
            found_by=frozenset(found_by.get(row.patient_id, ())),
        )
        for row in rows
    ]


async def add_requested(tx: Transaction, patient_id: UUID, person: Person) -> None:
    """Know a patient who is about to be registered, under the id that they will have."""
    requested = {"patient_id": patient_id, "version": 0, "active": True, **asdict(person)}
    await tx.execute(upsert(patient).values(protection.stored_person(tx, requested)).on_conflict_do_nothing())
