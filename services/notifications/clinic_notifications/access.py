"""Who reaches which message: its patient, and the desk of the place in whose name it is sent."""

from dataclasses import dataclass
from typing import Any, TypeVar

from clinic_shared import care
from clinic_shared.database import Transaction
from clinic_shared.errors import ConcealedError
from clinic_shared.policy import Decision, Place, Record, current
from clinic_shared.policy_filters import Columns, visible
from clinic_shared.principal import Principal
from sqlalchemy import ColumnElement

from clinic_notifications.domain import Message
from clinic_notifications.planned import PlannedMessage

READ = "messages.read"

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
