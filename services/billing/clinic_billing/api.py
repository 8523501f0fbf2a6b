"""HTTP in: prices, invoices, payments, refunds, and what payment providers notified us of."""

from datetime import date
from typing import cast
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.routing import (
    Caller,
    ClinicRouter,
    CurrentRuntime,
    Idempotency,
    Page,
    PageQuery,
    Tx,
    page_of,
)

from clinic_billing import invoices, invoicing, notification_store, notifications, payments, pricing, store
from clinic_billing.domain import InvoiceStatus
from clinic_billing.models import (
    DispositionName,
    InvoiceResponse,
    NotificationDiscardRequest,
    NotificationResponse,
    PaymentRequest,
    PaymentResponse,
    PriceRequest,
    PriceResponse,
    RefundRequest,
    RefundResponse,
    ServiceCode,
    WaitingVisitResponse,
)
from clinic_billing.providers.installed import Providers
from clinic_billing.settings import BillingSettings

router = ClinicRouter(tags=["billing"])


@router.post("/v1/prices", permission="prices.manage", status_code=201, operation_id="setPrice")
async def set_price(tx: Tx, caller: Caller, body: PriceRequest) -> PriceResponse:
    """Set what a service costs at a centre from a date on; the price before it ends there.

    Completed visits that waited for this price are invoiced within seconds after this answers.
    """
    return PriceResponse.of(await pricing.set_price(tx, body.command(), caller=caller))


@router.get("/v1/prices", permission="prices.read", operation_id="listPrices")
async def list_prices(
    tx: Tx,
    page: PageQuery,
    centre_id: UUID | None = None,
    service_code: ServiceCode | None = None,
    on: date | None = None,
) -> Page[PriceResponse]:
    """List prices, past and future ones included; with `on`, those valid on that day."""
    found = await store.list_prices(
        tx,
        centre_id=centre_id,
        service_code=service_code,
        on=on,
        after=page.after,
        limit=page.limit + 1,
    )
    return page_of([PriceResponse.of(p) for p in found], page, key=lambda p: p.price_id)


@router.get("/v1/invoices", permission="invoices.read", operation_id="listInvoices")
async def list_invoices(
    tx: Tx,
    caller: Caller,
    page: PageQuery,
    patient_id: UUID | None = None,
    appointment_id: UUID | None = None,
    status: InvoiceStatus | None = None,
) -> Page[InvoiceResponse]:
    """List invoices the caller may see: a patient their own, staff those of their places."""
    found = await invoices.list_invoices(
        tx,
        caller=caller,
        patient_id=patient_id,
        appointment_id=appointment_id,
        status=status,
        after=page.after,
        limit=page.limit + 1,
    )
    return page_of([InvoiceResponse.of(i) for i in found], page, key=lambda i: i.invoice_id)


# Before the route with an id, which would take the word for one.
@router.get(
    "/v1/invoices/awaiting-price", permission="invoices.manage", operation_id="listVisitsAwaitingPrice"
)
async def list_visits_awaiting_price(tx: Tx, caller: Caller, page: PageQuery) -> Page[WaitingVisitResponse]:
    """List completed visits that can't be invoiced yet because nobody has set their price."""
    found = await invoicing.list_waiting_visits(tx, caller=caller, after=page.after, limit=page.limit + 1)
    return page_of([WaitingVisitResponse.of(v) for v in found], page, key=lambda v: v.appointment_id)


@router.get("/v1/invoices/{invoice_id}", permission="invoices.read", operation_id="getInvoice")
async def get_invoice(tx: Tx, caller: Caller, invoice_id: UUID) -> InvoiceResponse:
    """Return one invoice with its lines and what is left to pay."""
    return InvoiceResponse.of(await invoices.read_invoice(tx, invoice_id, caller=caller))


@router.post(
    "/v1/invoices/{invoice_id}/payments",
    permission="payments.make",
    idempotency=Idempotency.REQUIRED,
    status_code=201,
    operation_id="startPayment",
)
async def start_payment(
    tx: Tx, caller: Caller, runtime: CurrentRuntime, invoice_id: UUID, body: PaymentRequest
) -> PaymentResponse:
    """Start to pay an invoice. A pending payment of the same amount is returned rather than a second one made.

    The provider hasn't been asked yet: read the payment again until it has a `client_secret` or a
    `confirmation_url`, or with Razorpay an order's id as `provider_reference`.
    """
    providers = runtime.get(Providers)
    provider = providers.of(body.provider or providers.default).name
    payment = await payments.start_payment(
        tx,
        invoice_id,
        amount_minor=body.amount_minor,
        provider=provider,
        receipt_contact=body.receipt_to,
        caller=caller,
    )
    return PaymentResponse.of(payment)


@router.get("/v1/payments", permission="payments.read", operation_id="listPayments")
async def list_payments(
    tx: Tx, caller: Caller, page: PageQuery, invoice_id: UUID | None = None
) -> Page[PaymentResponse]:
    """List payments the caller may see, of one invoice or all."""
    found = await payments.list_payments(
        tx, caller=caller, invoice_id=invoice_id, after=page.after, limit=page.limit + 1
    )
    return page_of([PaymentResponse.of(p) for p in found], page, key=lambda p: p.payment_id)


@router.get(
    "/v1/payments/notifications", permission="payments.manage", operation_id="listPaymentNotifications"
)
async def list_notifications(
    tx: Tx, page: PageQuery, disposition: DispositionName | None = None
) -> Page[NotificationResponse]:
    """List what payment providers told us and what became of it; `parked` is what waits for a person."""
    _audit_notifications(tx, Action.READ)
    rows = await notification_store.list_notifications(
        tx, disposition=disposition, after=page.after, limit=page.limit + 1
    )
    return page_of([NotificationResponse.of(r) for r in rows], page, key=lambda n: n.notification_id)


@router.post(
    "/v1/payments/notifications/{notification_id}/redrive",
    permission="payments.manage",
    status_code=202,
    operation_id="redrivePaymentNotification",
)
async def redrive_notification(tx: Tx, notification_id: UUID) -> None:
    """Let a parked notification be processed again. It hasn't been when this answers."""
    await notifications.redrive(tx, notification_id)
    _audit_notifications(tx, Action.EXECUTE, notification_id)


@router.post(
    "/v1/payments/notifications/{notification_id}/discard",
    permission="payments.manage",
    status_code=204,
    operation_id="discardPaymentNotification",
)
async def discard_notification(tx: Tx, notification_id: UUID, body: NotificationDiscardRequest) -> None:
    """Let a parked notification be, for a reason. It stays in the list."""
    await notifications.discard(tx, notification_id, reason=body.reason)


@router.get("/v1/payments/{payment_id}", permission="payments.read", operation_id="getPayment")
async def get_payment(tx: Tx, caller: Caller, payment_id: UUID) -> PaymentResponse:
    """Return one payment as it stands here; the provider isn't asked."""
    return PaymentResponse.of(await payments.read_payment(tx, payment_id, caller=caller))


@router.post("/v1/payments/{payment_id}/cancel", permission="payments.make", operation_id="cancelPayment")
async def cancel_payment(tx: Tx, caller: Caller, payment_id: UUID) -> PaymentResponse:
    """Ask to cancel a pending payment. It stays pending until the provider has cancelled it."""
    return PaymentResponse.of(await payments.cancel_payment(tx, payment_id, caller=caller))


@router.post(
    "/v1/payments/{payment_id}/refunds",
    permission="payments.refund",
    idempotency=Idempotency.REQUIRED,
    status_code=201,
    operation_id="refundPayment",
)
async def refund_payment(
    tx: Tx, caller: Caller, runtime: CurrentRuntime, payment_id: UUID, body: RefundRequest
) -> RefundResponse:
    """Give a payment back, all or a part. The refund is `pending` until the provider has made it; above the
    limit it is `awaiting-approval` until a second person has decided.
    """
    refund = await payments.request_refund(
        tx,
        payment_id,
        amount_minor=body.amount_minor,
        reason_code=body.reason_code,
        limit_minor=cast("BillingSettings", runtime.settings).approval_limit_minor,
        caller=caller,
    )
    return RefundResponse.of(refund)


@router.get("/v1/payments/{payment_id}/refunds", permission="payments.read", operation_id="listRefunds")
async def list_refunds(tx: Tx, caller: Caller, payment_id: UUID) -> list[RefundResponse]:
    """List a payment's refunds."""
    return [RefundResponse.of(r) for r in await payments.list_refunds(tx, payment_id, caller=caller)]


def _audit_notifications(tx: Tx, action: Action, notification_id: UUID | None = None) -> None:
    tx.audit(AuditEntry(action=action, resource_type="PaymentNotification", resource_id=notification_id))
