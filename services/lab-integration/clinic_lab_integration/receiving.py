"""Taking lab messages in, whichever way they come: judged, durable, answered, in that order.

Every message of a payload is kept by itself, refused ones too; each has the answer that it got the first
time. Nothing is matched or filed here: that is the worker's (`filing.py`).
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
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
    Terms,
    UnreadablePayloadError,
    assess,
)
from clinic_lab_integration.messages import ANSWER_TYPE, INTERFACE, MAX_BODY_BYTES, MessageNote
from clinic_lab_integration.pace import Pace
from clinic_lab_integration.store import Partner

READING_SECONDS = 10.0
_IN_A_THREAD_BYTES = 64 * 1024
# Two: what is large must not take all processors from what is small.
_readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="hl7")


class UnreadableMessageError(DomainError):
    """No MSH, BHS or FHS segment can be read, so there is nobody to answer in HL7. Nothing was kept."""

    slug = "unreadable-message"
    title = "The body is no HL7 v2 message"
    status = 422
    fix = "Begin the body with an MSH segment (or BHS, FHS) and its field separator."


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A payload that was read; `at` is when."""

    assessment: Assessment
    items: tuple[tuple[Item, MessageNote], ...]
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Received:
    """`answers` are the messages', None where none may be given. `complete`: every message is durable."""

    assessment: Assessment
    answers: tuple[bytes | None, ...]
    message_ids: tuple[UUID, ...]
    complete: bool
    at: datetime

    @property
    def answered_later(self) -> tuple[UUID, ...]:
        """Messages that are durable and whose second answer is owed once they have been processed."""
        if not self.complete:
            return ()
        each = zip(self.assessment.messages, self.message_ids, strict=True)
        return tuple(message_id for message, message_id in each if message.owes_application_answer)

    @property
    def answer(self) -> bytes | None:
        """All answers as one body, in an envelope where the messages came in one; None for an empty body."""
        return self.assessment.wrap(self.answers, at=self.at)

    @property
    def bodies(self) -> Sequence[bytes]:
        """The answers as bodies of their own, but for those of an envelope."""
        if self.assessment.envelope is not None:
            return [self.answer] if self.answer is not None else []
        return [answer for answer in self.answers if answer is not None]


async def read(payload: bytes, partner: Partner, *, whole: bool = True) -> Assessment:
    """Judge a payload. Raises UnreadableMessageError, BodyTooLargeError, TemporarilyUnavailableError."""
    judge = partial(assess, payload, max_bytes=MAX_BODY_BYTES, terms=_terms_of(partner, whole=whole))
    try:
        # What is large would keep others waiting; what is small costs less than the thread.
        if len(payload) < _IN_A_THREAD_BYTES:
            return judge()
        reading = asyncio.get_running_loop().run_in_executor(_readers, judge)
        return await asyncio.wait_for(reading, READING_SECONDS)
    except UnreadablePayloadError:
        raise UnreadableMessageError from None
    except PayloadTooLargeError:
        raise BodyTooLargeError(max_bytes=MAX_BODY_BYTES) from None
    except TimeoutError:
        raise TemporarilyUnavailableError from None


def _terms_of(partner: Partner, *, whole: bool) -> Terms:
    return Terms(
        default_charset=partner.default_charset or "",
        ack_mode=partner.connection.ack_mode,
        processing_ids=partner.connection.processing_ids,
        whole=whole,
    )


async def receive(
    runtime: Runtime, payload: bytes, content_type: str, *, partner: Partner, context: Context
) -> Received:
    """Keep every message of a request, and answer what was answered to it first."""
    judged = await judge(runtime, payload, content_type, partner=partner, context=context)
    if runtime.get(Pace).seconds_to_wait(partner):
        return refuse_for_now(judged)
    return await keep(runtime, judged, partner=partner, context=context)


async def judge(
    runtime: Runtime,
    payload: bytes,
    content_type: str,
    *,
    partner: Partner,
    context: Context,
    whole: bool = True,
) -> Judged:
    """Read a payload and name its messages, in their order, which is that of their effects."""
    assessment = await read(payload, partner, whole=whole)
    now = runtime.clock.now()
    notes = _notes(assessment, payload, partner)
    items = tuple(
        (_item(message, note, content_type, partner=partner, context=context, now=now), note)
        for message, note in zip(assessment.messages, notes, strict=True)
    )
    return Judged(assessment=assessment, items=items, at=now)


async def keep(runtime: Runtime, judged: Judged, *, partner: Partner, context: Context) -> Received:
    """Make every message durable, several in one commit, and give the answers that are owed."""
    runtime.get(Pace).count(partner, len(judged.items))
    kept = await Intake.of(runtime).accept_in_order(
        [(item, _audit(item, note)) for item, note in judged.items], context=context
    )
    answers: list[bytes | None] = []
    message_ids: list[UUID] = []
    for message, accepted in zip(judged.assessment.messages, kept, strict=True):
        if isinstance(accepted, TemporarilyUnavailableError):
            answers.append(message.temporary_refusal(at=judged.at))
        elif isinstance(accepted, BaseException):
            raise accepted
        else:
            answers.append(accepted.answer)
            message_ids.append(accepted.id)
    return Received(
        assessment=judged.assessment,
        answers=tuple(answers),
        message_ids=tuple(message_ids),
        complete=len(message_ids) == len(judged.items),
        # The envelope of an answered batch bears the time of the first answer: duplicates get the same bytes.
        at=uuid7_time(message_ids[0]) if message_ids else judged.at,
    )


def refuse_for_now(judged: Judged) -> Received:
    """Nothing is kept, and the sender is to try again."""
    answers = tuple(message.temporary_refusal(at=judged.at) for message in judged.assessment.messages)
    return Received(
        assessment=judged.assessment, answers=answers, message_ids=(), complete=False, at=judged.at
    )


def _notes(assessment: Assessment, payload: bytes, partner: Partner) -> Sequence[MessageNote]:
    notes = [
        MessageNote.of(
            message,
            partner_id=partner.partner_id,
            default_charset=partner.default_charset or "",
            sandbox=bool(partner.connection.test_mode),
        )
        for message in assessment.messages
    ]
    return messages.with_surroundings(notes, payload, assessment.messages) if notes else notes


def _item(
    message: AssessedMessage,
    note: MessageNote,
    content_type: str,
    *,
    partner: Partner,
    context: Context,
    now: datetime,
) -> Item:
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
