"""Who reaches what of a laboratory's work: results the patient and those who treat them, orders also their place."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from clinic_shared import care
from clinic_shared.database import Transaction
from clinic_shared.errors import ConcealedError
from clinic_shared.policy import Decision, Place, Record, current
from clinic_shared.policy_filters import Columns, visible
from clinic_shared.principal import Principal
from sqlalchemy import ColumnElement

from clinic_lab_integration import tables
from clinic_lab_integration.store import LabOrder

RESULTS, ORDERS = "results.read", "lab-orders.read"

_ORDER = tables.lab_order.c
_ORDERS = Columns(
    patient_id=_ORDER.patient_id,
    owner_ids=[_ORDER.practitioner_id],
    places=[(_ORDER.centre_id, _ORDER.department_id)],
    relations=tables.care_relationship,
)


async def permit_results(tx: Transaction, patient_id: UUID, *, caller: Principal) -> Decision:
    """Raises ConcealedError."""
    relations = await care.relations_of_person(tx, tables.care_relationship, patient_id)
    record = Record(patient_id=patient_id, relations=relations)
    return care.permit(caller, RESULTS, record, now=tx.now)


async def permit_order(
    tx: Transaction, order: LabOrder | None, *, caller: Principal
) -> tuple[LabOrder, Decision]:
    """Return the order, and why the caller may know of it. Raises ConcealedError."""
    if order is None:
        raise ConcealedError
    record = Record(
        patient_id=order.patient_id,
        owner_ids=[order.practitioner_id],
        places=[Place(centre_id=order.centre_id, department_id=order.department_id)],
        relations=await care.relations_of_person(tx, tables.care_relationship, order.patient_id),
    )
    return order, care.permit(caller, ORDERS, record, now=tx.now)


def visible_orders(tx: Transaction, *, caller: Principal, person: Sequence[UUID] = ()) -> ColumnElement[bool]:
    """Return the condition of a list; of one about a single person, `person` names all their records."""
    return visible(current(), caller, ORDERS, replace(_ORDERS, person=person), now=tx.now)
