"""What a provider says has happened to money takes effect here, once, however it is told.

The same fact may come as the answer to a call, as a webhook, and again as another webhook, in any
order. Each function returns whether it changed anything. Locks: invoice, then payment.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from clinic_shared.audit import Action
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.ids import uuid7

from clinic_billing import ledger, payment_store, store
from clinic_billing.accounts import payment_entries, refund_entries
from clinic_billing.domain import Invoice, Payment, PaymentStatus, Refund, RefundId, RefundStatus
from clinic_billing.errors import (
    PaymentMismatchError,
    PaymentNotYetReceivedError,
    RefundReversedError,
    UnknownPaymentError,
)
from clinic_billing.events import payment_received, payment_refunded
from clinic_billing.payments import audit_payment
from clinic_billing.providers.port import (
    PaymentAtProvider,
    PaymentState,
    RefundAtProvider,
    RefundState,
    StartedPayment,
)

MADE_AT_PROVIDER = "made-at-provider"


@dataclass(frozen=True, kw_only=True)
class ToldPayment:
    """Money that arrived, in the provider's words."""

    reference: str
    amount_minor: int
    currency: str
    received_at: datetime


@dataclass(frozen=True, kw_only=True)
class ToldRefund:
    """Money that went back, in the provider's words. `refund_id` is ours, where the refund began here."""

    reference: str
    amount_minor: int
    currency: str
    refunded_at: datetime
    refund_id: UUID | None


async def bring_up_to(
    tx: Transaction, provider: str, found: PaymentAtProvider, *, told_at: datetime
) -> tuple[Payment, bool]:
    """Let our payment be as the provider has it; returns it and whether that changed anything.

    Raises UnknownPaymentError, PaymentMismatchError, PaymentClosedError, RefundReversedError.
    """
    payment = await _known(tx, provider, found)
    changes = [await _bring_up_status(tx, payment, found, told_at=told_at)]
    changes += [await bring_up_refund(tx, payment, refund, told_at=told_at) for refund in found.refunds]
    return payment, any(changes)


async def _known(tx: Transaction, provider: str, found: PaymentAtProvider) -> Payment:
    """Find the payment by the provider's reference or, before that is known here, by our own id."""
    payment = await payment_store.find_payment_of(tx, provider, found.reference)
    if payment is None and found.payment_id is not None:
        payment = await payment_store.find_payment(tx, found.payment_id)
    if payment is None or payment.provider != provider:
        raise UnknownPaymentError
    if payment.provider_reference not in (None, found.reference):
        raise UnknownPaymentError
    return payment


async def _bring_up_status(
    tx: Transaction, payment: Payment, found: PaymentAtProvider, *, told_at: datetime
) -> bool:
    match found.state:
        case PaymentState.SUCCEEDED:
            told = ToldPayment(
                reference=found.reference,
                amount_minor=found.amount_minor,
                currency=found.currency,
                received_at=told_at,
            )
            return await receive(tx, payment.payment_id, told)
        case PaymentState.PENDING:
            return found.failure_code is not None and await decline(
                tx, payment.payment_id, failure_code=found.failure_code
            )
        case PaymentState.CANCELLED:
            return await close(tx, payment.payment_id, PaymentStatus.CANCELLED)
        case PaymentState.FAILED:
            return await close(tx, payment.payment_id, PaymentStatus.FAILED, failure_code=found.failure_code)


async def bring_up_refund(
    tx: Transaction, payment: Payment, found: RefundAtProvider, *, told_at: datetime
) -> bool:
    """Let a refund be as the provider has it. Raises what `give_back` and `fail_refund` raise."""
    if found.state is RefundState.SUCCEEDED:
        told = ToldRefund(
            reference=found.reference,
            amount_minor=found.amount_minor,
            currency=found.currency,
            refunded_at=told_at,
            refund_id=found.refund_id,
        )
        return await give_back(tx, payment.payment_id, told)
    known = await _known_refund(tx, payment, found.reference, found.refund_id)
    if known is None:
        # Began at the provider and hasn't come to anything yet.
        return False
    if found.state is RefundState.FAILED:
        return await fail_refund(tx, known.refund_id, failure_code=found.failure_code or "failed")
    return await know_refund(tx, known.refund_id, reference=found.reference)


async def receive(tx: Transaction, payment_id: UUID, told: ToldPayment) -> bool:
    """Money arrived. Raises PaymentMismatchError, PaymentClosedError."""
    payment, invoice = await _lock(tx, payment_id)
    if payment.was_received:
        return False
    received = payment.received(
        amount_minor=told.amount_minor,
        currency=told.currency,
        reference=told.reference,
        received_at=told.received_at,
    )
    await payment_store.save_payment(tx, received)
    await book_received(tx, received, invoice)
    return True


async def book_received(tx: Transaction, received: Payment, invoice: Invoice) -> None:
    """Book a payment that has just been received; `invoice` is locked, and as it was before."""
    settled = invoice.moved_by(received.amount_minor)
    await store.save_invoice(tx, settled)
    await ledger.book(
        tx,
        "payment-received",
        payment_entries(settled, received),
        source_id=received.payment_id,
        legal_entity_id=settled.legal_entity_id,
        currency=received.currency,
    )
    tx.emit(payment_received(received, settled))
    audit_payment(tx, Action.UPDATE, received)


async def decline(tx: Transaction, payment_id: UUID, *, failure_code: str | None) -> bool:
    """An attempt failed; the payment stays open for another card."""
    payment, _ = await _lock(tx, payment_id)
    if payment.status is not PaymentStatus.PENDING or payment.failure_code == failure_code:
        return False
    await _save(tx, payment.declined(failure_code))
    return True


async def close(
    tx: Transaction, payment_id: UUID, status: PaymentStatus, *, failure_code: str | None = None
) -> bool:
    """A pending payment was cancelled, or the provider refused to take it."""
    payment, _ = await _lock(tx, payment_id)
    if payment.status is not PaymentStatus.PENDING:
        return False
    await _save(tx, payment.closed(status, failure_code))
    return True


async def know(tx: Transaction, payment_id: UUID, started: StartedPayment) -> bool:
    """The provider knows the payment by this reference from now on, and says how it can be paid."""
    payment, _ = await _lock(tx, payment_id)
    if payment.is_payable or payment.provider_reference not in (None, started.reference):
        return False
    known = payment.known_to_provider(
        started.reference,
        client_secret=started.client_secret,
        confirmation_url=started.confirmation_url,
    )
    await _save(tx, known)
    return True


async def give_back(tx: Transaction, payment_id: UUID, told: ToldRefund) -> bool:
    """Money went back. Raises PaymentNotYetReceivedError, PaymentMismatchError."""
    payment, invoice = await _lock(tx, payment_id)
    if not payment.was_received:
        raise PaymentNotYetReceivedError("The payment hasn't been told yet.", reference="payment_id")
    refund = await _refund_of(tx, payment, told)
    if refund.status is RefundStatus.SUCCEEDED:
        return False
    if (told.amount_minor, told.currency) != (refund.amount_minor, payment.currency):
        raise PaymentMismatchError
    # One that began at the provider, or had failed here, has nothing set aside.
    reserved = refund.status is RefundStatus.PENDING and refund.reason_code != MADE_AT_PROVIDER
    done = refund.succeeded(reference=told.reference, refunded_at=told.refunded_at)
    reduced = payment.refunded(refund.amount_minor, of_reserved=reserved)
    reopened = invoice.moved_by(-refund.amount_minor)
    await payment_store.save_refund(tx, done)
    await payment_store.save_payment(tx, reduced)
    await store.save_invoice(tx, reopened)
    await _book_refund(tx, done, reduced, reopened)
    return True


async def _book_refund(tx: Transaction, refund: Refund, payment: Payment, invoice: Invoice) -> None:
    await ledger.book(
        tx,
        "payment-refunded",
        refund_entries(invoice, payment, refund),
        source_id=refund.refund_id,
        legal_entity_id=invoice.legal_entity_id,
        currency=payment.currency,
    )
    tx.emit(payment_refunded(refund, payment, invoice))
    audit_payment(tx, Action.UPDATE, payment, refund_id=str(refund.refund_id))


async def fail_refund(tx: Transaction, refund_id: UUID, *, failure_code: str) -> bool:
    """A refund didn't happen; what was set aside may be refunded again. Raises RefundReversedError."""
    refund = await payment_store.find_refund(tx, refund_id)
    if refund is None:
        raise NotFoundError
    payment, _ = await _lock(tx, refund.payment_id)
    # Read again, now that nobody else can change it.
    refund = await payment_store.find_refund(tx, refund_id) or refund
    if refund.status is RefundStatus.SUCCEEDED:
        raise RefundReversedError
    if refund.status is RefundStatus.FAILED:
        return False
    await payment_store.save_refund(tx, refund.failed(failure_code))
    await _save(tx, payment.refunding(-refund.amount_minor))
    return True


async def know_refund(tx: Transaction, refund_id: UUID, *, reference: str) -> bool:
    """The provider has taken a refund on and knows it by this reference."""
    refund = await payment_store.find_refund(tx, refund_id)
    if refund is None:
        raise NotFoundError
    await _lock(tx, refund.payment_id)
    refund = await payment_store.find_refund(tx, refund_id) or refund
    if refund.provider_reference is not None:
        return False
    await payment_store.save_refund(tx, replace(refund, provider_reference=reference))
    return True


async def _refund_of(tx: Transaction, payment: Payment, told: ToldRefund) -> Refund:
    """Return the refund that was told of; one that began at the provider is new here."""
    known = await _known_refund(tx, payment, told.reference, told.refund_id)
    if known is not None:
        return known
    new = Refund(
        refund_id=RefundId(uuid7()),
        payment_id=payment.payment_id,
        status=RefundStatus.PENDING,
        amount_minor=told.amount_minor,
        reason_code=MADE_AT_PROVIDER,
        provider=payment.provider,
        requested_at=tx.now,
    )
    await payment_store.add_refund(tx, new)
    return new


async def _known_refund(
    tx: Transaction, payment: Payment, reference: str, refund_id: UUID | None
) -> Refund | None:
    known = await payment_store.find_refund_of(tx, payment.provider, reference)
    if known is None and refund_id is not None:
        ours = await payment_store.find_refund(tx, refund_id)
        known = ours if ours is not None and ours.payment_id == payment.payment_id else None
    return known


async def _save(tx: Transaction, payment: Payment) -> None:
    await payment_store.save_payment(tx, payment)
    audit_payment(tx, Action.UPDATE, payment)


async def _lock(tx: Transaction, payment_id: UUID) -> tuple[Payment, Invoice]:
    known = await payment_store.find_payment(tx, payment_id)
    invoice = await store.lock_invoice(tx, known.invoice_id) if known else None
    payment = await payment_store.lock_payment(tx, payment_id)
    if payment is None or invoice is None:
        raise NotFoundError
    return payment, invoice
