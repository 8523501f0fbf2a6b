"""Notifications' queries, each on the open transaction it is given."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

from clinic_shared import merges
from clinic_shared.database import Transaction
from sqlalchemy import ColumnElement, Exists, Integer, Row, Table, cast, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from clinic_notifications import staff_store, tables
from clinic_notifications.domain import (
    Appointment,
    Channel,
    Consent,
    Message,
    MessageStatus,
    Preferences,
    Purpose,
    Recipient,
    Subject,
)
from clinic_notifications.tables import (
    MESSAGE_ONCE,
    appointment,
    centre,
    consent,
    department,
    joined_subject,
    message,
    patient,
    preference,
    reply,
)
from clinic_notifications.wording import Place

# -- messages


async def add_message(tx: Transaction, new: Message) -> bool:
    """Queue a message, unless the same was told before; returns whether it is new."""
    values = tables.WORDS.stored(tx, _message_values(new))
    if new.send_at > tx.now:
        values["next_attempt_at"] = func.clock_timestamp() + (new.send_at - tx.now)
    statement = insert(message).values(values).on_conflict_do_nothing(constraint=MESSAGE_ONCE)
    return await tx.fetch_one(statement.returning(message.c.message_id)) is not None


async def save_message(tx: Transaction, changed: Message) -> None:
    mine = update(message).where(message.c.message_id == changed.message_id)
    await tx.execute(mine.values(tables.WORDS.stored(tx, _message_values(changed))))


async def find_message(tx: Transaction, message_id: UUID) -> Message | None:
    row = await tx.fetch_one(select(message).where(message.c.message_id == message_id))
    return None if row is None else _message(tx, row)


async def lock_message(tx: Transaction, message_id: UUID) -> Message | None:
    row = await tx.fetch_one(select(message).where(message.c.message_id == message_id).with_for_update())
    return None if row is None else _message(tx, row)


async def tells_of_later(tx: Transaction, about: Subject, purpose: Purpose) -> bool:
    """Tell whether a message of this purpose tells of the same or a later version of the subject."""

    def told_in(table: Table) -> Exists:
        return exists().where(
            table.c.about_id == about.id,
            table.c.about_type == about.type,
            table.c.purpose == purpose.value,
            table.c.about_version >= about.version,
        )

    row = await tx.fetch_one(select(told_in(message) | told_in(joined_subject)))
    return row is not None and bool(row[0])


async def channels_tried(tx: Transaction, one: Message) -> list[Channel]:
    """Return the channels on which the same was told, this one's included."""
    rows = await tx.fetch_all(
        select(message.c.channel).where(
            message.c.about_id == one.about.id,
            message.c.about_type == one.about.type,
            message.c.about_version == one.about.version,
            message.c.purpose == one.purpose.value,
            message.c.occurrence == one.occurrence,
        )
    )
    return [Channel(row.channel) for row in rows]


# -- the sender's lease


async def claim_due(tx: Transaction, *, limit: int, lease: timedelta) -> list[UUID]:
    """Take messages that are due, so that nobody else sends them until the lease runs out.

    A call still open from an earlier claim means that nobody knows what became of it.
    """
    due = (
        select(message.c.message_id)
        .where(message.c.status == "queued", message.c.next_attempt_at <= func.clock_timestamp())
        .order_by(message.c.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = await tx.fetch_all(
        update(message)
        .where(message.c.message_id.in_(due.scalar_subquery()))
        .values(
            attempts=message.c.attempts + 1,
            unknown_outcomes=message.c.unknown_outcomes + cast(message.c.call_open, Integer),
            call_open=False,
            next_attempt_at=func.clock_timestamp() + lease,
        )
        .returning(message.c.message_id)
    )
    return [row.message_id for row in rows]


async def attempts_of(tx: Transaction, message_id: UUID) -> tuple[int, int]:
    """Return how often a message was tried, and how many of those calls never got an answer."""
    row = await tx.fetch_one(
        select(message.c.attempts, message.c.unknown_outcomes).where(message.c.message_id == message_id)
    )
    return (0, 0) if row is None else (row.attempts, row.unknown_outcomes)


async def open_call(tx: Transaction, message_id: UUID) -> None:
    """Note that the vendor is about to be called, before it is."""
    await tx.execute(update(message).where(message.c.message_id == message_id).values(call_open=True))


async def try_again(tx: Transaction, message_id: UUID, *, delay: timedelta, error: str) -> None:
    """Put a message back whose call is known to have had no effect."""
    await tx.execute(
        update(message)
        .where(message.c.message_id == message_id)
        .values(call_open=False, next_attempt_at=func.clock_timestamp() + delay, last_error=error)
    )


async def note_error(tx: Transaction, message_id: UUID, error: str) -> None:
    await tx.execute(update(message).where(message.c.message_id == message_id).values(last_error=error))


async def keep_reply(tx: Transaction, provider: str, reference: str, content: dict[str, Any]) -> bool:
    """Keep what a patient wrote; False when it is kept already."""
    said = {"provider": provider, "provider_reference": reference, "content": content, "received_at": tx.now}
    kept = insert(reply).values(tables.REPLIES.stored(tx, said)).on_conflict_do_nothing()
    return await tx.fetch_one(kept.returning(reply.c.provider)) is not None


# -- who and in whose name


async def find_recipient(tx: Transaction, to: Message) -> Recipient | None:
    """Return whom a message is to; None while they aren't known here."""
    if to.staff_id is not None:
        return await staff_store.find_recipient(tx, to.staff_id)
    return None if to.patient_id is None else await _find_patient(tx, to.patient_id)


async def _find_patient(tx: Transaction, patient_id: UUID) -> Recipient | None:
    """Return the person whose record it is: reached as the record in use says, refusing what any of theirs refuses."""
    survivor = await merges.survivor_of(tx, patient_id)
    stored = await tx.fetch_one(select(patient).where(patient.c.patient_id == survivor))
    if stored is None:
        return None
    row = tables.CONTACTS.opened(tx, stored)
    records = [survivor, *await merges.absorbed_by(tx, [survivor])]
    consents = await tx.fetch_all(
        select(consent).where(consent.c.patient_id.in_(records), consent.c.kind == "messaging")
    )
    preferences = await find_preferences(tx, survivor)
    return Recipient(
        status=row.status,
        phones=row.phones,
        emails=row.emails,
        language=row.language,
        channels=preferences.channels,
        opted_out=preferences.opted_out,
        consents=[Consent(status=c.status, channel=c.channel, expires_at=c.expires_at) for c in consents],
    )


async def is_known_patient(tx: Transaction, patient_id: UUID) -> bool:
    return (
        await tx.fetch_one(select(patient.c.patient_id).where(patient.c.patient_id == patient_id)) is not None
    )


async def find_preferences(tx: Transaction, patient_id: UUID, *, lock: bool = False) -> Preferences:
    statement = select(preference).where(preference.c.patient_id == patient_id)
    row = await tx.fetch_one(statement.with_for_update() if lock else statement)
    if row is None:
        return Preferences(patient_id=patient_id)
    return Preferences(
        patient_id=patient_id,
        version=row.version,
        channels=tuple(Channel(c) for c in row.channels),
        opted_out=tuple(Purpose(p) for p in row.opted_out),
    )


async def save_preferences(tx: Transaction, changed: Preferences) -> bool:
    """Store preferences of the next version; False when somebody else did at the same time."""
    values: dict[str, Any] = {
        "patient_id": changed.patient_id,
        "version": changed.version,
        "channels": [c.value for c in changed.channels],
        "opted_out": [p.value for p in changed.opted_out],
        "changed_at": tx.now,
    }
    statement = insert(preference).values(values)
    row = await tx.fetch_one(
        statement.on_conflict_do_update(
            index_elements=["patient_id"],
            set_=values,
            where=preference.c.version == changed.version - 1,
        ).returning(preference.c.version)
    )
    return row is not None


async def find_place(tx: Transaction, *, centre_id: UUID | None, department_id: UUID | None) -> Place | None:
    """Return in whose name a message goes out; None while the centre isn't known here."""
    found_centre = await tx.fetch_one(select(centre).where(centre.c.centre_id == centre_id))
    found_department = await tx.fetch_one(
        select(department.c.name).where(department.c.department_id == department_id)
    )
    if centre_id is not None and found_centre is None:
        return None
    if department_id is not None and found_department is None:
        return None
    return Place(
        centre=found_centre.name if found_centre else None,
        address=found_centre.address if found_centre else None,
        phone=found_centre.phone if found_centre else None,
        language=found_centre.language if found_centre else None,
        department=found_department.name if found_department else None,
    )


# -- appointments


async def find_appointment(tx: Transaction, appointment_id: UUID) -> Appointment | None:
    row = await tx.fetch_one(select(appointment).where(appointment.c.appointment_id == appointment_id))
    return None if row is None else Appointment(**row._asdict())


async def lock_appointment(tx: Transaction, appointment_id: UUID) -> Appointment | None:
    statement = select(appointment).where(appointment.c.appointment_id == appointment_id)
    row = await tx.fetch_one(statement.with_for_update())
    return None if row is None else Appointment(**row._asdict())


# -- lists


async def list_messages(
    tx: Transaction,
    *,
    limit: int,
    after: UUID | None = None,
    person: Collection[UUID] = (),
    status: str | None = None,
    purpose: str | None = None,
    visible: ColumnElement[bool],
) -> list[Message]:
    """Return the `visible` ones of the messages, by id."""
    statement = select(message).where(visible).order_by(message.c.message_id).limit(limit)
    if after is not None:
        statement = statement.where(message.c.message_id > after)
    if person:
        statement = statement.where(message.c.patient_id.in_(person))
    if status is not None:
        statement = statement.where(message.c.status == status)
    if purpose is not None:
        statement = statement.where(message.c.purpose == purpose)
    return [_message(tx, row) for row in await tx.fetch_all(statement)]


def _message(tx: Transaction, stored: Row[Any]) -> Message:
    row = tables.WORDS.opened(tx, stored)
    return Message(
        message_id=row.message_id,
        version=row.version,
        status=MessageStatus(row.status),
        patient_id=row.patient_id,
        staff_id=row.staff_id,
        channel=Channel(row.channel),
        purpose=Purpose(row.purpose),
        language=row.language,
        centre_id=row.centre_id,
        department_id=row.department_id,
        about=Subject(type=row.about_type, id=row.about_id, version=row.about_version),
        occurrence=row.occurrence,
        step=row.step,
        facts=row.facts,
        template_id=row.template_id,
        recipient=row.recipient,
        text=row.text,
        queued_at=row.queued_at,
        send_at=row.send_at,
        useful_until_at=row.useful_until_at,
        sent_at=row.sent_at,
        delivered_at=row.delivered_at,
        read_at=row.read_at,
        failed_at=row.failed_at,
        failure_code=row.failure_code,
        provider=row.provider,
        provider_reference=row.provider_reference,
    )


def _message_values(m: Message) -> dict[str, Any]:
    return {
        "message_id": m.message_id,
        "version": m.version,
        "status": m.status.value,
        "patient_id": m.patient_id,
        "staff_id": m.staff_id,
        "channel": m.channel.value,
        "purpose": m.purpose.value,
        "language": m.language,
        "centre_id": m.centre_id,
        "department_id": m.department_id,
        "about_type": m.about.type,
        "about_id": m.about.id,
        "about_version": m.about.version,
        "occurrence": m.occurrence,
        "step": m.step,
        "facts": dict(m.facts),
        "template_id": m.template_id,
        "recipient": m.recipient,
        "text": m.text,
        "queued_at": m.queued_at,
        "send_at": m.send_at,
        "useful_until_at": m.useful_until_at,
        "sent_at": m.sent_at,
        "delivered_at": m.delivered_at,
        "read_at": m.read_at,
        "failed_at": m.failed_at,
        "failure_code": m.failure_code,
        "provider": m.provider,
        "provider_reference": m.provider_reference,
    }
