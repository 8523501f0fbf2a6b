"""When a message is taken: what is checked before the answer, each check with its table-0357 code.

Type, processing id and version reject (AR); content and format are errors (AE): HL7 v2.5.1, 2.9.2.
Checked is what a receiver needs to file the results, not every optionality of the standard: a result
refused for a missing set id is a result that a doctor does not see.
"""

from collections.abc import Iterator

from clinic_lab_integration.hl7.findings import ErrorCode, Finding, Location, Outcome, warning
from clinic_lab_integration.hl7.header import Header
from clinic_lab_integration.hl7.model import Message

MAX_SEGMENTS = 2000

_ACKNOWLEDGEMENTS = frozenset({"ACK", "MCF"})
_SUPPORTED_EVENTS = {"ORU": frozenset({"R01"})}
PRODUCTION, TESTS = frozenset({"P"}), frozenset({"T", "D"})
PROCESSING_IDS = PRODUCTION | TESTS  # HL7 table 0103


def is_acknowledgement(header: Header, message: Message) -> bool:
    """It answers a message of ours, and to answer it would never end (HL7 v2.5.1, 2.9.3).

    Any message with an MSA is one, but for ORU, which has no MSA: there a stray one must not make
    results disappear without an answer.
    """
    if header.message_code in _ACKNOWLEDGEMENTS:
        return True
    return header.message_code != "ORU" and bool(message.all("MSA"))


def judge(
    header: Header, message: Message, processing_ids: frozenset[str] = PROCESSING_IDS
) -> Iterator[Finding]:
    """What is wrong with a message that is no acknowledgement; nothing, if it is to be taken.

    `processing_ids` are those agreed with the sender: a laboratory that is tried out must not reach
    charts by a forgotten P, nor a test message of one at work.
    """
    yield from _judge_type(header)
    if not header.control_id:
        yield Finding(
            ErrorCode.REQUIRED_FIELD_MISSING, Location("MSH", 1, 10), "MSH-10 (message control id) is empty"
        )
    yield from _judge_processing_id(header, processing_ids)
    yield from _judge_version(header)
    if header.message_code == "ORU":
        yield from _judge_structure(message)


def _judge_type(header: Header) -> Iterator[Finding]:
    if not header.message_code:
        yield _rejection(ErrorCode.REQUIRED_FIELD_MISSING, 9, "MSH-9 (message type) is empty")
        return
    events = _SUPPORTED_EVENTS.get(header.message_code)
    if events is None:
        text = "This message type is not received here; results (ORU R01) are"
        yield _rejection(ErrorCode.UNSUPPORTED_MESSAGE_TYPE, 9, text, component=1)
    elif _event(header) not in events:
        text = "This trigger event is not received here; results (ORU R01) are"
        yield _rejection(ErrorCode.UNSUPPORTED_EVENT_CODE, 9, text, component=2)


def _event(header: Header) -> str:
    """The trigger event; versions 2.1 and 2.2 know R01 alone and let it be left out."""
    if header.trigger_event or header.version not in ((2, 1), (2, 2)):
        return header.trigger_event or header.message_structure.removeprefix("ORU_")
    return "R01"


def _judge_processing_id(header: Header, taken: frozenset[str]) -> Iterator[Finding]:
    if not header.processing_id:
        yield _rejection(ErrorCode.REQUIRED_FIELD_MISSING, 11, "MSH-11 (processing id) is empty")
    elif header.processing_id not in PROCESSING_IDS:
        text = "MSH-11 (processing id) is none of P, T and D"
        yield _rejection(ErrorCode.UNSUPPORTED_PROCESSING_ID, 11, text)
    elif header.processing_id in TESTS - taken:
        text = "MSH-11 (processing id) marks a test, and this sender is in production: P is taken"
        yield _rejection(ErrorCode.UNSUPPORTED_PROCESSING_ID, 11, text)
    elif header.processing_id in PRODUCTION - taken:
        text = "MSH-11 (processing id) is P, and this sender is in test mode: T and D are taken"
        yield _rejection(ErrorCode.UNSUPPORTED_PROCESSING_ID, 11, text)


def _judge_version(header: Header) -> Iterator[Finding]:
    if not header.version_id:
        yield _rejection(ErrorCode.REQUIRED_FIELD_MISSING, 12, "MSH-12 (version id) is empty")
    elif header.version is None:
        yield _rejection(ErrorCode.UNSUPPORTED_VERSION_ID, 12, "Versions 2.1 to 2.9 are received here")


def _rejection(code: ErrorCode, field: int, text: str, component: int | None = None) -> Finding:
    return Finding(code, Location("MSH", 1, field, component), text, Outcome.REJECT)


def _judge_structure(message: Message) -> Iterator[Finding]:
    """ORU^R01 needs an order (OBR); an ORC that none follows is kept, and noticed."""
    if not message.all("OBR"):
        yield Finding(ErrorCode.SEGMENT_SEQUENCE_ERROR, Location("OBR"), "There is no OBR segment")
    opened: Location | None = None
    for segment in message.segments:
        if segment.name in ("ORC", "PID") and opened:
            yield warning(
                ErrorCode.SEGMENT_SEQUENCE_ERROR, opened, "An ORC segment is not followed by an OBR"
            )
        if segment.name in ("ORC", "PID", "OBR"):
            opened = Location("ORC", segment.sequence) if segment.name == "ORC" else None
