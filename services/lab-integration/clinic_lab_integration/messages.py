"""A message as the intake keeps it: its own bytes, and beside them what was found out before the answer.

A message is durable before anything else of it is stored, if need be on the queue; so all that reading
it again needs travels with it.
"""

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.intake import intake_table
from clinic_shared.intake_order import by_turn, comes_before
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on

from clinic_lab_integration import reports
from clinic_lab_integration.hl7 import AssessedMessage, CharsetSource, Outcome, Terms, assess
from clinic_lab_integration.hl7.charset import UTF8_MARK
from clinic_lab_integration.hl7.review import unread_segments

INTERFACE = "hl7"
FHIR = "fhir"
INTERFACES = (INTERFACE, FHIR)
ANSWER_TYPE = "application/hl7-v2"
MAX_BODY_BYTES = 10 * 1024 * 1024
_SHOWN_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class FindingNote:
    severity: str
    code: int
    location: str
    text: str


@dataclass(frozen=True, kw_only=True)
class MessageNote:
    """What is known of a message without reading it again. `groups` are its patient groups.

    `unread` are its segments that nothing is taken out of; they stay in its bytes.
    `sandbox`: its sender was only tried out when it came, so that it never reaches a chart.
    `answers_later`: its application acknowledgement is owed once it has been processed.
    `before` and `after` are the bytes around it in the request (Base64): frames, marks, line ends.
    `outcome` is None for an acknowledgement.
    """

    partner_id: str
    control_id: str
    sending_application: str
    sending_facility: str
    message_type: str
    version_id: str
    processing_id: str
    charset: str
    marked: bool
    default_charset: str
    outcome: str | None
    answer_code: str | None
    groups: int
    findings: tuple[FindingNote, ...]
    unread: tuple[str, ...] = ()
    sandbox: bool = False
    answers_later: bool = False
    before: str = ""
    after: str = ""

    @classmethod
    def of(
        cls, message: AssessedMessage, *, partner_id: UUID, default_charset: str, sandbox: bool = False
    ) -> Self:
        header = message.header
        kind = (header.message_code, header.trigger_event)
        is_acknowledgement = message.disposition == "acknowledgement"
        return cls(
            partner_id=str(partner_id),
            control_id=_shown(header.control_id),
            sending_application=_shown(header.sending_application),
            sending_facility=_shown(header.sending_facility),
            message_type=_shown("^".join(part for part in kind if part)),
            version_id=_shown(header.version_id),
            processing_id=_shown(header.processing_id),
            charset=message.charset.codec,
            marked=message.charset.source is CharsetSource.BYTE_ORDER_MARK,
            default_charset=default_charset,
            outcome=None if is_acknowledgement else message.outcome.value,
            answer_code=message.answer_code,
            groups=_group_count(message),
            findings=tuple(
                FindingNote(severity=f.severity, code=f.code, location=f.location.path(), text=f.text)
                for f in message.findings
            ),
            unread=() if message.message is None else unread_segments(message.message),
            sandbox=sandbox,
            answers_later=message.owes_application_answer,
        )

    @classmethod
    def read(cls, attributes: Mapping[str, Any]) -> Self:
        known = {name: attributes[name] for name in cls.__dataclass_fields__ if name in attributes}
        known["unread"] = tuple(known.get("unread", ()))
        known["findings"] = tuple(FindingNote(**finding) for finding in attributes["findings"])
        return cls(**known)

    def attributes(self) -> dict[str, Any]:
        # Not `asdict`: it copies every value deeply, for each message that somebody waits for.
        return {**vars(self), "findings": [vars(finding) for finding in self.findings]}

    @property
    def is_named(self) -> bool:
        """Whether its control id is to be its own: that of an acknowledgement needn't be."""
        return bool(self.control_id) and self.outcome is not None

    @property
    def is_test(self) -> bool:
        """For training or debugging (HL7 table 0103)."""
        return self.processing_id in {"T", "D"}

    @property
    def is_accepted(self) -> bool:
        return self.outcome == Outcome.ACCEPT


def _shown(text: str) -> str:
    return text[:_SHOWN_LENGTH]


def _group_count(message: AssessedMessage) -> int:
    if message.message is None or message.disposition != "accepted":
        return 1
    return reports.group_count(message.message)


def sender_of(partner_id: UUID, message: AssessedMessage) -> str:
    """Within what the same bytes are a duplicate: the partner with MSH-3, MSH-4 and MSH-10.

    Hashed, since senders may write anything of any length into them.
    """
    header = message.header
    parts = (header.sending_application, header.sending_facility, header.control_id)
    digest = hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{partner_id}:{digest[:32]}"


def with_surroundings(
    notes: Sequence[MessageNote], payload: bytes, messages: Sequence[AssessedMessage]
) -> list[MessageNote]:
    """Note the bytes around each message, so that the request can be put together again as it came.

    UTF-16 isn't cut at its own bytes: the first message then has the whole request before it.
    """
    places, position = [], 0
    for message in messages:
        start = payload.find(message.raw, position)
        if start < 0:
            return [replace(notes[0], before=_base64(payload)), *notes[1:]]
        position = start + len(message.raw)
        places.append((start, position))
    gaps = [payload[end:start] for (_, end), (start, _) in pairwise([(0, 0), *places])]
    noted = [
        replace(note, before=_base64(gap)) if gap else note for note, gap in zip(notes, gaps, strict=True)
    ]
    rest = payload[position:]
    return [*noted[:-1], replace(noted[-1], after=_base64(rest))] if rest else noted


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def read_again(body: bytes, note: MessageNote) -> AssessedMessage:
    """Assess a stored message as it was assessed when it came."""
    marked = UTF8_MARK + body if note.marked else body
    messages = assess(
        marked, max_bytes=MAX_BODY_BYTES + len(UTF8_MARK), terms=Terms(default_charset=note.default_charset)
    ).messages
    return messages[0]


async def find_earlier(tx: Transaction, message_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Of each message another of the same sender under the same control id, with other bytes: the last before it."""
    message, another = intake_table.alias(), intake_table.alias()
    this, other = message.c, another.c
    before = comes_before(another, message)
    last_first = [column.desc() for column in by_turn(another)]
    same = (other.interface == this.interface) & (other.sender == this.sender)
    rows = await tx.fetch_all(
        select(this.id, other.id.label("earlier_id"))
        .where(same, other.digest != this.digest, before, this.id.in_(message_ids))
        .ext(distinct_on(this.id))
        .order_by(this.id, *last_first)
    )
    return {row.id: row.earlier_id for row in rows}
