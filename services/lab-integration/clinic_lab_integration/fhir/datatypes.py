"""FHIR R4's data types as the values that `hl7` has for the same things."""

import re
from datetime import UTC, date, datetime

from clinic_lab_integration.fhir.elements import Element
from clinic_lab_integration.hl7.datatypes import (
    Code,
    Coding,
    EntityIdentifier,
    Numeric,
    PatientIdentifier,
    Precision,
    StructuredNumeric,
    Text,
    Timestamp,
    Value,
    read_number,
)

_DATE_TIME = re.compile(
    r"(\d{4})(?:-(\d{2})(?:-(\d{2})(T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:\d{2}))?)?)?",
    re.ASCII,
)
_FRACTION = re.compile(r"\.(\d{6})\d+")

NOTHING = Timestamp("")
NO_CODE = Code()


def read_date_time(element: Element, name: str) -> Timestamp:
    """A date, dateTime or instant. What has a time has its zone (http://hl7.org/fhir/R4/datatypes.html)."""
    text = element.text(name)
    if not text:
        return NOTHING
    match = _DATE_TIME.fullmatch(text)
    found = _timestamp(text, match) if match else None
    if found is None:
        element.report(name, "value", "This must be a FHIR date, dateTime or instant; a time has its zone")
        return Timestamp(text)
    return found


def _timestamp(text: str, match: re.Match[str]) -> Timestamp | None:
    year, month, day, time = match.groups()
    try:
        on = date(int(year), int(month or 1), int(day or 1))
        at = datetime.fromisoformat(_FRACTION.sub(r".\1", text)).astimezone(UTC) if time else None
    except (ValueError, OverflowError):
        return None
    precision = Precision.SECOND if at else list(Precision)[sum(part is not None for part in (month, day))]
    return Timestamp(text, precision, on if day else None, at)


def read_concept(element: Element | None) -> Code:
    """A CodeableConcept: up to two codings, and the words of the sender."""
    if element is None:
        return NO_CODE
    codings = [
        Coding(one.text("code"), one.text("display"), one.text("system"))
        for one in element.children("coding")
    ]
    return Code(tuple(one for one in codings if one.code or one.display)[:2], element.text("text"))


def read_order_number(identifier: Element) -> EntityIdentifier | None:
    value = identifier.text("value")
    return EntityIdentifier(value, _assigner(identifier), identifier.text("system")) if value else None


def read_identifier(identifier: Element) -> PatientIdentifier | None:
    value = identifier.text("value")
    if not value:
        return None
    kind = read_concept(identifier.child("type")).first.code
    return PatientIdentifier(value, _assigner(identifier), identifier.text("system"), type_code=kind)


def _assigner(identifier: Element) -> str:
    """An authority that is no URI can't be a `system`: it is named as who assigned the number."""
    assigner = identifier.loosely().child("assigner")
    return assigner.text("display") if assigner and not identifier.has("system") else ""


# -- the values of an Observation


def read_quantity(element: Element) -> tuple[str, Value]:
    """The type as OBX-2 would name it, and the value with the digits as they were written."""
    number, comparator = element.number("value"), element.text("comparator")
    if not number:
        element.report("value", "required", "A quantity without its number says nothing")
    if comparator:
        return "SN", StructuredNumeric(comparator, number, "", "")
    return "NM", read_number(number)


def read_unit(element: Element | None) -> Code:
    if element is None:
        return NO_CODE
    code, unit, system = element.text("code"), element.text("unit"), element.text("system")
    return Code((Coding(code or unit, unit, system),)) if code or unit else NO_CODE


def read_range(element: Element) -> str:
    """`3.9-6.1`, `>3.9`, `<6.1`."""
    low, high = (_bound(element, name) for name in ("low", "high"))
    if low and high:
        return f"{low}-{high}"
    return f">{low}" if low else f"<{high}" if high else ""


def _bound(element: Element, name: str) -> str:
    bound = element.child(name)
    return bound.number("value") if bound else ""


def read_ratio(element: Element) -> StructuredNumeric:
    return StructuredNumeric("", _bound(element, "numerator"), ":", _bound(element, "denominator"))


def read_integer(element: Element, name: str) -> Numeric:
    return read_number(element.number(name))


def read_boolean(element: Element, name: str) -> Text:
    value = element.value.get(name)
    if not isinstance(value, bool):
        element.report(name, "value", "This must be true or false")
    return Text("true" if value is True else "false")
