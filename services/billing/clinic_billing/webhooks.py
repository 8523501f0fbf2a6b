"""Payment providers' webhooks: the signature over the raw body, then durable, then answered.

Nothing is read or changed here. The database or the broker may be down, and the worker: whoever holds the
notification first (`clinic_shared.intake`) is enough for a 2xx; with neither, the provider comes again.
"""

from typing import Literal, cast

from clinic_shared import metrics
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.intake import Intake, Item
from clinic_shared.routing import PUBLIC, ClinicRouter, CurrentContext, CurrentRuntime, RawBody
from fastapi import Request
from prometheus_client import Counter
from pydantic import BaseModel

from clinic_billing import stripe
from clinic_billing.domain import STRIPE
from clinic_billing.settings import BillingSettings

router = ClinicRouter(tags=["webhooks"])

REFUSED = Counter(
    "clinic_webhooks_refused_total",
    "Notifications without a valid signature",
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
    settings = cast("BillingSettings", runtime.settings)
    now = runtime.clock.now()
    try:
        stripe.verify_signature(
            ",".join(request.headers.getlist("stripe-signature")),
            body,
            secrets=settings.stripe_webhook_secrets,
            now=now,
        )
    except stripe.SignatureError:
        REFUSED.labels(provider=STRIPE).inc()
        raise
    item = Item(
        interface=STRIPE,
        sender=STRIPE,
        content_type="application/json",
        body=body,
        received_at=now,
        correlation_id=context.correlation_id,
    )
    audit = AuditEntry(action=Action.CREATE, resource_type="PaymentNotification", resource_id=item.id)
    await Intake.of(runtime).accept(item, audit=audit, context=context)
    return Received()
