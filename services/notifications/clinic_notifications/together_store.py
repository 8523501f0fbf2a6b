"""Queries of `together.py`, each on the open transaction it is given."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from clinic_shared.bulk import InsertRows
from clinic_shared.database import Transaction
from sqlalchemy import select, text

from clinic_notifications.domain import MessageStatus, Purpose, Subject
from clinic_notifications.tables import joined_subject, message

_JOIN = InsertRows(joined_subject, or_nothing=True)
_LAST_TOLD = text("""
    SELECT desk.patient_id, desk.centre_id, desk.department_id, told.message_id, told.send_at
    FROM unnest(CAST(:patient_ids AS uuid[]), CAST(:centre_ids AS uuid[]), CAST(:department_ids AS uuid[]))
        AS desk (patient_id, centre_id, department_id)
    CROSS JOIN LATERAL (
        SELECT message_id, send_at FROM message
        WHERE message.patient_id = desk.patient_id AND message.purpose = :purpose
            AND message.centre_id IS NOT DISTINCT FROM desk.centre_id
            AND message.department_id IS NOT DISTINCT FROM desk.department_id
            AND message.send_at > :since
        ORDER BY message_id DESC LIMIT 1
    ) AS told
""")


@dataclass(frozen=True, kw_only=True)
class Desk:
    """To whom and in whose name: what results must have in common to be told together."""

    patient_id: UUID
    centre_id: UUID | None
    department_id: UUID | None


@dataclass(frozen=True, kw_only=True)
class Told:
    message_id: UUID
    send_at: datetime


async def last_told(tx: Transaction, desks: Collection[Desk], *, since: datetime) -> dict[Desk, Told]:
    """Return each desk's latest message about results that was to be sent after an instant, whatever its channel."""
    asked = {
        "patient_ids": [desk.patient_id for desk in desks],
        "centre_ids": [desk.centre_id for desk in desks],
        "department_ids": [desk.department_id for desk in desks],
        "purpose": Purpose.RESULT_READY.value,
        "since": since,
    }
    rows = await tx.fetch_all(_LAST_TOLD, asked)
    return {
        Desk(patient_id=row.patient_id, centre_id=row.centre_id, department_id=row.department_id): Told(
            message_id=row.message_id, send_at=row.send_at
        )
        for row in rows
    }


async def hold_back(tx: Transaction, message_ids: Collection[UUID]) -> set[UUID]:
    """Keep messages from being sent before this transaction's end; returns those that the sender left it in time.

    No vendor knows of what was never claimed, so nothing else locks such a row.
    """
    waiting = (
        select(message.c.message_id)
        .where(
            message.c.message_id.in_(message_ids),
            message.c.status == MessageStatus.QUEUED.value,
            message.c.attempts == 0,
        )
        .order_by(message.c.message_id)
        .with_for_update()
    )
    return {row.message_id for row in await tx.fetch_all(waiting)}


def join(tx: Transaction, message_id: UUID, about: Subject) -> None:
    """Let a message tell of one more result."""
    row = {
        "about_id": about.id,
        "about_type": about.type,
        "about_version": about.version,
        "purpose": Purpose.RESULT_READY.value,
        "message_id": message_id,
        "joined_at": tx.now,
    }
    tx.write_later(_JOIN, row)


async def joined(tx: Transaction, message_ids: Sequence[UUID]) -> dict[UUID, list[Subject]]:
    """Return what else messages tell of."""
    if not message_ids:
        return {}
    rows = await tx.fetch_all(
        select(joined_subject)
        .where(joined_subject.c.message_id.in_(message_ids))
        .order_by(joined_subject.c.joined_at, joined_subject.c.about_id)
    )
    found: dict[UUID, list[Subject]] = {}
    for row in rows:
        about = Subject(type=row.about_type, id=row.about_id, version=row.about_version)
        found.setdefault(row.message_id, []).append(about)
    return found
