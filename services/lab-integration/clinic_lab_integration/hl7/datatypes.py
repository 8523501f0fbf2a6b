"""HL7 data types as values: times with their precision, codes, identifiers, results as written.

Nothing is rounded, completed or refused here: what can't be read stays as text beside it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import StrEnum

from clinic_lab_integration.hl7.model import Repetition

# TS and DTM (v2.5.1, 2.A.22): YYYY[MM[DD[HH[MM[SS[.S[S[S[S]]]]]]]]][+/-ZZZZ]
_TIME = re.compile(
    r"(\d{4})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,9}))?)?)?)?)?)?([+-]\d{4})?",
    re.ASCII,
)
_OFFSET = re.compile(r".*([+-])(\d{2})(\d{2})", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})", re.ASCII)


class Precision(StrEnum):
    YEAR = "year"
    MONTH = "month"
    DAY = "day"
    HOUR = "hour"
    MINUTE = "minute"
    SECOND = "second"
    FRACTION = "fraction"


@dataclass(frozen=True, slots=True)
class Timestamp:
    """`on` is the date as written, where it has a day; `at` is UTC, where it has an hour and a zone.

    `precision` is None for text that is no time; `text` is always what was sent.
    """

    text: str
    precision: Precision | None = None
    on: date | None = None
    at: datetime | None = None


def read_offset(text: str) -> tzinfo | None:
    match = _OFFSET.fullmatch(text)
    if match is None or int(match[2]) > 14 or int(match[3]) > 59:  # noqa: PLR2004 - zones end at +14:00
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(-offset if match[1] == "-" else offset)


def read_timestamp(text: str, zone: tzinfo | None = None) -> Timestamp:
    """A time; `zone` holds where the text names none, and without it `at` stays None."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return Timestamp(text)
    parts = [int(part) for part in match.groups()[:6] if part is not None]
    fraction, offset = match[7], match[8]
    precision = Precision.FRACTION if fraction else list(Precision)[len(parts) - 1]
    try:
        on = date(*[*parts, 1, 1][:3])
        at = _moment(parts, fraction, read_offset(offset) if offset else zone)
    except (ValueError, OverflowError):  # the 31st of February; the year 0000; no such instant in UTC
        return Timestamp(text)
    has_day = precision not in (Precision.YEAR, Precision.MONTH)
    return Timestamp(text, precision, on if has_day else None, at)


def _moment(parts: list[int], fraction: str | None, zone: tzinfo | None) -> datetime | None:
    if len(parts) < 4:  # noqa: PLR2004 - a date is not an instant
        return None
    microsecond = int((fraction or "0").ljust(6, "0")[:6])
    year, month, day, hour, minute, second = (*parts, 0, 0)[:6]
    # An hour that does not exist must be noticed also where no zone is known to place it in.
    moment = datetime(year, month, day, hour, minute, second, microsecond, tzinfo=zone or UTC)
    return moment.astimezone(UTC) if zone else None


@dataclass(frozen=True, slots=True)
class EntityIdentifier:
    """An order number (EI): opaque, and meaningful only together with who gave it."""

    value: str
    namespace: str = ""
    universal_id: str = ""
    universal_id_type: str = ""

    @property
    def authority(self) -> str:
        return self.namespace or self.universal_id


def read_entity_identifier(repetition: Repetition) -> EntityIdentifier | None:
    parts = [repetition.component(number).strip() for number in (1, 2, 3, 4)]
    return EntityIdentifier(*parts) if parts[0] else None


@dataclass(frozen=True, slots=True)
class PatientIdentifier:
    """A patient's number (CX) with its assigning authority; `type_code` is of HL7 table 0203."""

    value: str
    namespace: str = ""
    universal_id: str = ""
    universal_id_type: str = ""
    type_code: str = ""

    @property
    def authority(self) -> str:
        return self.namespace or self.universal_id


def read_patient_identifier(repetition: Repetition) -> PatientIdentifier | None:
    value = repetition.component(1).strip()
    authority = repetition.nested(4)
    namespace, universal_id, id_type = (authority.component(number).strip() for number in (1, 2, 3))
    if not value:
        return None
    return PatientIdentifier(value, namespace, universal_id, id_type, repetition.component(5).strip())


@dataclass(frozen=True, slots=True)
class Coding:
    code: str
    display: str = ""
    system: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """A CE, CNE or CWE: the same meaning in up to two code systems, local ones kept as they are."""

    codings: tuple[Coding, ...] = ()
    original_text: str = ""

    @property
    def first(self) -> Coding:
        return self.codings[0] if self.codings else Coding("")

    @property
    def text(self) -> str:
        """What to show: the words of the sender, else the code itself."""
        displays = (coding.display for coding in self.codings if coding.display)
        return self.original_text or next(displays, self.first.code)


def read_code(repetition: Repetition) -> Code:
    parts = [repetition.component(number).strip() for number in range(1, 10)]
    triples = (Coding(*parts[:3]), Coding(*parts[3:6]))
    return Code(tuple(coding for coding in triples if coding.code or coding.display), parts[8])


@dataclass(frozen=True, slots=True)
class Text:
    """ST, TX, FT, and every type this list doesn't know: the words as sent."""

    text: str


@dataclass(frozen=True, slots=True)
class Numeric:
    """An NM. `number` keeps the digits as written (4.10 is not 4.1); None for `<0.01` and the like."""

    text: str
    number: Decimal | None


@dataclass(frozen=True, slots=True)
class StructuredNumeric:
    """An SN: `>^100`, `^1^:^80`, `^2^-^5`."""

    comparator: str
    first: str
    separator: str
    second: str

    @property
    def text(self) -> str:
        return self.comparator + self.first + self.separator + self.second


@dataclass(frozen=True, slots=True)
class EncapsulatedData:
    """An ED: a document inside the message; `content` is still in its `encoding` (Base64, Hex, A)."""

    media_type: str
    subtype: str
    encoding: str
    content: str

    @property
    def text(self) -> str:
        return "/".join(part for part in (self.media_type, self.subtype) if part)


@dataclass(frozen=True, slots=True)
class ReferencePointer:
    """An RP: a document elsewhere."""

    text: str
    media_type: str
    subtype: str


Value = Text | Numeric | StructuredNumeric | Code | Timestamp | EncapsulatedData | ReferencePointer


def read_number(text: str) -> Numeric:
    written = text.strip()
    return Numeric(written, Decimal(written) if _NUMBER.fullmatch(written) else None)


def _read_structured_number(repetition: Repetition) -> StructuredNumeric:
    return StructuredNumeric(*(repetition.component(number).strip() for number in (1, 2, 3, 4)))


def _read_encapsulated(repetition: Repetition) -> EncapsulatedData:
    return EncapsulatedData(*(repetition.component(number) for number in (2, 3, 4, 5)))


def _read_pointer(repetition: Repetition) -> ReferencePointer:
    return ReferencePointer(*(repetition.component(number) for number in (1, 3, 4)))


_READERS: dict[str, Callable[[Repetition], Value]] = {
    "NM": lambda repetition: read_number(repetition.text),
    "SN": _read_structured_number,
    "ED": _read_encapsulated,
    "RP": _read_pointer,
    **dict.fromkeys(("CE", "CF", "CNE", "CWE"), read_code),
}


def read_value(value_type: str, repetition: Repetition, zone: tzinfo | None) -> Value:
    """One repetition of OBX-5 in the type that OBX-2 names (HL7 v2.5.1, 7.4.2.5)."""
    if value_type in ("DT", "TS", "DTM"):
        return read_timestamp(repetition.component(1).strip(), zone)
    reader = _READERS.get(value_type)
    return Text(repetition.text) if reader is None else reader(repetition)
