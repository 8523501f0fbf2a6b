"""From what happened to what is said about it: messages queued now, reminders set for later.

Only what happens now is announced: an imported or replayed event changes projections and tells nobody.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.events import Origin
from clinic_shared.ids import uuid7
from clinic_shared.projections import keep_newer
from clinic_shared.timers import Timer, Timers

from clinic_notifications import store, tables
from clinic_notifications.domain import (
    DEFAULT_CHANNELS,
    DEFAULT_LANGUAGE,
    Appointment,
    Message,
    Purpose,
    Subject,
    is_overtaken,
    reminders_to_come,
)
from clinic_notifications.events import message_event

timers = Timers()

REMINDER = Purpose.REMINDER.value
USEFUL = timedelta(days=3)
"""For what has no end of its own, such as a receipt."""


async def announce(
    tx: Transaction,
    *,
    purpose: Purpose,
    about: Subject,
    patient_id: UUID | None = None,
    staff_id: UUID | None = None,
    centre_id: UUID | None,
    department_id: UUID | None,
    facts: Mapping[str, Any],
    send_at: datetime | None = None,
    useful_until_at: datetime | None = None,
) -> UUID | None:
    """Queue a message, unless this or a later version of its subject was told of already; return its id."""
    if tx.context.origin is not Origin.LIVE or await store.tells_of_later(tx, about, purpose):
        return None
    message = Message(
        message_id=uuid7(),
        patient_id=patient_id,
        staff_id=staff_id,
        channel=DEFAULT_CHANNELS[0],
        purpose=purpose,
        language=DEFAULT_LANGUAGE,
        centre_id=centre_id,
        department_id=department_id,
        about=about,
        facts=facts,
        queued_at=tx.now,
        send_at=send_at or tx.now,
        useful_until_at=useful_until_at or tx.now + USEFUL,
    )
    return message.message_id if await _queue(tx, message) else None


async def keep_appointment(tx: Transaction, appointment: Appointment, tell: Purpose | None) -> None:
    """Follow an appointment; `tell` is what its patient is told now. Older versions change nothing."""
    before = await store.lock_appointment(tx, appointment.appointment_id)
    if not await keep_newer(tx, tables.appointment, vars(appointment)):
        return
    if tx.context.origin is not Origin.LIVE:
        return
    if not (before and before.stands and appointment.stands and before.starts_at == appointment.starts_at):
        await _remind_anew(tx, appointment)
    if tell is not None and appointment.starts_at > tx.now:
        await announce(
            tx,
            purpose=tell,
            about=Subject(type="appointment", id=appointment.appointment_id, version=appointment.version),
            patient_id=appointment.patient_id,
            centre_id=appointment.centre_id,
            department_id=appointment.department_id,
            facts=appointment.facts(),
            useful_until_at=appointment.starts_at,
        )


async def _remind_anew(tx: Transaction, appointment: Appointment) -> None:
    """Take back the reminders of older versions; set those of this one, if it is to take place."""
    await tx.cancel_timers(REMINDER, appointment.appointment_id, before_version=appointment.version)
    if not appointment.stands:
        return
    for occurrence, due_at in reminders_to_come(appointment.starts_at, tx.now).items():
        await tx.schedule(
            Timer(
                kind=REMINDER,
                subject=appointment.appointment_id,
                subject_version=appointment.version,
                occurrence=occurrence,
                due_at=due_at,
                useful_until=appointment.starts_at,
                payload={
                    # The message that will be has its id already, so that it can be seen coming.
                    "message_id": str(uuid7()),
                    "patient_id": str(appointment.patient_id),
                    "centre_id": str(appointment.centre_id),
                    "department_id": str(appointment.department_id),
                    "starts_at": appointment.starts_at.isoformat(),
                },
            )
        )


@timers.on(REMINDER)
async def remind(tx: Transaction, timer: Timer) -> None:
    """Queue a reminder whose time has come, if the appointment still takes place then."""
    appointment = await store.lock_appointment(tx, timer.subject)
    if appointment is None or not appointment.makes_sense(Purpose.REMINDER, timer.payload):
        return
    if is_overtaken(timer.occurrence, appointment.starts_at, tx.now):
        return
    await _queue(
        tx,
        Message(
            message_id=UUID(timer.payload["message_id"]),
            patient_id=appointment.patient_id,
            channel=DEFAULT_CHANNELS[0],
            purpose=Purpose.REMINDER,
            language=DEFAULT_LANGUAGE,
            centre_id=appointment.centre_id,
            department_id=appointment.department_id,
            about=Subject(type="appointment", id=timer.subject, version=timer.subject_version),
            occurrence=timer.occurrence,
            facts=appointment.facts(),
            queued_at=tx.now,
            send_at=timer.due_at,
            useful_until_at=appointment.starts_at,
        ),
    )


async def _queue(tx: Transaction, message: Message) -> bool:
    """Channel and language are a first guess, made good when the message is sent; False when it was told before."""
    recipient = await store.find_recipient(tx, message)
    if recipient is not None:
        message = message.addressed_to(recipient)
    if not await store.add_message(tx, message):
        return False
    tx.emit(message_event("message-queued", message))
    tx.audit(
        AuditEntry(
            action=Action.CREATE,
            resource_type="Communication",
            resource_id=message.message_id,
            patient_id=message.patient_id,
            details={"purpose": message.purpose.value},
        )
    )
    return True
