"""A record as a DICOM audit message (PS3.15, A.5), as ATNA's audit repositories read it (IHE ITI-20). Pure."""

import json
from datetime import UTC
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from sqlalchemy import Row

FACILITY_AUTHPRIV, NOTICE, WARNING = 10, 5, 4
MESSAGE_ID = "DICOM+RFC3881"
_SUCCESS = "0"
_EVENTS = {
    "login": ("110114", "User Authentication"),
    "emergency": ("110113", "Security Alert"),
    "patient": ("110110", "Patient Record"),
    "other": ("110100", "Application Activity"),
}
_IN_XML = {ord(character): "�" for character in map(chr, range(32)) if character not in "\t\n\r"}


def audit_message(row: Row[Any]) -> bytes:
    """Return the XML of a record."""
    record = json.loads(row.record)
    message = Element("AuditMessage")
    event = SubElement(
        message,
        "EventIdentification",
        EventActionCode=row.action,
        EventDateTime=row.recorded_at.astimezone(UTC).isoformat(),
        EventOutcomeIndicator=row.outcome,
    )
    _coded(event, "EventID", *_EVENTS[_kind(row, record)], system="DCM")
    _coded(event, "EventTypeCode", row.entity_type, row.entity_type, system="Polyclinic")
    agent = record["agent"]
    user = SubElement(
        message,
        "ActiveParticipant",
        UserID=agent["who"],
        UserIsRequestor="true",
        AlternativeUserID=agent["kind"],
    )
    for role in agent["roles"]:
        _coded(user, "RoleIDCode", role, role, system="Polyclinic")
    SubElement(message, "ActiveParticipant", UserID=row.producer, UserIsRequestor="false")
    SubElement(message, "AuditSourceIdentification", AuditSourceID=row.producer)
    if row.patient_id is not None:
        _object(message, str(row.patient_id), kind="1", role="1", coded=("2", "Patient Number", "RFC-3881"))
    if row.entity_id is not None:
        _object(message, row.entity_id, kind="2", role="4", coded=("12", "URI", "RFC-3881"))
    _object(message, record["request"], kind="2", role="20", coded=("XrequestId", "X-Request-Id", "BALP"))
    content: bytes = tostring(message, encoding="utf-8", xml_declaration=True)
    return content


def syslog_message(row: Row[Any], *, host: str) -> bytes:
    """Return a record as a message of RFC 5424, framed by its length (RFC 5425, 4.3)."""
    severity = NOTICE if row.outcome == _SUCCESS else WARNING
    moment = row.recorded_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    header = (
        f"<{8 * FACILITY_AUTHPRIV + severity}>1 {moment} {host} polyclinic-{row.producer} - {MESSAGE_ID} - "
    )
    # RFC 5424, 6.4: the mark says that what follows is UTF-8.
    message = header.encode("ascii", "replace") + b"\xef\xbb\xbf" + audit_message(row)
    return f"{len(message)} ".encode() + message


def _kind(row: Row[Any], record: dict[str, Any]) -> str:
    if record.get("purpose") == "BTG":
        return "emergency"
    if row.entity_type in {"Session", "Login"}:
        return "login"
    return "patient" if row.patient_id is not None else "other"


def _coded(parent: Element, tag: str, code: str, text: str, *, system: str) -> None:
    attributes = {"csd-code": code, "codeSystemName": system, "originalText": text}
    SubElement(parent, tag, {name: value.translate(_IN_XML) for name, value in attributes.items()})


def _object(message: Element, identifier: str, *, kind: str, role: str, coded: tuple[str, str, str]) -> None:
    participant = SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=identifier.translate(_IN_XML),
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    code, text, system = coded
    _coded(participant, "ParticipantObjectIDTypeCode", code, text, system=system)
