"""Payment providers' webhooks: whose they are by the raw body, then durable, then answered.

Nothing is read or changed here. The database or the broker may be down, and the worker: whoever holds the
notification first (`clinic_shared.intake`) is enough for a 2xx; with neither, the provider comes again.
"""

from typing import Literal

from clinic_shared import metrics
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.context import Context
from clinic_shared.errors import NotFoundError
from clinic_shared.intake import Intake, Item
from clinic_shared.routing import PUBLIC, ClinicRouter, CurrentContext, CurrentRuntime, RawBody
from clinic_shared.service import Runtime
from fastapi import Request
from prometheus_client import Counter
from pydantic import BaseModel

from clinic_billing.providers import razorpay, stripe, yookassa
from clinic_billing.providers.installed import Providers
from clinic_billing.providers.port import SignatureError

router = ClinicRouter(tags=["webhooks"])

REFUSED = Counter(
    "clinic_webhooks_refused_total",
    "Notifications that aren't the provider's",
    ["provider"],
    registry=metrics.REGISTRY,
)


class Received(BaseModel):
    """The notification is kept; what it means is worked out afterwards."""

    received: Literal[True] = True


@router.post(
    "/v1/webhooks/payments/stripe",
    permission=PUBLIC,
    transactional=False,
    operation_id="receiveStripeNotification",
)
async def receive_stripe_notification(
    request: Request, runtime: CurrentRuntime, context: CurrentContext, body: RawBody
) -> Received:
    """Take a notification of Stripe in. 400: not signed by Stripe. 503: come again, nothing was kept."""
    return await _take_in(stripe.NAME, request, runtime, context, body)


@router.post(
    "/v1/webhooks/payments/yookassa",
    permission=PUBLIC,
    transactional=False,
    operation_id="receiveYooKassaNotification",
)
async def receive_yookassa_notification(
    request: Request, runtime: CurrentRuntime, context: CurrentContext, body: RawBody
) -> Received:
    """Take a notification of YooKassa in. They bear no signature: nothing is believed until the payment has
    been read again at YooKassa. 400: not a notification. 404: no account there. 503: come again.
    """
    return await _take_in(yookassa.NAME, request, runtime, context, body)


@router.post(
    "/v1/webhooks/payments/razorpay",
    permission=PUBLIC,
    transactional=False,
    operation_id="receiveRazorpayNotification",
)
async def receive_razorpay_notification(
    request: Request, runtime: CurrentRuntime, context: CurrentContext, body: RawBody
) -> Received:
    """Take a notification of Razorpay in. 400: not signed by Razorpay. 404: no account there. 503: come again."""
    return await _take_in(razorpay.NAME, request, runtime, context, body)


async def _take_in(name: str, request: Request, runtime: Runtime, context: Context, body: bytes) -> Received:
    provider = runtime.get(Providers).installed.get(name)
    if provider is None:
        raise NotFoundError
    headers = {header: ",".join(request.headers.getlist(header)) for header in request.headers.keys()}  # noqa: SIM118  # a multi-dict
    now = runtime.clock.now()
    try:
        attributes = provider.authenticate(headers, body, now=now)
    except SignatureError:
        REFUSED.labels(provider=name).inc()
        raise
    item = Item(
        interface=name,
        sender=name,
        content_type="application/json",
        body=body,
        received_at=now,
        attributes=attributes,
        correlation_id=context.correlation_id,
    )
    audit = AuditEntry(action=Action.CREATE, resource_type="PaymentNotification", resource_id=item.id)
    await Intake.of(runtime).accept(item, audit=audit, context=context)
    return Received()
