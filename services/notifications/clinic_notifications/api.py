"""HTTP in: the ledger of messages, preferences, templates; in development, what the vendors' fakes got."""

from typing import cast
from uuid import UUID

import httpx
from clinic_shared.errors import ForbiddenError, NotFoundError, TemporarilyUnavailableError
from clinic_shared.routing import (
    Caller,
    ClinicRouter,
    CurrentRuntime,
    IfMatch,
    Page,
    PageQuery,
    Tx,
    page_of,
)
from pydantic import BaseModel

from clinic_notifications import preferences, reading, templates
from clinic_notifications.domain import Channel, Purpose
from clinic_notifications.models import (
    Language,
    MessageResponse,
    PreferencesRequest,
    PreferencesResponse,
    StatusName,
    TemplateRequest,
    TemplateResponse,
)
from clinic_notifications.settings import NotificationSettings

router = ClinicRouter(tags=["notifications"])


@router.get("/v1/messages", permission="messages.read", operation_id="listMessages")
async def list_messages(
    tx: Tx,
    caller: Caller,
    page: PageQuery,
    patient_id: UUID | None = None,
    status: StatusName | None = None,
    purpose: Purpose | None = None,
) -> Page[MessageResponse]:
    """List messages and what became of them. Those to come have the status `planned`.

    A patient sees their own, staff those sent in the name of their departments and centres.
    """
    found = await reading.list_messages(
        tx,
        caller=caller,
        patient_id=patient_id,
        status=status,
        purpose=purpose,
        after=page.after,
        limit=page.limit + 1,
    )
    return page_of([MessageResponse.of(m) for m in found], page, key=lambda m: m.message_id)


@router.get("/v1/messages/{message_id}", permission="messages.read", operation_id="getMessage")
async def get_message(tx: Tx, caller: Caller, message_id: UUID) -> MessageResponse:
    """Return one message. `sent` means that the vendor accepted it, `delivered` that it arrived."""
    return MessageResponse.of(await reading.read_message(tx, message_id, caller=caller))


@router.get(
    "/v1/messages/preferences/{patient_id}",
    permission="messages.read",
    operation_id="getMessagePreferences",
)
async def get_preferences(tx: Tx, caller: Caller, patient_id: UUID) -> PreferencesResponse:
    """Return how a patient wants to be written to; version 0 is the network's own order."""
    return PreferencesResponse.of(await preferences.read_preferences(tx, patient_id, caller=caller))


@router.put(
    "/v1/messages/preferences/{patient_id}",
    permission="preferences.manage",
    operation_id="setMessagePreferences",
)
async def set_preferences(
    tx: Tx, caller: Caller, patient_id: UUID, body: PreferencesRequest, expected: IfMatch
) -> PreferencesResponse:
    """Replace a patient's choice. It counts for everything that isn't sent yet, reminders included."""
    changed = await preferences.set_preferences(
        tx,
        patient_id,
        channels=body.channels,
        opted_out=body.opted_out,
        caller=caller,
        expected_version=expected,
    )
    return PreferencesResponse.of(changed)


@router.get("/v1/templates", permission="templates.read", operation_id="listTemplates")
async def list_templates(
    tx: Tx,
    code: Purpose | None = None,
    language: Language | None = None,
    channel: Channel | None = None,
    department_id: UUID | None = None,
) -> list[TemplateResponse]:
    """List the current wording; at most 1000. With a department, what it says in its own words."""
    found = await templates.list_templates(
        tx, code=code, language=language, channel=channel, department_id=department_id
    )
    return [TemplateResponse.of(t) for t in found]


@router.put("/v1/templates", permission="templates.manage", operation_id="changeTemplate")
async def change_template(
    tx: Tx, caller: Caller, body: TemplateRequest, expected: IfMatch
) -> TemplateResponse:
    """Set the wording for one purpose, language and channel, of the network or of one department.

    Changing what exists needs If-Match with its version. Sent messages keep the wording they had.
    """
    if body.department_id is not None:
        caller.require_place(department_id=body.department_id)
    elif not caller.network:
        raise ForbiddenError("The network's own wording is outside your scope.")
    return TemplateResponse.of(await templates.change_template(tx, body.command(), expected_version=expected))


class Inbox(BaseModel):
    """What the fakes of WhatsApp, SMS and e-mail received, newest first."""

    items: list[dict[str, object]]
    total: int


@router.get(
    "/v1/dev/inbox", permission="messages.read", transactional=False, operation_id="readDevelopmentInbox"
)
async def read_development_inbox(
    runtime: CurrentRuntime,
    caller: Caller,
    channel: Channel | None = None,
    to: str | None = None,
    limit: int = 100,
) -> Inbox:
    """Show what would have reached patients' phones. Only where the vendors are fakes; 404 otherwise."""
    settings = cast("NotificationSettings", runtime.settings)
    if settings.environment == "production" or not settings.fakes_url:
        raise NotFoundError
    if caller.kind != "staff":
        raise ForbiddenError("The inbox holds everybody's messages.")
    query = {"channel": channel and channel.value, "to": to, "limit": limit}
    try:
        answer = await runtime.get(httpx.AsyncClient).get(
            f"{settings.fakes_url}/_control/inbox",
            params={name: value for name, value in query.items() if value is not None},
        )
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise TemporarilyUnavailableError("The vendors' fakes don't answer.") from error
    return Inbox.model_validate(answer.json())
