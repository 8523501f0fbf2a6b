"""What an interface's author should correct though it refuses nothing: each by segment, field, component.

Only a validation asks for it: a laboratory at work is not bothered with what we can read all the same.
"""

import base64
import binascii
from collections.abc import Iterator

from clinic_lab_integration.hl7.datatypes import read_number, read_timestamp
from clinic_lab_integration.hl7.findings import ErrorCode, Finding, Location, Outcome
from clinic_lab_integration.hl7.model import NULL, Message, Segment

READ_SEGMENTS = frozenset({"MSH", "PID", "PV1", "ORC", "OBR", "OBX", "SPM", "NTE"})
MOST_FINDINGS = 200
_VALUE_TYPES = frozenset(
    {"NM", "SN", "ST", "TX", "FT", "CE", "CF", "CNE", "CWE", "DT", "TS", "DTM", "TM", "ED", "RP"}
)
_RESULT_STATUSES = frozenset("ABCDFINOPRSUVWX")
_TIMES = {"MSH": (7,), "PID": (7,), "OBR": (7, 22), "OBX": (14,), "SPM": (17, 18)}


def review(message: Message) -> Iterator[Finding]:
    """Warnings in the order of the segments, no more than MOST_FINDINGS."""
    for count, finding in enumerate(_every(message)):
        if count == MOST_FINDINGS:
            return
        yield finding


def unread_segments(message: Message) -> tuple[str, ...]:
    """Segments that are kept with the message, and that nothing is taken out of."""
    return tuple(sorted({segment.name for segment in message.segments} - READ_SEGMENTS))


def _every(message: Message) -> Iterator[Finding]:
    for segment in message.segments:
        yield from _times(segment)
        match segment.name:
            case "PID":
                yield from _patient(segment)
            case "OBR":
                yield from _order(segment)
            case "OBX":
                yield from _observation(segment)


def _warn(
    segment: Segment,
    field: int,
    text: str,
    fix: str,
    code: ErrorCode = ErrorCode.DATA_TYPE_ERROR,
    component: int | None = None,
) -> Finding:
    place = Location(segment.name, segment.sequence, field, component)
    return Finding(code, place, text, Outcome.ACCEPT, fix)


def _missing(segment: Segment, field: int, text: str, fix: str, component: int | None = None) -> Finding:
    return _warn(segment, field, text, fix, ErrorCode.REQUIRED_FIELD_MISSING, component)


def _times(segment: Segment) -> Iterator[Finding]:
    for field in _TIMES.get(segment.name, ()):
        text = segment.text(field, 1)
        if text and read_timestamp(text).precision is None:
            yield _warn(segment, field, "This is no HL7 time", "Write YYYYMMDDHHMMSS+ZZZZ, or less of it.")


def _patient(pid: Segment) -> Iterator[Finding]:
    numbers = [number for number in pid.repetitions(3) if number.raw not in ("", NULL)]
    if not numbers:
        fix = "Send the number that the order came with, its authority in PID-3.4."
        yield _missing(pid, 3, "There is no patient's number", fix)
    if any(not number.component(4) for number in numbers):
        fix = "Name who assigned each number in PID-3.4, or agree with the clinic on a default."
        yield _missing(pid, 3, "A number without its assigning authority matches nobody", fix, 4)


def _order(obr: Segment) -> Iterator[Finding]:
    if not obr.text(4):
        yield _missing(obr, 4, "Nothing says what was examined", "Name the test or panel in OBR-4.")
    if not obr.text(3):
        fix = "Give each report your number (filler order number): its corrections are found by it."
        yield _missing(obr, 3, "The report has no number of yours", fix)
    if not obr.text(25):
        yield _missing(
            obr, 25, "The report has no status", "Write F, P, C or another of table 0123 into OBR-25."
        )


def _observation(obx: Segment) -> Iterator[Finding]:
    if not obx.text(3):
        yield _missing(obx, 3, "Nothing says what was observed", "Name the observation in OBX-3.")
    if obx.text(11) not in _RESULT_STATUSES:
        fix = "Write F, P, C or another of table 0085 into OBX-11."
        yield _missing(obx, 11, "The observation has no known status", fix)
    yield from _value(obx)


def _value(obx: Segment) -> Iterator[Finding]:
    kind, values = obx.text(2), [one for one in obx.repetitions(5) if one.raw not in ("", NULL)]
    if values and kind not in _VALUE_TYPES:
        fix = "Name the type of OBX-5 in OBX-2: NM, SN, ST, TX, FT, CWE, DTM, ED or RP."
        yield _warn(obx, 2, "This value type is not known here: the value is taken as text", fix)
    if kind == "NM" and any(read_number(one.text).number is None for one in values):
        yield _warn(obx, 5, "This is no number", "Send <0.01 and the like as SN: <^0.01, or as ST.")
    if kind == "NM" and values and not obx.text(6):
        yield _missing(obx, 6, "A number without its unit", "Name the unit in OBX-6, best in UCUM.")
    if kind == "ED" and any(
        not _is_base64(one.component(5)) for one in values if one.component(4) == "Base64"
    ):
        fix = "Send the document's bytes in Base64, in one line."
        yield _warn(obx, 5, "The document is not Base64", fix, component=5)


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
