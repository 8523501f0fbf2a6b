"""Queries of `together.py`, each on the open transaction it is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from clinic_notifications.domain import MessageStatus, Purpose, Subject
from clinic_notifications.tables import joined_subject, message

_JOIN = insert(joined_subject).on_conflict_do_nothing()


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


async def last_told(tx: Transaction, desk: Desk, *, since: datetime) -> Told | None:
    """Return the latest message about results that was to be sent after an instant; told on another channel too."""
    row = await tx.fetch_one(
        select(message.c.message_id, message.c.send_at)
        .where(
            message.c.patient_id == desk.patient_id,
            message.c.purpose == Purpose.RESULT_READY.value,
            message.c.centre_id.is_not_distinct_from(desk.centre_id),
            message.c.department_id.is_not_distinct_from(desk.department_id),
            message.c.send_at > since,
        )
        .order_by(message.c.message_id.desc())
        .limit(1)
    )
    return None if row is None else Told(message_id=row.message_id, send_at=row.send_at)


async def hold_back(tx: Transaction, message_id: UUID) -> bool:
    """Keep a message from being sent before this transaction's end; False when the sender was faster.

    No vendor knows of what was never claimed, so nothing else locks such a row.
    """
    waiting = (
        select(message.c.message_id)
        .where(
            message.c.message_id == message_id,
            message.c.status == MessageStatus.QUEUED.value,
            message.c.attempts == 0,
        )
        .with_for_update()
    )
    return await tx.fetch_one(waiting) is not None


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
