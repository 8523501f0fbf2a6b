"""HTTP in, as FHIR R4: a Bundle of results. Taken like any message of a laboratory: judged, durable, answered."""

import asyncio
import hashlib
from dataclasses import replace
from typing import Annotated, Any

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.context import Context
from clinic_shared.errors import TemporarilyUnavailableError
from clinic_shared.ids import uuid7
from clinic_shared.intake import Accepted, Intake, Item
from clinic_shared.principal import Principal
from clinic_shared.routing import PUBLIC, ClinicRouter, CurrentContext, CurrentRuntime, RawBody
from clinic_shared.service import Runtime
from fastapi import Depends, Request, Response

from clinic_lab_integration import fhir, partners
from clinic_lab_integration.connection import Protocol
from clinic_lab_integration.fhir import AssessedBundle, UnreadableBundleError
from clinic_lab_integration.messages import FHIR, MAX_BODY_BYTES, FindingNote, MessageNote
from clinic_lab_integration.pace import Pace
from clinic_lab_integration.store import Partner

router = ClinicRouter(prefix="/fhir/R4", tags=["lab-messages"])

_IN_A_THREAD_BYTES = 64 * 1024
_READING_SECONDS = 10.0
UNREADABLE = 400
_EXAMPLE = {
    "resourceType": "Bundle",
    "type": "transaction",
    "entry": [
        {
            "fullUrl": "urn:uuid:00000000-0000-4000-8000-000000000001",
            "resource": {
                "resourceType": "DiagnosticReport",
                "identifier": [{"system": "https://lab.example.org/reports", "value": "FILLER-0001"}],
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7"}]},
                "subject": {"identifier": {"value": "T-000001", "assigner": {"display": "POLYCLINIC"}}},
                "contained": [
                    {
                        "resourceType": "Observation",
                        "id": "glucose",
                        "status": "final",
                        "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7"}]},
                        "valueQuantity": {"value": 5.1, "unit": "mmol/L"},
                    }
                ],
                "result": [{"reference": "#glucose"}],
            },
            "request": {"method": "POST", "url": "DiagnosticReport"},
        }
    ],
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {fhir.MEDIA_TYPE: {"schema": {"type": "object"}}}}
    for status, text in (
        (200, "Bundle of answers, one for each entry, in their order"),
        (400, "OperationOutcome: the body is no Bundle; nothing was kept"),
        (422, "OperationOutcome: refused, each issue with its path"),
        (503, "OperationOutcome: temporary refusal, send it again"),
    )
}


async def _lab_caller(request: Request, runtime: CurrentRuntime) -> Principal:
    return await partners.authenticate(runtime, request.headers.getlist("authorization"))


@router.post(
    "",
    permission=PUBLIC,
    transactional=False,
    media_types=(fhir.MEDIA_TYPE, "application/json"),
    max_body_bytes=MAX_BODY_BYTES,
    operation_id="postFhirBundle",
    response_class=Response,
    responses=_ANSWERS,
)
async def post_bundle(
    request: Request,
    runtime: CurrentRuntime,
    context: CurrentContext,
    caller: Annotated[Principal, Depends(_lab_caller)],
    body: RawBody,
) -> Response:
    """Post results as a transaction or batch: DiagnosticReport with Observations, contained or in the Bundle.

    A transaction is taken as a whole or refused as a whole, a batch entry by entry. What is answered 202 is
    durable; the results are not in the chart yet then. The same bytes again get the same answer.
    """
    partner = await partners.sender(runtime, caller, Protocol.FHIR)
    try:
        bundle = await read_bundle(body, partner)
    except UnreadableBundleError as error:
        return _response(fhir.refusal(error.issue), UNREADABLE)
    pace = runtime.get(Pace)
    if pace.seconds_to_wait(partner):
        raise TemporarilyUnavailableError
    pace.count(partner, 1)
    content_type = request.headers.get("content-type", "")[:200]
    accepted = await _keep(
        runtime, body, bundle, content_type, partner=partner, context=replace(context, principal=caller)
    )
    answer = accepted.answer or b""
    return _response(answer, fhir.status_of(answer), Location=f"/v1/lab/messages/{accepted.id}")


def _response(answer: bytes, status: int, **headers: str) -> Response:
    return Response(answer, status_code=status, media_type=fhir.MEDIA_TYPE, headers=headers)


async def read_bundle(body: bytes, partner: Partner) -> AssessedBundle:
    """Judge a Bundle. Raises UnreadableBundleError, TemporarilyUnavailableError."""
    test_mode = partner.connection.test_mode
    if len(body) < _IN_A_THREAD_BYTES:
        return fhir.assess_bundle(body, test_mode=test_mode)
    try:
        reading = asyncio.to_thread(fhir.assess_bundle, body, test_mode=test_mode)
        return await asyncio.wait_for(reading, _READING_SECONDS)
    except TimeoutError:
        raise TemporarilyUnavailableError from None


async def _keep(
    runtime: Runtime,
    body: bytes,
    bundle: AssessedBundle,
    content_type: str,
    *,
    partner: Partner,
    context: Context,
) -> Accepted:
    message_id = uuid7()
    note = _note(bundle, partner)
    item = Item(
        id=message_id,
        interface=FHIR,
        sender=_sender(partner, bundle),
        content_type=content_type,
        body=body,
        received_at=runtime.clock.now(),
        answer=fhir.answer(bundle, message_id),
        answer_type=fhir.MEDIA_TYPE,
        attributes=note.attributes(),
        correlation_id=context.correlation_id,
    )
    audit = AuditEntry(
        action=Action.CREATE,
        resource_type="LabMessage",
        resource_id=message_id,
        details={"answer": note.outcome or "none"},
    )
    return await Intake.of(runtime).accept(item, audit=audit, context=context)


def _sender(partner: Partner, bundle: AssessedBundle) -> str:
    """Within what the same bytes are a duplicate, and the same Bundle with other bytes an incident."""
    digest = hashlib.sha256(bundle.control_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{partner.partner_id}:{digest[:32]}"


def _note(bundle: AssessedBundle, partner: Partner) -> MessageNote:
    return MessageNote(
        partner_id=str(partner.partner_id),
        control_id=bundle.control_id[:200],
        sending_application="",
        sending_facility="",
        message_type=f"Bundle {bundle.kind}"[:200],
        version_id="4.0",
        processing_id="T" if bundle.is_test else "P",
        charset="utf-8",
        marked=False,
        default_charset="",
        outcome="error" if bundle.is_refused else "accept",
        answer_code=None,
        groups=max(1, len(bundle.report.patients)),
        findings=tuple(
            FindingNote(
                severity="E" if issue.is_error else "W",
                code=issue.error_code,
                location=issue.path,
                text=issue.text,
            )
            for issue in bundle.issues
        ),
        sandbox=bool(partner.connection.test_mode),
    )


def _describe_body() -> None:
    content = {fhir.MEDIA_TYPE: {"schema": {"type": "object"}, "example": _EXAMPLE}}
    for route in router.routes:
        body = {"required": True, "description": "A Bundle", "content": content}
        route.openapi_extra = {**(route.openapi_extra or {}), "requestBody": body}


_describe_body()
