"""Messages to come: reminders whose timers are pending, seen as the messages that they will be."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.timers import timer_table
from sqlalchemy import ColumnElement, Row, Select, Uuid, cast, select

from clinic_notifications.announcing import REMINDER
from clinic_notifications.domain import Subject

PLANNED = "planned"

_payload = timer_table.c.payload
_message_id = cast(_payload["message_id"].astext, Uuid)


def column(name: str) -> ColumnElement[Any]:
    """Return an id of a reminder's payload."""
    return cast(_payload[name].astext, Uuid)


@dataclass(frozen=True, kw_only=True)
class PlannedMessage:
    message_id: UUID
    patient_id: UUID
    centre_id: UUID
    department_id: UUID
    about: Subject
    occurrence: str
    planned_at: datetime
    send_at: datetime
    useful_until_at: datetime | None


async def find_planned(tx: Transaction, message_id: UUID) -> PlannedMessage | None:
    rows = await tx.fetch_all(_pending().where(_payload["message_id"].astext == str(message_id)))
    return _planned(rows[0]) if rows else None


async def list_planned(
    tx: Transaction,
    *,
    limit: int,
    after: UUID | None,
    person: Collection[UUID],
    visible: ColumnElement[bool],
) -> list[PlannedMessage]:
    """Return the `visible` pending reminders by the id of the message that they will be."""
    statement = _pending().where(visible).order_by(_message_id).limit(limit)
    if after is not None:
        statement = statement.where(_message_id > after)
    if person:
        statement = statement.where(_payload["patient_id"].astext.in_([str(one) for one in person]))
    return [_planned(row) for row in await tx.fetch_all(statement)]


def _pending() -> Select[Any]:
    return select(timer_table).where(timer_table.c.kind == REMINDER, timer_table.c.state == "pending")


def _planned(row: Row[Any]) -> PlannedMessage:
    return PlannedMessage(
        message_id=UUID(row.payload["message_id"]),
        patient_id=UUID(row.payload["patient_id"]),
        centre_id=UUID(row.payload["centre_id"]),
        department_id=UUID(row.payload["department_id"]),
        about=Subject(type="appointment", id=row.subject, version=row.subject_version),
        occurrence=row.occurrence,
        planned_at=row.created_at,
        send_at=row.due_at,
        useful_until_at=row.useful_until,
    )
