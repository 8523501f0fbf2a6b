"""The answer to a message: whether there is one, what it says, and its exact bytes.

Original and enhanced mode, MSA and ERR as HL7 v2.5.1, 2.9.2, 2.9.3, 2.15.5 and 2.15.8 have them. The
answer speaks the sender's version, separators and character set, and the same message is always
answered under the same control id.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from clinic_lab_integration.hl7.findings import Finding, Location, Outcome
from clinic_lab_integration.hl7.header import Header
from clinic_lab_integration.hl7.model import escape

_SUFFIX = {Outcome.ACCEPT: "A", Outcome.ERROR: "E", Outcome.REJECT: "R"}
_ERR_BY_FIELDS = (2, 5)  # the first version whose ERR has a field each for location, code and text
_MSA_3_WITHDRAWN = (2, 7)
_SPOKEN_VERSION = "2.5.1"
_CONTROL_ID_LENGTH = 20  # MSH-10 up to v2.6


class AckMode(StrEnum):
    """Whose word holds about the answer: the message's (MSH-15, MSH-16), or what was agreed with the sender."""

    BY_MESSAGE = "by-message"
    ORIGINAL = "original"
    ENHANCED = "enhanced"


def answer_code(header: Header, outcome: Outcome, mode: AckMode = AckMode.BY_MESSAGE) -> str | None:
    """MSA-1, or None where MSH-15 and MSH-16 want no answer.

    One request has one answer: the accept acknowledgement where MSH-15 asks for it, else the
    application acknowledgement where MSH-16 does (v2.5.1, 2.9.2: original mode equals NE and AL).
    Enhanced mode with an empty MSH-15 is not defined; only an explicit NE is read as "never".
    """
    accept, application = header.accept_acknowledgment, header.application_acknowledgment
    suffix = _SUFFIX[outcome]
    if mode is not AckMode.BY_MESSAGE:
        return ("A" if mode is AckMode.ORIGINAL else "C") + suffix
    if not accept and not application:
        return "A" + suffix
    if accept and _is_wanted(accept, outcome):
        return "C" + suffix
    if application and _is_wanted(application, outcome):
        return "A" + suffix
    return None if accept else "C" + suffix


def owes_application_answer(header: Header, outcome: Outcome, mode: AckMode = AckMode.BY_MESSAGE) -> bool:
    """Whether an application acknowledgement follows the accept acknowledgement, as a message of its own.

    Where both are wanted of a message that is taken (v2.5.1, 2.9.3). One that isn't taken goes no further: its
    CE or CR is all. Where only one is wanted, it is given at once.
    """
    if mode is not AckMode.BY_MESSAGE or outcome is not Outcome.ACCEPT:
        return False
    wanted = (header.accept_acknowledgment, header.application_acknowledgment)
    return all(condition and _is_wanted(condition, outcome) for condition in wanted)


def _is_wanted(condition: str, outcome: Outcome) -> bool:
    """HL7 table 0155; an unknown condition is answered, since silence looks like a loss."""
    match condition:
        case "NE":
            return False
        case "SU":
            return outcome is Outcome.ACCEPT
        case "ER":
            return outcome is not Outcome.ACCEPT
        case _:
            return True


def acknowledge(
    header: Header,
    outcome: Outcome,
    findings: Sequence[Finding],
    *,
    digest: str,
    at: datetime,
    answers_to: str | None = None,
    mode: AckMode = AckMode.BY_MESSAGE,
) -> str | None:
    """The answer as text, segments ended by CR; None where no answer may be given.

    `answers_to` is MSA-2 when the header stands in for a message that has none of its own.
    """
    code = answer_code(header, outcome, mode)
    if code is None:
        return None
    return acknowledge_with(code, header, findings, digest=digest, at=at, answers_to=answers_to)


def acknowledge_with(
    code: str,
    header: Header,
    findings: Sequence[Finding],
    *,
    digest: str,
    at: datetime,
    answers_to: str | None = None,
) -> str:
    """An answer whose MSA-1 has been decided."""
    errors = [finding for finding in findings if finding.outcome is not Outcome.ACCEPT]
    control_id = escape(header.control_id, header.segment.rules) if answers_to is None else answers_to
    segments = [_msh(header, code, digest, at), _msa(header, code, control_id, errors), *_err(header, errors)]
    return "".join(segment + "\r" for segment in segments)


def reply_control_id(digest: str, code: str) -> str:
    """The same for every repetition of a message, and another when the answer is another."""
    return hashlib.sha256(f"{code}:{digest}".encode()).hexdigest()[:_CONTROL_ID_LENGTH].upper()


def addresses(header: Header) -> list[str]:
    """Fields 1 to 6 of an answer: the receiver now sends (MSH, BHS and FHS are alike here)."""
    segment, rules = header.segment, header.segment.rules
    fields = (segment.raw(number).replace("\n", " ") for number in (5, 6, 3, 4))
    return [rules.characters, *fields]


def instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")


def _msh(header: Header, code: str, digest: str, at: datetime) -> str:
    rules = header.segment.rules
    enhanced = header.accept_acknowledgment or header.application_acknowledgment
    never = "NE" if enhanced else ""  # an acknowledgement is never acknowledged (2.9.3)
    charset = header.segment.raw(18) if header.is_message else ""
    fields = [
        "MSH",
        *addresses(header),
        instant(at),
        "",
        _message_type(header),
        reply_control_id(digest, code),
        escape(header.processing_id, rules) or "P",
        escape(header.version_id, rules) if header.version else _SPOKEN_VERSION,
        "",
        "",
        never,
        never,
        "",
        charset.replace("\n", " "),
    ]
    return rules.field.join(fields).rstrip(rules.field)


def _message_type(header: Header) -> str:
    """`ACK^R01^ACK`; the third component came with v2.3.1, and without an event there is only `ACK`."""
    rules = header.segment.rules
    event = escape(header.trigger_event, rules)
    if not event:
        return "ACK"
    short = header.version in ((2, 1), (2, 2)) or header.version_id == "2.3"
    return rules.component.join(["ACK", event] if short else ["ACK", event, "ACK"])


def _msa(header: Header, code: str, control_id: str, errors: Sequence[Finding]) -> str:
    rules = header.segment.rules
    text = ""
    if errors and (header.version or _ERR_BY_FIELDS) < _MSA_3_WITHDRAWN:
        text = escape(errors[0].text, rules)
    return rules.field.join(["MSA", code, control_id, text]).rstrip(rules.field)


def _err(header: Header, errors: Sequence[Finding]) -> list[str]:
    """One ERR for each error, or one ERR with a repetition for each before v2.5."""
    if not errors:
        return []
    rules = header.segment.rules
    if (header.version or _ERR_BY_FIELDS) >= _ERR_BY_FIELDS:
        return [_err_by_fields(header, finding) for finding in errors]
    return [
        "ERR" + rules.field + (rules.repetition.join(_err_location(header, finding) for finding in errors))
    ]


def _err_by_fields(header: Header, finding: Finding) -> str:
    rules = header.segment.rules
    location = rules.component.join(_location(finding.location))
    code = rules.component.join([str(finding.code.value), finding.code.display, "HL70357"])
    fields = ["ERR", "", location, code, finding.severity.value, "", "", "", escape(finding.text, rules)]
    return rules.field.join(fields)


def _err_location(header: Header, finding: Finding) -> str:
    """ERR-1, an ELD: segment, sequence, field, and the code as subcomponents."""
    rules = header.segment.rules
    segment, sequence, field = [*_location(finding.location), ""][:3]
    code = [str(finding.code.value), finding.code.display, "HL70357"]
    text = rules.subcomponent.join(code) if rules.subcomponent else code[0]
    return rules.component.join([segment, sequence, field, text])


def _location(location: Location) -> list[str]:
    """An ERL: segment, sequence, field, repetition, component, as far as known."""
    parts = [location.segment, str(location.sequence)]
    if location.field is not None:
        parts += [str(location.field)]
    if location.component is not None:
        parts += ["1", str(location.component)]
    return parts


@dataclass(frozen=True, slots=True)
class EnvelopedBatch:
    """`header` is None for messages that stand in a file without a batch; `size` counts their answers."""

    header: Header | None
    size: int
    comment: str


@dataclass(frozen=True, slots=True)
class Envelope:
    file_header: Header | None
    batches: tuple[EnvelopedBatch, ...]


def wrap(envelope: Envelope, answers: Sequence[bytes | None], *, digest: str, at: datetime) -> bytes:
    """The answers in an envelope that refers to the one they answer (HL7 v2.5.1, 2.10.3.3).

    A batch whose messages all go unanswered, or that has none, is answered by an empty batch.
    """
    parts, position = [], 0
    if envelope.file_header:
        parts.append(_envelope_header(envelope.file_header, digest, at))
    for batch in envelope.batches:
        given = [one for one in answers[position : position + batch.size] if one is not None]
        position += batch.size
        if batch.header:
            parts.append(_envelope_header(batch.header, f"{digest}:{position}", at))
        parts += given
        if batch.header:
            parts.append(_trailer("BTS", batch.header, len(given), batch.comment))
    if envelope.file_header:
        count = sum(batch.header is not None for batch in envelope.batches)
        parts.append(_trailer("FTS", envelope.file_header, count, ""))
    return b"".join(parts)


def _envelope_header(header: Header, digest: str, at: datetime) -> bytes:
    """BHS and FHS have the same fields: 11 is the control id, 12 the one that is answered."""
    name, rules = header.segment.name, header.segment.rules
    control_id, reference = reply_control_id(digest, name), header.segment.raw(11).replace("\n", " ")
    fields = [name, *addresses(header), instant(at), "", "", "", control_id, reference]
    return (rules.field.join(fields).rstrip(rules.field) + "\r").encode(rules.codec, errors="replace")


def _trailer(name: str, header: Header, count: int, comment: str) -> bytes:
    rules = header.segment.rules
    fields = [name, str(count), escape(comment, rules)]
    return (rules.field.join(fields).rstrip(rules.field) + "\r").encode(rules.codec, errors="replace")
