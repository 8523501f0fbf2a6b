"""Who reaches which message: its patient, and the desk of the place in whose name it is sent.

A patient's choice of channels: the desks where they are registered or have been or are expected of late.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from clinic_shared import care
from clinic_shared.database import Transaction
from clinic_shared.errors import ConcealedError
from clinic_shared.policy import Decision, Place, Record, current
from clinic_shared.policy_filters import Columns, visible
from clinic_shared.principal import Principal
from sqlalchemy import ColumnElement, select

from clinic_notifications.domain import Message
from clinic_notifications.planned import PlannedMessage
from clinic_notifications.tables import appointment, department, patient

READ = "messages.read"
_OF_LATE = timedelta(days=90)
"""As long as an appointment keeps its patient in a place's care (patients)."""

AnyMessage = TypeVar("AnyMessage", bound=Message | PlannedMessage)


@dataclass(frozen=True, kw_only=True)
class Stands:
    """Where a query has whose message it is."""

    patient_id: ColumnElement[Any]
    centre_id: ColumnElement[Any]
    department_id: ColumnElement[Any]


def permit(tx: Transaction, message: AnyMessage | None, *, caller: Principal) -> tuple[AnyMessage, Decision]:
    """Return the message, and why the caller may know of it. Raises ConcealedError."""
    if message is None:
        raise ConcealedError
    record = Record(
        patient_id=message.patient_id,
        places=[Place(centre_id=message.centre_id, department_id=message.department_id)],
    )
    return message, care.permit(caller, READ, record, now=tx.now)


def visible_to(tx: Transaction, at: Stands, *, caller: Principal) -> ColumnElement[bool]:
    columns = Columns(patient_id=at.patient_id, places=[(at.centre_id, at.department_id)])
    return visible(current(), caller, READ, columns, now=tx.now)


async def permit_choice(tx: Transaction, patient_id: UUID, permission: str, *, caller: Principal) -> Decision:
    """Let the caller at a patient's choice of channels. Raises ConcealedError, also for who isn't known here."""
    record = Record(patient_id=patient_id, places=await _places_of(tx, patient_id))
    return care.permit(await _standing(tx, caller), permission, record, now=tx.now)


async def _places_of(tx: Transaction, patient_id: UUID) -> list[Place]:
    registered = await tx.fetch_one(select(patient.c.centre_id).where(patient.c.patient_id == patient_id))
    columns = appointment.c
    visited = await tx.fetch_all(
        select(columns.centre_id, columns.department_id)
        .where(columns.patient_id == patient_id, columns.starts_at > tx.now - _OF_LATE)
        .distinct()
    )
    places = [Place(centre_id=row.centre_id, department_id=row.department_id) for row in visited]
    return places + ([Place(centre_id=registered.centre_id)] if registered else [])


async def _standing(tx: Transaction, caller: Principal) -> Principal:
    """Return the caller with the centres of their departments: patients are registered at centres."""
    if caller.network or not caller.department_ids:
        return caller
    rows = await tx.fetch_all(
        select(department.c.centre_id).where(
            department.c.department_id.in_(caller.department_ids), department.c.centre_id.is_not(None)
        )
    )
    return replace(caller, centre_ids=caller.centre_ids | {row.centre_id for row in rows})
