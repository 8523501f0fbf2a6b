"""HTTP in, as HL7: what laboratories post, what became of it, and the work-list of what needs a person.

A laboratory comes with HTTP Basic or a token, so these routes are public to the router and authenticate
by themselves; with HTTP Basic they work while the database is down.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.context import Context
from clinic_shared.principal import Principal
from clinic_shared.routing import (
    PUBLIC,
    Caller,
    ClinicRouter,
    CurrentContext,
    CurrentRuntime,
    Page,
    PageQuery,
    RawBody,
    Tx,
    page_of,
)
from clinic_shared.service import Runtime
from fastapi import Depends, Path, Request, Response

from clinic_lab_integration import (
    application_answers,
    fhir,
    inspection,
    partners,
    receiving,
    unit_store,
    validation,
    worklist,
)
from clinic_lab_integration.connection import Protocol
from clinic_lab_integration.fhir import UnreadableBundleError
from clinic_lab_integration.fhir_api import UNREADABLE, read_bundle
from clinic_lab_integration.inspection import READ
from clinic_lab_integration.message_models import (
    AttachRequest,
    IncidentResponse,
    MessageDetail,
    MessageResponse,
    SettleRequest,
    UnitDiscardRequest,
    UnitResponse,
    WaitingResponse,
)
from clinic_lab_integration.messages import ANSWER_TYPE, MAX_BODY_BYTES
from clinic_lab_integration.unit_ids import UNIT_ID, read_unit_id
from clinic_lab_integration.validation import ValidatedBundle
from clinic_lab_integration.validation_models import ValidatedFhirBundle, ValidatedMessage, Validation

router = ClinicRouter(prefix="/v1/lab", tags=["lab-messages"])

WORK = "lab-worklist.manage"
MEDIA_TYPES = (
    "application/hl7-v2",
    "application/hl7-v2+er7",
    "application/x-hl7-v2",
    "application/x-hl7-v2+er7",
    "x-application/hl7-v2",
    "x-application/hl7-v2+er7",
    "text/plain",
)
_MOST_LINKS = 20
_EXAMPLE = (
    "MSH|^~\\&|TESTLIS|TESTLAB|POLYCLINIC|CENTRE|20260115103000+0300||ORU^R01^ORU_R01|EXAMPLE-0001|P|2.5.1\r"
    "PID|1||T-000001^^^POLYCLINIC^MR\r"
    "OBR|1||FILLER-0001^TESTLIS|2345-7^Glucose^LN|||20260115081500+0300|||||||||||||||||||F\r"
    "OBX|1|NM|2345-7^Glucose^LN||5.10|mmol/L|3.90-6.10||||F\r"
)
_HL7_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "HL7 acknowledgement, also for AE and AR; empty where none may be given",
        "content": {ANSWER_TYPE: {"schema": {"type": "string"}}},
    },
    503: {
        "description": "Temporary refusal: not all was kept, send it again",
        "content": {ANSWER_TYPE: {"schema": {"type": "string"}}},
    },
}


async def _lab_caller(request: Request, runtime: CurrentRuntime) -> Principal:
    return await partners.authenticate(runtime, request.headers.getlist("authorization"))


LabCaller = Annotated[Principal, Depends(_lab_caller)]


@router.post(
    "/messages",
    permission=PUBLIC,
    transactional=False,
    media_types=MEDIA_TYPES,
    max_body_bytes=MAX_BODY_BYTES,
    operation_id="postLabMessage",
    response_class=Response,
    responses=_HL7_ANSWER,
)
async def post_message(
    request: Request, runtime: CurrentRuntime, context: CurrentContext, caller: LabCaller, body: RawBody
) -> Response:
    """Post HL7 v2 results: HTTP Basic with client id and secret, or a token with `lab-messages.send`.

    The answer is the HL7 acknowledgement, given when every message is durable and not before; the results
    are not in the chart yet then. The same bytes again get the same answer and have no second effect.
    `Location` tells where to see what becomes of the (first) message.
    """
    partner = await partners.sender(runtime, caller)
    received = await receiving.receive(
        runtime,
        body,
        request.headers.get("content-type", "")[:200],
        partner=partner,
        context=replace(context, principal=caller),
    )
    headers = _links(received.message_ids)
    if not received.complete:
        headers["Retry-After"] = "5"
    return Response(
        received.answer or b"",
        status_code=200 if received.complete else 503,
        media_type=ANSWER_TYPE if received.answer is not None else None,
        headers=headers,
    )


def _links(message_ids: Sequence[UUID]) -> dict[str, str]:
    paths = [f"/v1/lab/messages/{message_id}" for message_id in message_ids]
    headers = {"Location": paths[0]} if paths else {}
    if len(paths) > 1:
        headers["Link"] = ", ".join(f'<{path}>; rel="item"' for path in paths[:_MOST_LINKS])
    return headers


@router.post(
    "/messages/validate",
    permission=PUBLIC,
    transactional=False,
    media_types=(*MEDIA_TYPES, fhir.MEDIA_TYPE),
    max_body_bytes=MAX_BODY_BYTES,
    operation_id="validateLabMessage",
)
async def validate_message(
    request: Request, runtime: CurrentRuntime, context: CurrentContext, caller: LabCaller, body: RawBody
) -> Validation:
    """Tell what a message would be answered, how it is read, whom it would match and what to correct.

    HL7 v2, or as application/fhir+json a Bundle. Nothing is kept.
    """
    context = replace(context, principal=caller)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == fhir.MEDIA_TYPE:
        return Validation(bundle=await _validate_bundle(runtime, context, body))
    partner = await partners.sender(runtime, caller)
    assessment = await receiving.read(body, partner)
    async with runtime.database.transaction(context) as tx:
        found = await validation.validate(tx, partner, assessment.messages)
    show = caller.may(READ)
    return Validation(messages=[ValidatedMessage.of(one, show_patient=show) for one in found])


async def _validate_bundle(runtime: Runtime, context: Context, body: bytes) -> ValidatedFhirBundle:
    caller = context.principal
    partner = await partners.sender(runtime, caller, Protocol.FHIR)
    try:
        bundle = await read_bundle(body, partner)
    except UnreadableBundleError as error:
        answer = fhir.refusal(error.issue)
        found = ValidatedBundle(bundle=None, status=UNREADABLE, answer=answer, issues=(error.issue,))
    else:
        async with runtime.database.transaction(context) as tx:
            found = await validation.validate_bundle(tx, partner, bundle)
    return ValidatedFhirBundle.of(found, show_patient=caller.may(READ))


@router.get("/messages", permission=READ, operation_id="listLabMessages")
async def list_messages(tx: Tx, page: PageQuery) -> Page[MessageResponse]:
    """List what came in, the newest first, with what became of each patient group."""
    tx.audit(AuditEntry(action=Action.READ, resource_type="LabMessage", details={"list": "messages"}))
    found = await inspection.list_messages(tx, after=page.after, limit=page.limit + 1)
    return page_of([MessageResponse.of(m) for m in found], page, key=lambda m: m.message_id)


@router.get("/messages/{message_id}", permission=PUBLIC, transactional=False, operation_id="getLabMessage")
async def get_message(
    runtime: CurrentRuntime, context: CurrentContext, caller: LabCaller, message_id: UUID
) -> MessageDetail:
    """Return a message with its answer and dispositions. A laboratory sees its own, without the bytes."""
    # Not the router's transaction: looking for a new laboratory takes a connection of its own first.
    async with runtime.database.transaction(replace(context, principal=caller)) as tx:
        return MessageDetail.of_message(await inspection.read_message(tx, message_id, caller=caller))


@router.get(
    "/messages/{message_id}/acknowledgement",
    permission=PUBLIC,
    transactional=False,
    operation_id="getLabAcknowledgement",
    response_class=Response,
    responses={
        200: {"description": "HL7 application acknowledgement", "content": _HL7_ANSWER[200]["content"]}
    },
)
async def get_acknowledgement(
    runtime: CurrentRuntime, context: CurrentContext, caller: LabCaller, message_id: UUID
) -> Response:
    """Return the application acknowledgement of a message that asked for two (MSH-15 and MSH-16).

    404 where one was all; 409 `message-not-processed-yet` with Retry-After until the message is processed.
    """
    async with runtime.database.transaction(replace(context, principal=caller)) as tx:
        await inspection.read_message(tx, message_id, caller=caller)
        answer = await application_answers.of_message(tx, message_id)
    return Response(answer, media_type=ANSWER_TYPE)


UnitId = Annotated[str, Path(pattern=UNIT_ID, description="`unit_id` of the list")]


@router.get("/unmatched", permission=WORK, operation_id="listUnmatchedResults")
async def list_unmatched(tx: Tx, page: PageQuery) -> Page[WaitingResponse]:
    """List the patient groups that wait for a person, oldest first, as the laboratory wrote them."""
    after = page.after_key(UUID, int)
    found = await inspection.list_waiting(
        tx, after=(after[0], after[1]) if after else None, limit=page.limit + 1
    )
    return page_of([WaitingResponse.of(w) for w in found], page, key=lambda w: (w.message_id, w.group_index))


@router.post("/unmatched/{unit_id}/attach", permission=WORK, operation_id="attachUnmatchedResults")
async def attach(tx: Tx, caller: Caller, unit_id: UnitId, body: AttachRequest) -> UnitResponse:
    """Say whose results these are. They are on their way to the chart when this answers, not there yet."""
    return UnitResponse.of(await worklist.attach(tx, read_unit_id(unit_id), body.patient_id, caller=caller))


@router.post("/unmatched/{unit_id}/discard", permission=WORK, operation_id="discardUnmatchedResults")
async def discard(tx: Tx, caller: Caller, unit_id: UnitId, body: UnitDiscardRequest) -> UnitResponse:
    """Decide that these results have no effect. They stay visible, with the reason."""
    return UnitResponse.of(await worklist.discard(tx, read_unit_id(unit_id), body.reason, caller=caller))


@router.get("/incidents", permission=WORK, operation_id="listLabIncidents")
async def list_incidents(tx: Tx, page: PageQuery, state: str | None = None) -> Page[IncidentResponse]:
    """List what should not have happened and was not refused: a control id used for other bytes."""
    found = await unit_store.list_incidents(tx, state=state, after=page.after, limit=page.limit + 1)
    return page_of([IncidentResponse.of(row) for row in found], page, key=lambda i: i.incident_id)


@router.post("/incidents/{incident_id}/take", permission=WORK, operation_id="takeLabIncident")
async def take_incident(tx: Tx, caller: Caller, incident_id: UUID) -> IncidentResponse:
    """Make it yours."""
    return await _change_incident(tx, incident_id, owner_id=caller.subject)


@router.post("/incidents/{incident_id}/settle", permission=WORK, operation_id="settleLabIncident")
async def settle_incident(tx: Tx, caller: Caller, incident_id: UUID, body: SettleRequest) -> IncidentResponse:
    """Close it, with what was found out."""
    return await _change_incident(
        tx, incident_id, state="settled", owner_id=caller.subject, settled_at=tx.now, note=body.note
    )


async def _change_incident(tx: Tx, incident_id: UUID, **values: Any) -> IncidentResponse:
    return IncidentResponse.of(await worklist.change_incident(tx, incident_id, **values))


def _describe_bodies() -> None:
    """FastAPI describes bodies that it reads itself; these are bytes to it."""
    content = {name: {"schema": {"type": "string"}, "example": _EXAMPLE} for name in MEDIA_TYPES}
    for route in router.routes:
        if set(MEDIA_TYPES) <= set(route.media_types):
            also = {name: {"schema": {"type": "object"}} for name in route.media_types if name not in content}
            body = {
                "required": True,
                "description": "One or several HL7 v2 messages" + (", or a FHIR Bundle" if also else ""),
                "content": content | also,
            }
            route.openapi_extra = {**(route.openapi_extra or {}), "requestBody": body}


_describe_bodies()
