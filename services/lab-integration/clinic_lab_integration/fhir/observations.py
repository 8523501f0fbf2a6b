"""Observation resources as the observations of a report.

Panels (`hasMember`) and components are taken apart: each value stands for itself, as an OBX does.
"""

from collections.abc import Callable, Iterator

from clinic_lab_integration.fhir.datatypes import (
    NO_CODE,
    read_boolean,
    read_concept,
    read_date_time,
    read_integer,
    read_quantity,
    read_range,
    read_ratio,
    read_unit,
)
from clinic_lab_integration.fhir.elements import Element
from clinic_lab_integration.fhir.issues import Severity
from clinic_lab_integration.fhir.references import References
from clinic_lab_integration.hl7 import Observation, ResultStatus
from clinic_lab_integration.hl7.datatypes import Code, Text, Timestamp, Value

_MOST_OBSERVATIONS = 5000
_DEEPEST = 5

# http://hl7.org/fhir/R4/valueset-observation-status.html to OBX-11 (HL7 table 0085).
STATUSES = {
    "registered": ("I", ResultStatus.REGISTERED),
    "preliminary": ("P", ResultStatus.PRELIMINARY),
    "final": ("F", ResultStatus.FINAL),
    "amended": ("A", ResultStatus.AMENDED),
    "corrected": ("C", ResultStatus.CORRECTED),
    "cancelled": ("X", ResultStatus.CANCELLED),
    "entered-in-error": ("D", ResultStatus.ENTERED_IN_ERROR),
    "unknown": ("P", ResultStatus.PRELIMINARY),
}
_Read = tuple[str, Value, Code]


def _of_child(kind: str, read: Callable[[Element], Value]) -> Callable[[Element, str], _Read]:
    def apply(element: Element, name: str) -> _Read:
        child = element.child(name)
        return (kind, read(child), NO_CODE) if child else (kind, Text(""), NO_CODE)

    return apply


def _quantity(element: Element, name: str) -> _Read:
    quantity = element.child(name)
    return (*read_quantity(quantity), read_unit(quantity)) if quantity else ("NM", Text(""), NO_CODE)


def _range(element: Element, name: str) -> _Read:
    found = element.child(name)
    unit = read_unit(found.child("low") or found.child("high")) if found else NO_CODE
    return "ST", Text(read_range(found) if found else ""), unit


def _text(element: Element, name: str) -> _Read:
    return "ST", Text(element.text(name)), NO_CODE


_VALUES: dict[str, Callable[[Element, str], _Read]] = {
    "valueQuantity": _quantity,
    "valueCodeableConcept": _of_child("CWE", read_concept),
    "valueString": _text,
    "valueBoolean": lambda element, name: ("ST", read_boolean(element, name), NO_CODE),
    "valueInteger": lambda element, name: ("NM", read_integer(element, name), NO_CODE),
    "valueRange": _range,
    "valueRatio": _of_child("SN", read_ratio),
    "valueSampledData": _of_child("ST", lambda data: Text(data.text("data"))),
    "valueTime": _text,
    "valueDateTime": lambda element, name: ("DTM", read_date_time(element, name), NO_CODE),
    "valuePeriod": _of_child("ST", lambda p: Text(f"{p.text('start')}/{p.text('end')}")),
}


class ObservationReader:
    """Reads the observations of one report, each once, wherever it is referred to from."""

    def __init__(self, references: References, report: Element, subject: Element | None) -> None:
        self._references = references
        self._report = report
        self._subject = subject
        self._seen: set[str] = set()
        self._found: list[Observation] = []

    def read(self) -> tuple[Observation, ...]:
        for reference in self._report.children("result"):
            self._follow(reference, self._report, depth=0)
        return tuple(self._found)

    def _follow(self, reference: Element, inside: Element, *, depth: int) -> None:
        resource = self._references.resolve(reference, inside)
        if resource is None or resource.type != "Observation":
            reference.report(
                "reference", "not-found", "No Observation of the Bundle, and none contained, has this name"
            )
        elif depth > _DEEPEST or len(self._found) >= _MOST_OBSERVATIONS:
            reference.report("", "too-costly", "Observations are nested too deeply, or there are too many")
        elif resource.path not in self._seen:
            self._seen.add(resource.path)
            self._take(resource)
            for member in resource.children("hasMember"):
                self._follow(
                    member, self._report if "contained" in resource.path else resource, depth=depth + 1
                )

    def _take(self, resource: Element) -> None:
        self._check_subject(resource)
        status = _status(resource)
        components = resource.children("component")
        if _value_names(resource) or not (components or resource.has("hasMember")):
            self._add(resource, resource, status, sub_id="")
        for number, component in enumerate(components, 1):
            self._add(component, resource, status, sub_id=str(number))

    def _check_subject(self, resource: Element) -> None:
        """A value of somebody else must not get into this report's chart."""
        subject = resource.child("subject")
        if subject is None or not subject.has("reference"):
            return
        named = self._references.resolve(subject, self._report if "contained" in resource.path else resource)
        if named is not None and self._subject is not None and named.path != self._subject.path:
            subject.report("reference", "business-rule", "This is another patient than the report's")

    def _add(
        self, element: Element, resource: Element, status: tuple[str, ResultStatus], *, sub_id: str
    ) -> None:
        code = read_concept(element.child("code"))
        if not code.text:
            element.report("code", "required", "An observation without a code, or words for it, says nothing")
        value_type, values, units = _value(element)
        status_code, state = status
        self._found.append(
            Observation(
                position=len(self._found) + 1,
                value_type=value_type,
                code=code,
                sub_id=sub_id,
                values=values,
                units=units,
                reference_range="; ".join(_reference_ranges(element)),
                flags=tuple(_flags(element)),
                status_code=status_code,
                status=state,
                observed_at=_observed_at(resource),
                performer="",
                notes=tuple(_notes(resource, element)),
            )
        )


def _status(resource: Element) -> tuple[str, ResultStatus]:
    given = resource.text("status")
    if given not in STATUSES:
        code = "value" if given else "required"
        resource.report("status", code, "This must be a code of the value set observation-status")
    return STATUSES.get(given, STATUSES["unknown"])


def _value_names(element: Element) -> list[str]:
    return [name for name in element.value if name.startswith("value") and element.has(name)]


def _value(element: Element) -> tuple[str, tuple[Value, ...], Code]:
    names = _value_names(element)
    if len(names) > 1:
        element.report("value", "structure", "There is more than one value[x]")
    known = [name for name in names if name in _VALUES]
    if names and not known:
        element.report(names[0], "not-supported", "This type of value[x] is none of FHIR R4's")
    if not known:
        if not element.has("dataAbsentReason") and not names:
            element.report("value", "incomplete", "There is no value and no reason why", Severity.WARNING)
        return "", (), NO_CODE
    kind, value, units = _VALUES[known[0]](element, known[0])
    return kind, (value,), units


def _observed_at(resource: Element) -> Timestamp:
    period = resource.child("effectivePeriod")
    if period is not None:
        return read_date_time(period, "start")
    name = "effectiveInstant" if resource.has("effectiveInstant") else "effectiveDateTime"
    return read_date_time(resource, name)


def _reference_ranges(element: Element) -> Iterator[str]:
    for one in element.children("referenceRange"):
        text = one.text("text") or read_range(one)
        if text:
            yield text


def _flags(element: Element) -> Iterator[str]:
    for concept in element.children("interpretation"):
        code = read_concept(concept)
        if code.first.code or code.text:
            yield code.first.code or code.text


def _notes(resource: Element, element: Element) -> Iterator[str]:
    for note in resource.loosely().children("note"):
        yield note.text("text")
    for name in ("dataAbsentReason", "bodySite", "method"):
        words = read_concept(element.loosely().child(name)).text
        if words:
            yield f"{_LABELS[name]}: {words}"


_LABELS = {"dataAbsentReason": "No value", "bodySite": "Body site", "method": "Method"}
