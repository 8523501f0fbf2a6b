"""A payload cut into messages: MLLP blocks, several messages, batch and file envelopes.

HL7 v2.5.1, 2.10.3: `[FHS] { [BHS] { [MSH ...] } [BTS] } [FTS]`, each header and trailer optional.
Nothing is skipped: segments outside of every message become a chunk of their own.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from clinic_lab_integration.hl7.charset import UTF8_MARK

# CR ends a segment (v2.5.1, 2.5.1); LF and CRLF are what senders write. MLLP's start and end of block
# (VT, FS) end a line as well, so a payload may arrive with or without its frames.
_LINE = re.compile(rb"[^\r\n\x0b\x1c]+")
_HEADER = re.compile(rb"[ \t]*(MSH|BHS|FHS)(?=[!-/:-@\[-`{-~])")
_TRAILER = re.compile(rb"[ \t]*(BTS|FTS)(?:[!-/:-@\[-`{-~]|[ \t]*$)")
MAX_LINES = 200_000
_PADDING = b" \t\r\n\x00\x0b\x1c\x1a"


class TooManyLinesError(ValueError):
    """Each line costs far more than its bytes: what has millions of them is no laboratory's message."""


@dataclass(slots=True)
class Chunk:
    """One message as sent, or segments that belong to none (`is_stray`)."""

    start: int
    end: int
    lines: list[bytes]
    is_stray: bool


@dataclass(slots=True)
class Batch:
    header: bytes | None = None
    trailer: bytes | None = None
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return self.header is None and self.trailer is None and not self.chunks


@dataclass(slots=True)
class Payload:
    """`content` is the payload without blanks and frames around it; chunks point into it."""

    content: bytes
    file_header: bytes | None = None
    file_trailer: bytes | None = None
    batches: list[Batch] = field(default_factory=list)

    @property
    def headers(self) -> Iterator[bytes]:
        """Every header segment, envelopes first: something to answer to."""
        if self.file_header is not None:
            yield self.file_header
        yield from (batch.header for batch in self.batches if batch.header is not None)
        yield from (chunk.lines[0] for batch in self.batches for chunk in batch.chunks if not chunk.is_stray)

    @property
    def is_enveloped(self) -> bool:
        return self.file_header is not None or any(batch.header is not None for batch in self.batches)


def split(raw: bytes) -> Payload:
    payload = Payload(raw.strip(_PADDING), batches=[Batch()])
    for number, match in enumerate(_LINE.finditer(payload.content)):
        if number == MAX_LINES:
            raise TooManyLinesError
        line = match[0].removeprefix(UTF8_MARK)
        if line.strip(b" \t\x00"):
            _place(payload, line, match.end() - len(match[0]), match.end())
    payload.batches = [batch for batch in payload.batches if not batch.is_empty]
    return payload


def _place(payload: Payload, line: bytes, start: int, end: int) -> None:
    head = _HEADER.match(line) or _TRAILER.match(line)
    batch = payload.batches[-1]
    match head[1] if head else None:
        case b"MSH":
            batch.chunks.append(Chunk(start, end, [line], is_stray=False))
        case b"BHS":
            payload.batches.append(Batch(header=line))
        case b"BTS":
            batch.trailer = batch.trailer or line
            payload.batches.append(Batch())
        case b"FHS":
            payload.file_header = payload.file_header or line
            payload.batches.append(Batch())
        case b"FTS":
            payload.file_trailer = line
            payload.batches.append(Batch())
        case _ if batch.chunks:
            batch.chunks[-1].lines.append(line)
            batch.chunks[-1].end = end
        case _:
            batch.chunks.append(Chunk(start, end, [line], is_stray=True))
