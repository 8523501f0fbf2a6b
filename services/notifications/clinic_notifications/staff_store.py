"""The queries of members of staff: where each is reached."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from clinic_notifications.domain import DEFAULT_CHANNELS, Channel, Recipient
from clinic_notifications.tables import STAFF_CONTACTS, staff_contact


@dataclass(frozen=True, kw_only=True)
class StaffContact:
    """Version 0: nobody has said how they are reached."""

    staff_id: UUID
    version: int = 0
    phone: str | None = None
    email: str | None = None
    language: str | None = None
    channels: Sequence[Channel] = DEFAULT_CHANNELS


async def find(tx: Transaction, staff_id: UUID, *, lock: bool = False) -> StaffContact:
    statement = select(staff_contact).where(staff_contact.c.staff_id == staff_id)
    stored = await tx.fetch_one(statement.with_for_update() if lock else statement)
    if stored is None:
        return StaffContact(staff_id=staff_id)
    row = STAFF_CONTACTS.opened(tx, stored)
    return StaffContact(
        staff_id=staff_id,
        version=row.version,
        phone=row.phone,
        email=row.email,
        language=row.language,
        channels=tuple(Channel(channel) for channel in row.channels),
    )


async def save(tx: Transaction, changed: StaffContact) -> bool:
    """Store the next version; False when somebody else did at the same time."""
    said: dict[str, Any] = {
        **vars(changed),
        "channels": [channel.value for channel in changed.channels],
        "changed_at": tx.now,
    }
    values = STAFF_CONTACTS.stored(tx, said)
    row = await tx.fetch_one(
        insert(staff_contact)
        .values(values)
        .on_conflict_do_update(
            index_elements=["staff_id"],
            set_=values,
            where=staff_contact.c.version == changed.version - 1,
        )
        .returning(staff_contact.c.version)
    )
    return row is not None


async def find_recipient(tx: Transaction, staff_id: UUID) -> Recipient:
    """Return a member of staff as whom is written to; without an address, while nobody has given one."""
    contact = await find(tx, staff_id)
    return Recipient(
        status="active",
        phones=(contact.phone,) if contact.phone else (),
        emails=(contact.email,) if contact.email else (),
        language=contact.language,
        channels=contact.channels,
    )
