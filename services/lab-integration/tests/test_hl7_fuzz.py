"""Whatever bytes come, they are judged, answered in HL7 or refused by a declared error, and in time."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from clinic_lab_integration.hl7 import (
    MAX_PAYLOAD_BYTES,
    Disposition,
    PayloadTooLargeError,
    UnreadablePayloadError,
    read_report,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import assess

AT = datetime(2026, 1, 15, tzinfo=UTC)
SAMPLES = [
    path.read_bytes() for path in sorted((Path(__file__).parents[3] / "contracts" / "hl7").glob("*.hl7"))
]
PIECES = [
    b"\r",
    b"\n",
    b"\x0b",
    b"\x1c",
    b"|",
    b"^",
    b"~",
    b"\\",
    b"&",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"MSH|",
    b'""',
]
PIECES += [
    b"BHS|^~\\&|",
    b"BTS|1\r",
    b"\rPID|",
    b"\rOBX|",
    b"\rMSA|AA|1\r",
    b"\\X41\\",
    b"\xd0",
    b"20260231",
    b"\\.sp9999\\",
]


def examine(raw: bytes) -> None:
    """Everything that a payload goes through; only the declared error may come out."""
    try:
        assessment = assess(raw)
    except UnreadablePayloadError:
        return
    answers = [message.answer(at=AT) for message in assessment.messages]
    for message, answer in zip(assessment.messages, answers, strict=True):
        assert message.raw in raw or raw[:2] in (b"\xff\xfe", b"\xfe\xff", b"M\x00", b"\x00M")
        if message.message is not None:
            read_report(message.message)
        if message.disposition is Disposition.ACKNOWLEDGEMENT:
            assert answer is None
        if answer is not None:
            (echo,) = assess(answer).messages
            assert echo.disposition is Disposition.ACKNOWLEDGEMENT
    assessment.wrap(answers, at=AT)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, len(raw)))
        end = start + draw(st.sampled_from([0, 0, 1, 1, 2, 8, 300]))
        raw[start:end] = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)))
    return bytes(raw)


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_mutated_messages_are_judged(raw):
    examine(raw)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda tail: b"MSH" + tail)))
def test_arbitrary_bytes_are_judged(raw):
    examine(raw)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.sampled_from(["utf-8", "cp1251", "iso8859_5"]))
def test_any_text_that_is_escaped_arrives_as_it_was(text, codec):
    text = "".join(
        one
        for one in text.encode(codec, "ignore").decode(codec)
        if one.isprintable() and one not in '"\ufeff'
    )
    quoted = (
        text.replace("\\", "\\E\\")
        .replace("|", "\\F\\")
        .replace("^", "\\S\\")
        .replace("&", "\\T\\")
        .replace("~", "\\R\\")
    )
    declared = {"utf-8": "UNICODE UTF-8", "cp1251": "WINDOWS-1251", "iso8859_5": "8859/5"}[codec]
    header = f"MSH|^~\\&|A|B|C|D|||ORU^R01|1|P|2.5||||||{declared}"
    (message,) = assess(f"{header}\rOBR|1\rOBX|1|ST|a||{quoted}|end".encode(codec)).messages
    assert message.message.all("OBX")[0].first(5).text == text
    assert message.message.get("OBX-6") == "end"


HEADER = b"MSH|^~\\&|A|B|C|D|||ORU^R01|1|P|2.5\rPID|1||"


@pytest.mark.parametrize(
    "filler",
    [
        b"a\n",
        b"~",
        b"^",
        b"|",
        b"\\",
        b"\\X41",
        b"\\X41\\",
        b"&",
        b"MSH|\r",
        b"BHS|\r",
        b"OBX|1\r",
        b"\xe0",
        b"\xe0 ",
        b"\x00",
        b"\r",
        b"\\.",
        b"OBX|1|NM|a||1\n",
    ],
)
def test_the_largest_payload_is_judged_in_seconds(filler):
    raw = HEADER + filler * ((MAX_PAYLOAD_BYTES - len(HEADER)) // len(filler))
    started = time.process_time()
    try:
        for message in assess(raw).messages[:1]:
            message.answer(at=AT)
            read_report(message.message)
    except PayloadTooLargeError:
        assert filler in (b"MSH|\r", b"BHS|\r", b"a\n")
    assert time.process_time() - started < 5
