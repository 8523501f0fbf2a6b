"""Asking for money and giving it back: intents, which the worker takes to the provider after the commit."""

from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.problems import constraint_of
from sqlalchemy.exc import IntegrityError

from clinic_billing import advances, payment_store, store, tables
from clinic_billing.domain import (
    PATIENT,
    Invoice,
    InvoiceKind,
    Payment,
    PaymentId,
    PaymentStatus,
    Refund,
    RefundId,
    RefundStatus,
)
from clinic_billing.errors import InsurerPaysError, NotCancellableError, PaymentInProgressError
from clinic_billing.invoices import visible, within


async def start_payment(
    tx: Transaction,
    invoice_id: UUID,
    *,
    amount_minor: int | None,
    provider: str,
    receipt_contact: str | None,
    caller: Principal,
) -> Payment:
    """Ask for what is left on the invoice, or for a part of it. A payment under way is carried on.

    The provider isn't asked yet: that happens after the commit, with the call's id as idempotency key.
    """
    invoice = visible(await store.lock_invoice(tx, invoice_id), caller)
    if invoice.payer != PATIENT:
        raise InsurerPaysError(payer=invoice.payer)
    amount = invoice.amount_to_pay(amount_minor)
    pending = await payment_store.find_pending_payment(tx, invoice_id)
    if pending is not None:
        if (pending.amount_minor, pending.provider) != (amount, provider):
            raise PaymentInProgressError(payment_id=str(pending.payment_id))
        return pending
    payment = Payment(
        payment_id=PaymentId(uuid7()),
        version=1,
        status=PaymentStatus.PENDING,
        invoice_id=invoice.invoice_id,
        patient_id=invoice.patient_id,
        amount_minor=amount,
        currency=invoice.currency,
        provider=provider,
        requested_at=tx.now,
        receipt_contact=receipt_contact,
    )
    await _add(tx, payment)
    await payment_store.request_call(tx, "create-intent", payment.payment_id)
    audit_payment(tx, Action.CREATE, payment)
    return payment


async def _add(tx: Transaction, payment: Payment) -> None:
    try:
        await payment_store.add_payment(tx, payment)
    except IntegrityError as error:
        # Unreachable while everyone locks the invoice first; the constraint is what makes that a proof.
        if constraint_of(error) == tables.PAYMENT_PENDING_ONCE:
            raise PaymentInProgressError from error
        raise


async def cancel_payment(tx: Transaction, payment_id: UUID, *, caller: Principal) -> Payment:
    """Ask the provider to cancel a pending payment; it is cancelled once the provider says so."""
    payment, _ = await lock(tx, payment_id, caller=caller)
    if payment.status is not PaymentStatus.PENDING:
        raise NotCancellableError
    await payment_store.request_call(tx, "cancel-intent", payment.payment_id)
    audit_payment(tx, Action.UPDATE, payment)
    return payment


async def request_refund(
    tx: Transaction,
    payment_id: UUID,
    *,
    amount_minor: int | None,
    reason_code: str,
    limit_minor: int,
    caller: Principal,
) -> Refund:
    """Give a payment back, all that is left of it or a part. It is `pending` until the provider has done it.

    Where more than the limit of one payment goes back in all, a second person has to approve first.
    """
    payment, invoice = await lock(tx, payment_id, caller=caller)
    most = await advances.available(tx, invoice) if invoice.kind is InvoiceKind.ADVANCE else None
    amount = payment.amount_to_refund(amount_minor, most_minor=most)
    waits = payment.refunded_minor + payment.refunding_minor + amount > limit_minor
    refund = Refund(
        refund_id=RefundId(uuid7()),
        payment_id=payment.payment_id,
        status=RefundStatus.AWAITING_APPROVAL if waits else RefundStatus.PENDING,
        amount_minor=amount,
        reason_code=reason_code,
        provider=payment.provider,
        requested_at=tx.now,
        requested_by=caller.subject,
    )
    payment = payment.refunding(refund.amount_minor)
    await payment_store.save_payment(tx, payment)
    await payment_store.add_refund(tx, refund)
    if not waits:
        await send_refund(tx, payment, refund)
    audit_payment(tx, Action.UPDATE, payment, refund_id=str(refund.refund_id))
    return refund


async def send_refund(tx: Transaction, payment: Payment, refund: Refund) -> None:
    """Let the provider give the money back, after the commit. What a desk took, a cashier hands out."""
    if payment.desk_id is None:
        await payment_store.request_call(tx, "create-refund", refund.refund_id)


async def lock(tx: Transaction, payment_id: UUID, *, caller: Principal) -> tuple[Payment, Invoice]:
    known = await payment_store.find_payment(tx, payment_id)
    if known is None:
        raise NotFoundError
    invoice = visible(await store.lock_invoice(tx, known.invoice_id), caller)
    # Read again: it may have moved while the invoice was waited for.
    payment = await payment_store.lock_payment(tx, payment_id)
    if payment is None:
        raise NotFoundError
    return payment, invoice


async def read_payment(tx: Transaction, payment_id: UUID, *, caller: Principal) -> Payment:
    payment = await payment_store.find_payment(tx, payment_id)
    if payment is None:
        raise NotFoundError
    visible(await store.find_invoice(tx, payment.invoice_id), caller)
    audit_payment(tx, Action.READ, payment)
    return payment


async def list_refunds(tx: Transaction, payment_id: UUID, *, caller: Principal) -> list[Refund]:
    await read_payment(tx, payment_id, caller=caller)
    return await payment_store.list_refunds(tx, payment_id)


async def list_refunds_of_all(
    tx: Transaction, *, caller: Principal, status: RefundStatus | None, after: UUID | None, limit: int
) -> list[Refund]:
    return await payment_store.list_refunds_within(
        tx, within=within(caller), status=status, after=after, limit=limit
    )


async def list_payments(
    tx: Transaction, *, caller: Principal, invoice_id: UUID | None, after: UUID | None, limit: int
) -> list[Payment]:
    found = await payment_store.list_payments(
        tx, within=within(caller), invoice_id=invoice_id, after=after, limit=limit
    )
    for payment in found:
        audit_payment(tx, Action.READ, payment)
    return found


def audit_payment(tx: Transaction, action: Action, payment: Payment, **details: str) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="Payment",
            resource_id=payment.payment_id,
            patient_id=payment.patient_id,
            details={"status": payment.status.value, **details},
        )
    )
