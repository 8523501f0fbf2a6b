"""Who reaches which appointment: its patient, its practitioner, who treats the patient, the desk of its place."""

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

from clinic_scheduling import tables
from clinic_scheduling.domain import Appointment

_APPOINTMENT = tables.appointment.c
_COLUMNS = Columns(
    patient_id=_APPOINTMENT.patient_id,
    owner_ids=[_APPOINTMENT.practitioner_id],
    places=[(_APPOINTMENT.centre_id, _APPOINTMENT.department_id)],
    relations=tables.care_relationship,
)


async def permit(
    tx: Transaction, appointment: Appointment | None, permission: str, *, caller: Principal
) -> Decision:
    """Raises ConcealedError, for an appointment that isn't there too."""
    if appointment is None:
        raise ConcealedError
    record = Record(
        patient_id=appointment.patient_id,
        owner_ids=[appointment.practitioner_id],
        places=[Place(centre_id=appointment.centre_id, department_id=appointment.department_id)],
        relations=await care.relations_of_person(tx, tables.care_relationship, appointment.patient_id),
    )
    return care.permit(caller, permission, record, now=tx.now)


def visible_to(
    tx: Transaction, permission: str, *, caller: Principal, person: Sequence[UUID] = ()
) -> ColumnElement[bool]:
    """Return the condition of a list; of one about a single person, `person` names all their records."""
    return visible(current(), caller, permission, replace(_COLUMNS, person=person), now=tx.now)
