"""Vendors' callbacks: the signature over the raw body, then kept and applied in one transaction, then 200."""

from typing import Annotated, Literal, cast
from urllib.parse import parse_qsl
from uuid import UUID

import structlog
from clinic_shared import metrics
from clinic_shared.errors import DomainError
from clinic_shared.routing import PUBLIC, ClinicRouter, CurrentRuntime, RawBody, Tx
from fastapi import Query, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import Counter
from pydantic import BaseModel, ValidationError

from clinic_notifications import statuses, store
from clinic_notifications.channels import twilio, whatsapp
from clinic_notifications.settings import NotificationSettings
from clinic_notifications.statuses import Report

log = structlog.get_logger()

router = ClinicRouter(tags=["webhooks"])

MAX_NOTIFICATION_BYTES = 3 * 1024 * 1024
"""What Meta says its notifications may grow to."""

REPORTS = Counter(
    "clinic_message_reports_total",
    "Statuses that vendors reported: new, repeated",
    ["provider", "outcome"],
    registry=metrics.REGISTRY,
)
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


class UnreadableCallbackError(DomainError):
    """Signed by the vendor, but not in the shape of its callbacks."""

    slug = "unreadable-callback"
    title = "The callback can't be read"
    status = 400
    fix = "If the vendor did send it, its format has changed: report `request_id`."


class Received(BaseModel):
    """The callback is kept and has taken effect."""

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
    max_body_bytes=MAX_NOTIFICATION_BYTES,
    operation_id="receiveWhatsAppNotification",
)
async def receive_whatsapp(request: Request, runtime: CurrentRuntime, tx: Tx, body: RawBody) -> Received:
    """Take statuses of messages, in whatever order and number they come, and what patients wrote."""
    settings = cast("NotificationSettings", runtime.settings)
    signature = request.headers.get("x-hub-signature-256", "")
    if not whatsapp.is_signed(body, signature, settings.whatsapp_app_secret.get_secret_value()):
        REFUSED.labels(provider=whatsapp.PROVIDER).inc()
        raise CallbackSignatureError
    try:
        notification = whatsapp.Notification.model_validate_json(body)
        reports = notification.reports()
    except (ValidationError, OverflowError, OSError):
        raise UnreadableCallbackError from None
    await _take(tx, reports)
    for reference, content in notification.replies().items():
        await store.keep_reply(tx, whatsapp.PROVIDER, reference, content)
    return Received()


@router.post(
    "/v1/webhooks/messaging/twilio",
    permission=PUBLIC,
    media_types=("application/x-www-form-urlencoded",),
    operation_id="receiveTwilioStatus",
)
async def receive_twilio(
    request: Request, runtime: CurrentRuntime, tx: Tx, body: RawBody, message_id: UUID | None = None
) -> Received:
    """Take the status of an SMS."""
    settings = cast("NotificationSettings", runtime.settings)
    fields = dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))
    query = request.url.query
    url = settings.url + twilio.CALLBACK_PATH + (f"?{query}" if query else "")
    signature = request.headers.get("x-twilio-signature", "")
    if not twilio.is_signed(url, fields, signature, settings.twilio_auth_token.get_secret_value()):
        REFUSED.labels(provider=twilio.PROVIDER).inc()
        raise CallbackSignatureError
    report = twilio.report_of(fields, message_id=message_id, received_at=tx.now)
    await _take(tx, [report] if report else [])
    return Received()


async def _take(tx: Tx, reports: list[Report]) -> None:
    # In the order of references and then ids, so that two notifications about the same messages don't deadlock.
    for report in sorted(reports, key=lambda r: (r.reference, str(r.message_id))):
        fresh = await statuses.take_report(tx, report)
        REPORTS.labels(provider=report.provider, outcome="new" if fresh else "repeated").inc()
