"""Taking a request with lab messages in: judged, durable, answered, in that order.

Every message of a request is kept by itself, refused ones too; each has the answer that it got the first
time. Nothing is matched or filed here: that is the worker's (`filing.py`).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.context import Context
from clinic_shared.errors import DomainError, TemporarilyUnavailableError
from clinic_shared.ids import uuid7_time
from clinic_shared.intake import Intake, Item
from clinic_shared.limits import BodyTooLargeError
from clinic_shared.service import Runtime

from clinic_lab_integration import messages
from clinic_lab_integration.hl7 import (
    AssessedMessage,
    Assessment,
    PayloadTooLargeError,
    UnreadablePayloadError,
    assess,
)
from clinic_lab_integration.messages import ANSWER_TYPE, INTERFACE, MAX_BODY_BYTES, MessageNote
from clinic_lab_integration.store import Partner

_IN_A_THREAD_BYTES = 64 * 1024


class UnreadableMessageError(DomainError):
    """No MSH, BHS or FHS segment can be read, so there is nobody to answer in HL7. Nothing was kept."""

    slug = "unreadable-message"
    title = "The body is no HL7 v2 message"
    status = 422
    fix = "Begin the body with an MSH segment (or BHS, FHS) and its field separator."


@dataclass(frozen=True, kw_only=True)
class Received:
    """`answer` is the response's body, None for an empty one. `complete`: every message is durable."""

    answer: bytes | None
    message_ids: tuple[UUID, ...]
    complete: bool


async def read(payload: bytes, partner: Partner) -> Assessment:
    """Judge a request. Raises UnreadableMessageError, BodyTooLargeError."""
    judge = partial(assess, payload, max_bytes=MAX_BODY_BYTES, default_charset=partner.default_charset or "")
    try:
        # What is large would keep others waiting; what is small costs less than the thread.
        return judge() if len(payload) < _IN_A_THREAD_BYTES else await asyncio.to_thread(judge)
    except UnreadablePayloadError:
        raise UnreadableMessageError from None
    except PayloadTooLargeError:
        raise BodyTooLargeError(max_bytes=MAX_BODY_BYTES) from None


async def receive(
    runtime: Runtime, payload: bytes, content_type: str, *, partner: Partner, context: Context
) -> Received:
    """Keep every message of a request, and answer what was answered to it first."""
    assessment = await read(payload, partner)
    notes = _notes(assessment, payload, partner)
    answers: list[bytes | None] = []
    message_ids: list[UUID] = []
    complete = True
    for message, note in zip(assessment.messages, notes, strict=True):
        item = _item(runtime, message, note, content_type, partner=partner, context=context)
        try:
            accepted = await Intake.of(runtime).accept(item, audit=_audit(item, note), context=context)
        except TemporarilyUnavailableError:
            complete = False
            answers.append(message.temporary_refusal(at=item.received_at))
        else:
            answers.append(accepted.answer)
            message_ids.append(accepted.id)
    # The envelope of an answered batch bears the time of the first answer: duplicates get the same bytes.
    at = uuid7_time(message_ids[0]) if message_ids else runtime.clock.now()
    return Received(answer=assessment.wrap(answers, at=at), message_ids=tuple(message_ids), complete=complete)


def _notes(assessment: Assessment, payload: bytes, partner: Partner) -> Sequence[MessageNote]:
    notes = [
        MessageNote.of(message, partner_id=partner.partner_id, default_charset=partner.default_charset or "")
        for message in assessment.messages
    ]
    return messages.with_surroundings(notes, payload, assessment.messages) if notes else notes


def _item(
    runtime: Runtime,
    message: AssessedMessage,
    note: MessageNote,
    content_type: str,
    *,
    partner: Partner,
    context: Context,
) -> Item:
    now = runtime.clock.now()
    answer = message.answer(at=now)
    return Item(
        interface=INTERFACE,
        sender=messages.sender_of(partner.partner_id, message),
        content_type=content_type,
        body=message.raw,
        received_at=now,
        answer=answer,
        answer_type=ANSWER_TYPE if answer is not None else None,
        attributes=note.attributes(),
        correlation_id=context.correlation_id,
    )


def _audit(item: Item, note: MessageNote) -> AuditEntry:
    return AuditEntry(
        action=Action.CREATE,
        resource_type="LabMessage",
        resource_id=item.id,
        details={"answer": note.answer_code or "none"},
    )
