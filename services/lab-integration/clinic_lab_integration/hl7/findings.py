"""What is wrong with a message, where, and in the standard's words (HL7 table 0357).

Texts are fixed sentences: they travel to the sender and into logs, so they never repeat the message.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class ErrorCode(IntEnum):
    """HL7 table 0357, message error condition codes (v2.5.1, 2.15.5.3)."""

    SEGMENT_SEQUENCE_ERROR = 100
    REQUIRED_FIELD_MISSING = 101
    DATA_TYPE_ERROR = 102
    UNSUPPORTED_MESSAGE_TYPE = 200
    UNSUPPORTED_EVENT_CODE = 201
    UNSUPPORTED_PROCESSING_ID = 202
    UNSUPPORTED_VERSION_ID = 203
    APPLICATION_INTERNAL_ERROR = 207

    @property
    def display(self) -> str:
        return self.name.replace("_", " ").capitalize()


class Severity(StrEnum):
    """HL7 table 0516: only an error refuses the message; a warning is kept beside it."""

    ERROR = "E"
    WARNING = "W"


class Outcome(StrEnum):
    """HL7 v2.5.1, 2.9.2: a message is taken, wrong in content or format, or not for this receiver."""

    ACCEPT = "accept"
    ERROR = "error"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Location:
    """An error location (ERL): `sequence` counts the segments of that name from 1."""

    segment: str
    sequence: int = 1
    field: int | None = None
    component: int | None = None

    def path(self) -> str:
        """The location as people write it: `MSH-9.2`, `OBX[3]-5`."""
        text = self.segment if self.sequence == 1 else f"{self.segment}[{self.sequence}]"
        if self.field is not None:
            text += f"-{self.field}"
        return text if self.component is None else f"{text}.{self.component}"


@dataclass(frozen=True, slots=True)
class Finding:
    """`outcome` is what an error asks for; a warning asks for nothing. `fix` where `fixes.py` knows none."""

    code: ErrorCode
    location: Location
    text: str
    outcome: Outcome = Outcome.ERROR
    fix: str = ""

    @property
    def severity(self) -> Severity:
        return Severity.WARNING if self.outcome is Outcome.ACCEPT else Severity.ERROR


def warning(code: ErrorCode, location: Location, text: str) -> Finding:
    return Finding(code, location, text, Outcome.ACCEPT)
