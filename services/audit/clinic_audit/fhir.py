"""Records as FHIR R4 AuditEvents in the shape of IHE BALP 1.1.3 (https://profiles.ihe.net/ITI/BALP/).

Made of the bytes that were hashed, so that nothing is said here that the log doesn't prove; `leaf-index` leads back.
"""

import json
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.errors import InvalidRequestError, NotFoundError
from clinic_shared.routing import ClinicRouter, PageQuery, Tx, page_of
from fastapi import Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Row

from clinic_audit import search
from clinic_audit.search import Wanted

router = ClinicRouter(prefix="/fhir/R4", tags=["fhir"])

MEDIA_TYPE = "application/fhir+json"
BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/"
TYPES = "http://terminology.hl7.org/CodeSystem/audit-event-type"
INTERACTIONS = "http://hl7.org/fhir/restful-interaction"
DICOM = "http://dicom.nema.org/resources/ontology/DCM"
ENTITY_TYPES = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
OBJECT_ROLES = "http://terminology.hl7.org/CodeSystem/object-role"
PARTICIPATIONS = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
PURPOSES = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
LEAF_INDEX = "urn:polyclinic:audit:leaf-index"
ROLES = "urn:polyclinic:roles"
_VERBS = {
    "C": ("create", "Create"),
    "R": ("read", "Read"),
    "U": ("update", "Update"),
    "D": ("delete", "Delete"),
}
_PERSON, _SYSTEM_OBJECT = "1", "2"
_PATIENT, _DOMAIN_RESOURCE, _JOB = "1", "4", "20"


class FhirResponse(JSONResponse):
    media_type = MEDIA_TYPE


class FhirDocument(BaseModel):
    """A FHIR R4 resource; its own specification describes it."""

    model_config = ConfigDict(extra="allow")

    resourceType: str  # noqa: N815  # FHIR's name


def _coding(system: str, code: str, display: str | None = None) -> dict[str, str]:
    return {"system": system, "code": code, **({"display": display} if display else {})}


def audit_event(row: Row[Any]) -> dict[str, Any]:
    """Return the AuditEvent of a record."""
    record = json.loads(row.record)
    verb, profile = _VERBS.get(row.action, ("operation", None))
    patient = "Patient" if row.patient_id else ""
    purpose = record.get("purpose")
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": str(row.record_id),
        "meta": {"profile": [f"{BALP}IHE.BasicAudit.{patient}{profile}"]} if profile else {},
        "type": _coding(TYPES, "rest", "RESTful Operation"),
        "subtype": _subtypes(verb, purpose),
        "action": row.action,
        "recorded": row.recorded_at.astimezone(UTC).isoformat(),
        "outcome": row.outcome,
        "outcomeDesc": record["reason"],
        "purposeOfEvent": [{"coding": [_coding(PURPOSES, purpose)]}] if purpose else [],
        "agent": [_user(record), _server(row.producer)],
        "source": {
            "site": "polyclinic",
            "observer": {"display": row.producer},
            "type": [_coding("http://terminology.hl7.org/CodeSystem/security-source-type", "4")],
        },
        "entity": list(filter(None, (_whom(row), _what(row, record), _request(record)))),
        "extension": [{"url": LEAF_INDEX, "valueInteger64": str(row.leaf_index)}],
    }
    return {name: value for name, value in event.items() if value not in (None, {}, [])}


def _subtypes(verb: str, purpose: str | None) -> list[dict[str, str]]:
    interaction = [] if verb == "operation" else [_coding(INTERACTIONS, verb)]
    emergency = [_coding(DICOM, "110127", "Emergency Override Started")] if purpose == "BTG" else []
    return [*interaction, *emergency]


def _user(record: dict[str, Any]) -> dict[str, Any]:
    agent = record["agent"]
    policies = [f"urn:polyclinic:token:{record['token']}"] if record.get("token") else []
    user = {
        "type": {"coding": [_coding(PARTICIPATIONS, "IRCP", "information recipient")]},
        "role": [{"coding": [_coding(ROLES, role)]} for role in agent["roles"]],
        "who": {"identifier": {"value": agent["who"]}, "display": agent["kind"]},
        "requestor": True,
        "policy": policies,
    }
    return {name: value for name, value in user.items() if value != []}


def _server(producer: str) -> dict[str, Any]:
    return {
        "type": {"coding": [_coding(DICOM, "110152", "Destination Role ID")]},
        "who": {"display": producer},
        "requestor": False,
    }


def _whom(row: Row[Any]) -> dict[str, Any] | None:
    if row.patient_id is None:
        return None
    return {
        "what": {"reference": f"Patient/{row.patient_id}"},
        "type": _coding(ENTITY_TYPES, _PERSON, "Person"),
        "role": _coding(OBJECT_ROLES, _PATIENT, "Patient"),
    }


def _what(row: Row[Any], record: dict[str, Any]) -> dict[str, Any]:
    told = [{"type": name, "valueString": value} for name, value in sorted(record["details"].items())]
    entity: dict[str, Any] = {
        "type": _coding(ENTITY_TYPES, _SYSTEM_OBJECT, "System Object"),
        "role": _coding(OBJECT_ROLES, _DOMAIN_RESOURCE, "Domain Resource"),
        "name": row.entity_type,
    }
    if row.entity_id is not None:
        entity["what"] = {"identifier": {"value": row.entity_id}}
    return {**entity, **({"detail": told} if told else {})}


def _request(record: dict[str, Any]) -> dict[str, Any] | None:
    """BALP: the X-Request-Id that ties the records of all services together."""
    return {
        "what": {"identifier": {"value": record["request"]}},
        "type": _coding("https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType", "XrequestId"),
        "role": _coding(OBJECT_ROLES, _JOB, "Job"),
    }


@router.get(
    "/AuditEvent",
    permission="audit.read",
    operation_id="searchFhirAuditEvents",
    response_class=FhirResponse,
    response_model=FhirDocument,
)
async def search_audit_events(
    tx: Tx,
    page: PageQuery,
    patient: Annotated[str | None, Query(max_length=60, description="an id, or Patient/id")] = None,
    agent: UUID | None = None,
    action: Annotated[str | None, Query(pattern="^[CRUDE]$")] = None,
    outcome: Annotated[str | None, Query(pattern="^(0|4|8|12)$")] = None,
    entity: Annotated[str | None, Query(max_length=100)] = None,
    date: Annotated[list[str] | None, Query(max_length=2, description="ge2026-01-31, lt2026-02-01")] = None,
) -> Response:
    """Search the log, the newest first, as a Bundle of type searchset. Searching is recorded too."""
    since, until = _period(date or [])
    patient_id = _patient_id(patient)
    wanted = Wanted(
        person=await search.person_of(tx, patient_id),
        agent=agent,
        action=action,
        outcome=outcome,
        entity_id=entity,
        since=since,
        until=until,
    )
    key = page.after_key(int)
    rows = await search.find(
        tx, wanted, after=key[0] if key else None, limit=page.limit + 1, newest_first=True
    )
    found = page_of(list(rows), page, key=lambda row: row.leaf_index)
    tx.audit(AuditEntry(action=Action.READ, resource_type="AuditEvent", patient_id=patient_id))
    following = [{"relation": "next", "url": f"AuditEvent?cursor={found.next_cursor}"}]
    return FhirResponse(
        {
            "resourceType": "Bundle",
            "type": "searchset",
            **({"link": following} if found.next_cursor else {}),
            "entry": [
                {
                    "fullUrl": f"urn:uuid:{row.record_id}",
                    "resource": audit_event(row),
                    "search": {"mode": "match"},
                }
                for row in found.items
            ],
        }
    )


@router.get(
    "/AuditEvent/{record_id}",
    permission="audit.read",
    operation_id="readFhirAuditEvent",
    response_class=FhirResponse,
    response_model=FhirDocument,
)
async def read_audit_event(tx: Tx, record_id: UUID) -> Response:
    """Read one record as an AuditEvent."""
    row = await search.find_one(tx, record_id)
    if row is None:
        raise NotFoundError
    tx.audit(
        AuditEntry(
            action=Action.READ, resource_type="AuditEvent", resource_id=record_id, patient_id=row.patient_id
        )
    )
    return FhirResponse(audit_event(row))


def _patient_id(text: str | None) -> UUID | None:
    if text is None:
        return None
    try:
        return UUID(text.removeprefix("Patient/"))
    except ValueError:
        raise InvalidRequestError("A patient is searched by id, or as Patient/id.") from None


def _period(dates: list[str]) -> tuple[datetime | None, datetime | None]:
    """Return from and until (half-open) of FHIR date parameters: ge, gt, le, lt, or a day."""
    since: datetime | None = None
    until: datetime | None = None
    for text in dates:
        prefix, given = (text[:2], text[2:]) if text[:2] in {"ge", "gt", "le", "lt", "eq"} else ("eq", text)
        moment, is_day = _moment(given)
        end = moment + (timedelta(days=1) if is_day else timedelta(microseconds=1))
        if prefix in {"ge", "gt", "eq"}:
            since = end if prefix == "gt" else moment
        if prefix in {"le", "lt", "eq"}:
            until = moment if prefix == "lt" else end
    return since, until


def _moment(text: str) -> tuple[datetime, bool]:
    """Return an instant, of a day its first one, with whether it is a day. Raises InvalidRequestError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(
            "A date is written as 2026-01-31, or as an instant with its offset."
        ) from None
    if len(text) == len("2026-01-31"):
        return datetime.combine(moment.date(), time(), UTC), True
    if moment.tzinfo is None:
        raise InvalidRequestError("An instant needs its offset from UTC.")
    return moment, False
