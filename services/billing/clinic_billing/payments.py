"""Asking for money and giving it back: intents, which the worker takes to the provider after the commit."""

from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.problems import constraint_of
from sqlalchemy.exc import IntegrityError

from clinic_billing import payment_store, store, tables
from clinic_billing.domain import (
    STRIPE,
    Invoice,
    NotCancellableError,
    Payment,
    PaymentId,
    PaymentInProgressError,
    PaymentStatus,
    Refund,
    RefundId,
    RefundStatus,
)
from clinic_billing.invoicing import visible, within


async def start_payment(
    tx: Transaction, invoice_id: UUID, *, amount_minor: int | None, caller: Principal
) -> Payment:
    """Ask for what is left on the invoice, or for a part of it. A payment under way is carried on.

    The provider isn't asked yet: that happens after the commit, with the call's id as idempotency key.
    """
    invoice = visible(await store.lock_invoice(tx, invoice_id), caller)
    amount = invoice.amount_to_pay(amount_minor)
    pending = await payment_store.find_pending_payment(tx, invoice_id)
    if pending is not None:
        if pending.amount_minor != amount:
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
        provider=STRIPE,
        requested_at=tx.now,
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
    payment, _ = await _lock(tx, payment_id, caller=caller)
    if payment.status is not PaymentStatus.PENDING:
        raise NotCancellableError
    await payment_store.request_call(tx, "cancel-intent", payment.payment_id)
    audit_payment(tx, Action.UPDATE, payment)
    return payment


async def request_refund(
    tx: Transaction, payment_id: UUID, *, amount_minor: int | None, reason_code: str, caller: Principal
) -> Refund:
    """Give a payment back, all that is left of it or a part. It is `pending` until the provider has done it."""
    payment, _ = await _lock(tx, payment_id, caller=caller)
    refund = Refund(
        refund_id=RefundId(uuid7()),
        payment_id=payment.payment_id,
        status=RefundStatus.PENDING,
        amount_minor=payment.amount_to_refund(amount_minor),
        reason_code=reason_code,
        provider=payment.provider,
        requested_at=tx.now,
    )
    await payment_store.save_payment(tx, payment.refunding(refund.amount_minor))
    await payment_store.add_refund(tx, refund)
    await payment_store.request_call(tx, "create-refund", refund.refund_id)
    audit_payment(tx, Action.UPDATE, payment, refund_id=str(refund.refund_id))
    return refund


async def _lock(tx: Transaction, payment_id: UUID, *, caller: Principal) -> tuple[Payment, Invoice]:
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
