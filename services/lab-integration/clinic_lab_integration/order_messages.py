"""An order as a laboratory reads it: OML^O21, ORM^O01, or FHIR R4 resources. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from clinic_lab_integration.candidates import Person
from clinic_lab_integration.domain import OWN_AUTHORITY, Identifier
from clinic_lab_integration.hl7.writing import (
    CHARSET,
    composite,
    header,
    message,
    repeated,
    segment,
    text,
)
from clinic_lab_integration.store import LabOrder

VERSION = "2.5.1"


class Format(StrEnum):
    OML = "oml-o21"
    ORM = "orm-o01"
    FHIR = "fhir"


class Action(StrEnum):
    NEW = "new"
    CANCEL = "cancel"


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a laboratory takes orders, and by which names (MSH-3 to MSH-6) it knows both sides."""

    partner_id: UUID
    version: int
    format: Format
    url: str
    sending_application: str
    sending_facility: str
    receiving_application: str
    receiving_facility: str
    processing_id: str
    country: str | None = None


@dataclass(frozen=True, kw_only=True)
class Requested:
    """What is to be told of an order."""

    action: Action
    control_id: str
    order: LabOrder
    person: Person
    identifiers: tuple[Identifier, ...]
    requested_at: datetime


# HL7 table 0485; `urgent` and `asap` are one there.
_PRIORITIES = {"routine": "R", "urgent": "A", "asap": "A", "stat": "S"}
_SEXES = {"female": "F", "male": "M", "other": "O"}
_SYSTEMS = {"http://loinc.org": "LN", "http://snomed.info/sct": "SCT"}
_CONTROLS = {Action.NEW: "NW", Action.CANCEL: "CA"}


def as_hl7(requested: Requested, to: Destination, *, sent_at: datetime) -> bytes:
    """Write OML^O21 or ORM^O01: a pair of ORC and OBR for each test, all under our one order number."""
    oml = to.format is Format.OML
    order = requested.order
    lines = [_msh(requested, to, sent_at), _pid(requested)]
    for number in range(1, len(order.tests) + 1):
        lines.append(_orc(requested))
        if oml:
            lines.append(segment("TQ1", {1: "1", 9: _PRIORITIES[order.priority]}))
        lines.append(_obr(requested, number))
        if order.clinical_note and number == 1:
            lines.append(segment("NTE", {1: "1", 2: "P", 3: text(order.clinical_note)}))
    return message(lines)


def _msh(requested: Requested, to: Destination, sent_at: datetime) -> str:
    oml = to.format is Format.OML
    return header(
        {
            3: text(to.sending_application),
            4: text(to.sending_facility),
            5: text(to.receiving_application),
            6: text(to.receiving_facility),
            7: _instant(sent_at),
            9: "OML^O21^OML_O21" if oml else "ORM^O01^ORM_O01",
            10: requested.control_id,
            11: to.processing_id,
            12: VERSION,
            18: CHARSET,
        }
    )


def _pid(requested: Requested) -> str:
    person = requested.person
    return segment(
        "PID",
        {
            1: "1",
            3: repeated(composite(i.value, None, None, i.authority) for i in requested.identifiers),
            5: composite(person.family, person.given, person.patronymic),
            7: person.birth_on.strftime("%Y%m%d") if person.birth_on else "",
            8: _SEXES.get(person.sex or "", "U"),
        },
    )


def _orc(requested: Requested) -> str:
    order = requested.order
    number = composite(order.placer_order_number, OWN_AUTHORITY)
    return segment(
        "ORC",
        {
            1: _CONTROLS[requested.action],
            2: number,
            4: number,
            9: _instant(requested.requested_at),
            12: composite(str(order.practitioner_id), *[None] * 7, OWN_AUTHORITY),
        },
    )


def _obr(requested: Requested, number: int) -> str:
    order, test = requested.order, requested.order.tests[number - 1]
    system = _SYSTEMS.get(test.system or "", test.system or "L")
    return segment(
        "OBR",
        {
            1: str(number),
            2: composite(order.placer_order_number, OWN_AUTHORITY),
            4: composite(test.code, test.display, system),
            16: composite(str(order.practitioner_id), *[None] * 7, OWN_AUTHORITY),
            27: f"^^^^^{_PRIORITIES[order.priority]}",
        },
    )


def _instant(at: datetime) -> str:
    return at.strftime("%Y%m%d%H%M%S%z")


def as_fhir(requested: Requested) -> dict[str, Any]:
    """Write a ServiceRequest under our order's id, so that sending it again is the same request."""
    order, person = requested.order, requested.person
    note = {"note": [{"text": order.clinical_note}]} if order.clinical_note else {}
    return {
        "resourceType": "ServiceRequest",
        "id": str(order.lab_order_id),
        "contained": [_fhir_patient(person, requested.identifiers)],
        "identifier": [{"system": OWN_AUTHORITY, "value": order.placer_order_number}],
        "requisition": {"system": OWN_AUTHORITY, "value": order.placer_order_number},
        "status": "revoked" if requested.action is Action.CANCEL else "active",
        "intent": "order",
        "priority": order.priority,
        "code": {"text": ", ".join(test.display or test.code for test in order.tests)},
        "orderDetail": [
            {"coding": [{k: v for k, v in vars(test).items() if v is not None}]} for test in order.tests
        ],
        "subject": {"reference": "#patient"},
        "authoredOn": order.placed_at.isoformat(),
        "requester": {"identifier": {"system": OWN_AUTHORITY, "value": str(order.practitioner_id)}},
        **note,
    }


def _fhir_patient(person: Person, identifiers: tuple[Identifier, ...]) -> dict[str, Any]:
    given = [name for name in (person.given, person.patronymic) if name]
    patient: dict[str, Any] = {
        "resourceType": "Patient",
        "id": "patient",
        "identifier": [{"system": i.authority, "value": i.value} for i in identifiers],
        "name": [{"family": person.family or "", **({"given": given} if given else {})}],
        "gender": person.sex or "unknown",
    }
    if person.birth_on:
        patient["birthDate"] = person.birth_on.isoformat()
    return patient
