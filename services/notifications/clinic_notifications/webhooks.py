"""Vendors' callbacks: whose they are by the signature over the raw body, then durable, then answered.

Nothing is read or changed here (`callbacks.py` does): the database or the broker may be down, and the worker.
"""

from typing import Annotated, Literal, cast
from uuid import UUID

from clinic_shared import metrics
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.context import Context
from clinic_shared.errors import DomainError
from clinic_shared.intake import Intake, Item
from clinic_shared.routing import PUBLIC, ClinicRouter, CurrentContext, CurrentRuntime, RawBody
from clinic_shared.service import Runtime
from fastapi import Query, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import Counter
from pydantic import BaseModel

from clinic_notifications import callbacks
from clinic_notifications.channels import twilio, whatsapp
from clinic_notifications.settings import NotificationSettings

router = ClinicRouter(tags=["webhooks"])

MAX_NOTIFICATION_BYTES = 3 * 1024 * 1024
"""What Meta says its notifications may grow to."""

REFUSED = Counter(
    "clinic_message_callbacks_refused_total",
    "Callbacks without a valid signature",
    ["provider"],
    registry=metrics.REGISTRY,
)


class CallbackSignatureError(DomainError):
    """The signature is missing, or made with another secret, over another body or for another address."""

    slug = "callback-signature-invalid"
    title = "The callback's signature is not valid"
    status = 403
    fix = "Check the app secret or auth token, and that CLINIC_URL is the address the vendor calls."


class Received(BaseModel):
    """The callback is kept; what it says takes effect afterwards."""

    received: Literal[True] = True


@router.get(
    "/v1/webhooks/messaging/whatsapp",
    permission=PUBLIC,
    transactional=False,
    response_class=PlainTextResponse,
    operation_id="verifyWhatsAppWebhook",
)
async def verify_whatsapp(
    runtime: CurrentRuntime,
    mode: Annotated[str, Query(alias="hub.mode")],
    token: Annotated[str, Query(alias="hub.verify_token")],
    challenge: Annotated[str, Query(alias="hub.challenge", max_length=256, pattern=r"^[\w.~-]*$")],
) -> PlainTextResponse:
    """Echo Meta's challenge if it knows our verify token."""
    settings = cast("NotificationSettings", runtime.settings)
    if mode != "subscribe" or not whatsapp.is_verify_token(token, settings):
        REFUSED.labels(provider=whatsapp.PROVIDER).inc()
        raise CallbackSignatureError
    return PlainTextResponse(challenge)


@router.post(
    "/v1/webhooks/messaging/whatsapp",
    permission=PUBLIC,
    transactional=False,
    max_body_bytes=MAX_NOTIFICATION_BYTES,
    operation_id="receiveWhatsAppNotification",
)
async def receive_whatsapp(
    request: Request, runtime: CurrentRuntime, context: CurrentContext, body: RawBody
) -> Received:
    """Take statuses of messages in, in whatever order and number they come, and what patients wrote.

    403: not signed by Meta. 503: come again, nothing was kept.
    """
    settings = cast("NotificationSettings", runtime.settings)
    signature = request.headers.get("x-hub-signature-256", "")
    if not whatsapp.is_signed(body, signature, settings.whatsapp_app_secret.get_secret_value()):
        raise _refused(whatsapp.PROVIDER)
    return await _take_in(whatsapp.PROVIDER, request, runtime, context, body)


@router.post(
    "/v1/webhooks/messaging/twilio",
    permission=PUBLIC,
    transactional=False,
    media_types=("application/x-www-form-urlencoded",),
    operation_id="receiveTwilioStatus",
)
async def receive_twilio(
    request: Request,
    runtime: CurrentRuntime,
    context: CurrentContext,
    body: RawBody,
    message_id: UUID | None = None,
) -> Received:
    """Take the status of an SMS in. 403: not signed by Twilio. 503: come again, nothing was kept."""
    settings = cast("NotificationSettings", runtime.settings)
    query = request.url.query
    url = settings.url + twilio.CALLBACK_PATH + (f"?{query}" if query else "")
    signature = request.headers.get("x-twilio-signature", "")
    token = settings.twilio_auth_token.get_secret_value()
    if not twilio.is_signed(url, callbacks.form_of(body), signature, token):
        raise _refused(twilio.PROVIDER)
    attributes = {callbacks.MESSAGE_ID: str(message_id)} if message_id else {}
    return await _take_in(twilio.PROVIDER, request, runtime, context, body, **attributes)


def _refused(provider: str) -> CallbackSignatureError:
    REFUSED.labels(provider=provider).inc()
    return CallbackSignatureError()


async def _take_in(
    provider: str, request: Request, runtime: Runtime, context: Context, body: bytes, **attributes: str
) -> Received:
    item = Item(
        interface=provider,
        # What the address says belongs to the callback, so it tells duplicates apart, too.
        sender=":".join((provider, *attributes.values())),
        content_type=request.headers.get("content-type", "")[:200],
        body=body,
        received_at=runtime.clock.now(),
        attributes=attributes,
        correlation_id=context.correlation_id,
    )
    audit = AuditEntry(action=Action.CREATE, resource_type="MessagingCallback", resource_id=item.id)
    await Intake.of(runtime).accept(item, audit=audit, context=context)
    return Received()
