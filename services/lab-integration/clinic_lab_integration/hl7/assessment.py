"""What arrived, message by message: readable or not, taken or refused and why, and the answer.

Pure: `assess` neither stores nor sends. An answer may leave only after its message is durable.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from clinic_lab_integration.hl7.acknowledgement import (
    AckMode,
    Envelope,
    EnvelopedBatch,
    acknowledge,
    acknowledge_with,
    answer_code,
    owes_application_answer,
    wrap,
)
from clinic_lab_integration.hl7.charset import Charset, CharsetSource, decode, is_utf16, read_utf16
from clinic_lab_integration.hl7.envelope import (
    Batch,
    Chunk,
    Payload,
    TooManyLinesError,
    split,
)
from clinic_lab_integration.hl7.findings import ErrorCode, Finding, Location, Outcome, warning
from clinic_lab_integration.hl7.header import Header
from clinic_lab_integration.hl7.model import (
    EncodingRules,
    MalformedDelimitersError,
    Message,
    clean,
    fallback_encoding_rules,
    join_continuations,
    read_encoding_rules,
    read_message,
    read_segment,
)
from clinic_lab_integration.hl7.rules import MAX_SEGMENTS, PROCESSING_IDS, is_acknowledgement, judge

MAX_PAYLOAD_BYTES = 1 << 20
MAX_MESSAGES = 1000

_LINE_END = re.compile(r"[\r\n\x0b\x1c]+")
_BLANKS = " \t\x00\ufeff"


class UnreadablePayloadError(ValueError):
    """No header segment can be read, so there is nobody to answer in HL7."""


class PayloadTooLargeError(ValueError):
    """The payload has more bytes, lines or messages than one request may carry; none of it was taken."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds between a laboratory and us beside the standard.

    `default_charset` (a name of HL7 table 0211) holds for messages whose MSH-18 is empty, where it can.
    `whole` is False for the beginning of a message that was too large to be taken.
    """

    default_charset: str = ""
    ack_mode: AckMode = AckMode.BY_MESSAGE
    processing_ids: frozenset[str] = PROCESSING_IDS
    whole: bool = True


_NO_TERMS = Terms()


class Disposition(StrEnum):
    """An acknowledgement is neither taken nor refused: it answers us and gets no answer."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    ACKNOWLEDGEMENT = "acknowledgement"


@dataclass(frozen=True, slots=True)
class AssessedMessage:
    """One message, or segments that belong to none (`message` is None, the header that of the envelope).

    `raw` are the message's own bytes, without envelope, frame and mark; `digest` is their SHA-256, so
    the same message has the same digest whichever way it came.
    """

    raw: bytes
    digest: str
    charset: Charset
    header: Header
    message: Message | None
    findings: tuple[Finding, ...]
    disposition: Disposition
    ack_mode: AckMode = AckMode.BY_MESSAGE

    @property
    def outcome(self) -> Outcome:
        outcomes = {finding.outcome for finding in self.findings}
        if Outcome.REJECT in outcomes:
            return Outcome.REJECT
        return Outcome.ERROR if Outcome.ERROR in outcomes else Outcome.ACCEPT

    @property
    def answer_code(self) -> str | None:
        """MSA-1; None where no answer may be given."""
        if self.disposition is Disposition.ACKNOWLEDGEMENT:
            return None
        return answer_code(self.header, self.outcome, self.ack_mode)

    def answer(self, *, at: datetime) -> bytes | None:
        """The acknowledgement; None where none may be given. Send it only when `raw` is durable."""
        return self._acknowledge(self.outcome, self.findings, at)

    @property
    def owes_application_answer(self) -> bool:
        """Whether a second answer follows once the message has been processed."""
        taken = self.disposition is Disposition.ACCEPTED
        return taken and owes_application_answer(self.header, self.outcome, self.ack_mode)

    def application_answer(self, findings: Sequence[Finding] = (), *, at: datetime) -> bytes:
        """The second answer: AA, or AR with why what was taken has no effect after all."""
        code = "AR" if findings else "AA"
        text = acknowledge_with(code, self.header, findings, digest=self.digest, at=at)
        return text.encode(self.charset.codec, errors="replace")

    def temporary_refusal(self, *, at: datetime) -> bytes | None:
        """Nothing was stored and the sender is to try again: AE, which engines repeat, unlike AR."""
        text = "The message could not be stored; send it again"
        finding = Finding(ErrorCode.APPLICATION_INTERNAL_ERROR, Location("MSH"), text)
        return self._acknowledge(Outcome.ERROR, (finding,), at)

    def _acknowledge(self, outcome: Outcome, findings: Sequence[Finding], at: datetime) -> bytes | None:
        if self.disposition is Disposition.ACKNOWLEDGEMENT:
            return None
        answers_to = "" if self.message is None else None
        text = acknowledge(
            self.header,
            outcome,
            findings,
            digest=self.digest,
            at=at,
            answers_to=answers_to,
            mode=self.ack_mode,
        )
        return None if text is None else text.encode(self.charset.codec, errors="replace")


@dataclass(frozen=True, slots=True)
class Assessment:
    """The messages of a payload in their order; `findings` are warnings about its envelope."""

    digest: str
    messages: tuple[AssessedMessage, ...]
    envelope: Envelope | None
    findings: tuple[Finding, ...]

    def answer(self, *, at: datetime) -> bytes | None:
        """The body of the response, None for an empty one."""
        return self.wrap([message.answer(at=at) for message in self.messages], at=at)

    def wrap(self, answers: Sequence[bytes | None], *, at: datetime) -> bytes | None:
        """The same out of answers made earlier: one, or None, for each message, in their order."""
        if self.messages and all(answer is None for answer in answers):
            return None
        if self.envelope is None:
            return b"".join(answer for answer in answers if answer is not None)
        return wrap(self.envelope, answers, digest=self.digest, at=at)


def assess(raw: bytes, *, max_bytes: int = MAX_PAYLOAD_BYTES, terms: Terms = _NO_TERMS) -> Assessment:
    """Judge a payload of any kind, in time linear in its size.

    Raises:
        UnreadablePayloadError: it has no readable MSH, BHS or FHS.
        PayloadTooLargeError: it has more than `max_bytes`, or more than `MAX_MESSAGES` messages and batches.
    """
    if len(raw) > max_bytes:
        raise PayloadTooLargeError
    wide = is_utf16(raw)
    try:
        payload = split(read_utf16(raw).encode(errors="replace") if wide else raw)
    except TooManyLinesError:
        raise PayloadTooLargeError from None
    if len(payload.batches) + sum(len(batch.chunks) for batch in payload.batches) > MAX_MESSAGES:
        raise PayloadTooLargeError
    stand_in = next(payload.headers, None)
    if stand_in is None:
        raise UnreadablePayloadError
    messages = [
        _stray(payload, chunk, batch.header or stand_in, terms)
        if chunk.is_stray
        else _message(payload, chunk, terms, wide=wide)
        for batch in payload.batches
        for chunk in batch.chunks
    ]
    digest = hashlib.sha256(payload.content).hexdigest()
    findings = tuple(_envelope_findings(payload))
    return Assessment(digest, tuple(messages), _envelope(payload), findings)


def _message(payload: Payload, chunk: Chunk, terms: Terms, *, wide: bool) -> AssessedMessage:
    declared = _declared_charset(chunk.lines[0])
    text, charset = decode(payload.content[chunk.start : chunk.end], declared or terms.default_charset)
    if charset.contradicted and not declared:
        charset = replace(charset, contradicted=False)  # the sender has said nothing that could be wrong
    if wide:
        charset = Charset("utf-16", CharsetSource.BYTE_ORDER_MARK)
    sent = [line.lstrip("\ufeff\x00") for line in _LINE_END.split(text) if line.strip(_BLANKS)]
    lines = [clean(line) for line in sent]
    rules, findings = _rules(lines[0], charset)
    segments = join_continuations(lines, rules)
    findings += _text_findings(charset, controls=lines != sent, joined=len(segments) < len(lines))
    message = read_message(segments[:MAX_SEGMENTS], rules)
    header = Header(message.segments[0])
    disposition = Disposition.ACKNOWLEDGEMENT
    if not is_acknowledgement(header, message):
        findings += judge(header, message, terms.processing_ids)
        findings += _size_findings(len(segments), whole=terms.whole)
        refused = any(finding.outcome is not Outcome.ACCEPT for finding in findings)
        disposition = Disposition.REFUSED if refused else Disposition.ACCEPTED
    raw = _own_bytes(payload, chunk)
    return AssessedMessage(
        raw, _digest(raw), charset, header, message, tuple(findings), disposition, terms.ack_mode
    )


def _stray(payload: Payload, chunk: Chunk, header_line: bytes, terms: Terms) -> AssessedMessage:
    """Segments between an envelope's header and its first message: refused to whoever sent the envelope."""
    header, charset = _envelope_header(header_line)
    raw = _own_bytes(payload, chunk)
    finding = Finding(
        ErrorCode.SEGMENT_SEQUENCE_ERROR,
        Location("MSH"),
        "Segments stand outside of a message: MSH is missing",
    )
    return AssessedMessage(
        raw, _digest(raw), charset, header, None, (finding,), Disposition.REFUSED, terms.ack_mode
    )


def _own_bytes(payload: Payload, chunk: Chunk) -> bytes:
    return payload.content[chunk.start : chunk.end].lstrip(b"\xef\xbb\xbf \t").rstrip(b" \t\x00")


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _declared_charset(header: bytes) -> str:
    """MSH-18, read before the character set is known: the header's separators are ASCII in all of them.

    Its first repetition is the set of the message (HL7 v2.5.1, 2.15.9.18).
    """
    line = header.lstrip(b" \t")
    fields = line.split(line[3:4], 18)  # MSH-n is part n - 1, the separator itself being MSH-1
    first = b"".join(fields[17:18]).split(line[5:6] or b"~")[0]
    return first.decode("ascii", errors="replace").strip()


def _rules(header: str, charset: Charset) -> tuple[EncodingRules, list[Finding]]:
    line = header.lstrip(" \t")
    try:
        rules = read_encoding_rules(line, charset.codec)
    except MalformedDelimitersError:
        text = "MSH-2 (encoding characters) does not name two to five different separators"
        finding = Finding(ErrorCode.DATA_TYPE_ERROR, Location("MSH", 1, 2), text)
        return fallback_encoding_rules(line, charset.codec), [finding]
    if line[4:].startswith(rules.characters):
        return rules, []
    text = "MSH-2 (encoding characters) has its escape character doubled"
    return rules, [warning(ErrorCode.DATA_TYPE_ERROR, Location("MSH", 1, 2), text)]


def _text_findings(charset: Charset, *, controls: bool, joined: bool) -> list[Finding]:
    findings = []
    if charset.contradicted:
        text = "MSH-18 (character set) does not fit the bytes of the message"
        findings.append(warning(ErrorCode.DATA_TYPE_ERROR, Location("MSH", 1, 18), text))
    if controls:
        text = "Control characters were replaced by U+FFFD"
        findings.append(warning(ErrorCode.DATA_TYPE_ERROR, Location("MSH"), text))
    if joined:
        text = "Lines that start no segment were joined to the segment before"
        findings.append(warning(ErrorCode.SEGMENT_SEQUENCE_ERROR, Location("MSH"), text))
    return findings


def _size_findings(segment_count: int, *, whole: bool) -> list[Finding]:
    if whole and segment_count <= MAX_SEGMENTS:
        return []
    limit = f"more than {MAX_SEGMENTS} segments" if whole else "more bytes than are taken"
    text = f"The message has {limit}"
    return [Finding(ErrorCode.APPLICATION_INTERNAL_ERROR, Location("MSH"), text)]


def _envelope_header(line: bytes) -> tuple[Header, Charset]:
    text, charset = decode(line, "")
    header = clean(text.lstrip(_BLANKS))
    rules, _ = _rules(header, charset)
    return Header(read_segment(header, rules)), charset


def _envelope(payload: Payload) -> Envelope | None:
    if not payload.is_enveloped:
        return None
    file_header = _envelope_header(payload.file_header)[0] if payload.file_header else None
    batches = [
        EnvelopedBatch(
            header=_envelope_header(batch.header)[0] if batch.header else None,
            size=len(batch.chunks),
            comment=" ".join(finding.text for finding in _batch_findings(number, batch)),
        )
        for number, batch in enumerate(payload.batches, 1)
    ]
    return Envelope(file_header, tuple(batches))


def _envelope_findings(payload: Payload) -> Iterator[Finding]:
    for number, batch in enumerate(payload.batches, 1):
        yield from _batch_findings(number, batch)
    if (payload.file_header is None) != (payload.file_trailer is None):
        yield warning(ErrorCode.SEGMENT_SEQUENCE_ERROR, Location("FTS"), "FHS and FTS do not come in a pair.")


def _batch_findings(number: int, batch: Batch) -> Iterator[Finding]:
    """A batch that was cut off: its messages are taken one by one, and the sender is told."""
    if (batch.header is None) != (batch.trailer is None):
        yield warning(
            ErrorCode.SEGMENT_SEQUENCE_ERROR, Location("BTS", number), "BHS and BTS do not come in a pair."
        )
    if batch.trailer is None:
        return
    trailer = batch.trailer.strip()
    announced = trailer.split(trailer[3:4], 2)[1].strip() if trailer[3:] else b""
    count = sum(not chunk.is_stray for chunk in batch.chunks)
    if announced.isdigit() and announced.lstrip(b"0") != (b"%d" % count).lstrip(b"0"):
        text = "BTS-1 (batch message count) is not the number of messages."
        yield warning(ErrorCode.DATA_TYPE_ERROR, Location("BTS", number, 1), text)
