"""Taking money at a desk and giving it back: a payment that is received in the transaction that makes it."""

from dataclasses import replace
from typing import Literal
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from clinic_billing import payment_store, payments, settlement, store
from clinic_billing.accounts import CASH
from clinic_billing.cashdesk import shifts
from clinic_billing.cashdesk.errors import WrongDeskError
from clinic_billing.domain import Invoice, Payment, PaymentId, PaymentStatus, Refund, RefundStatus
from clinic_billing.errors import NotRefundableError
from clinic_billing.invoices import visible
from clinic_billing.settlement import ToldRefund

Tender = Literal["cash", "card-terminal"]


async def take(
    tx: Transaction,
    desk_id: UUID,
    *,
    invoice_id: UUID,
    tender: Tender,
    amount_minor: int | None,
    terminal_reference: str | None,
    receipt_contact: str | None,
    caller: Principal,
) -> Payment:
    """Take money for an invoice, all that is left or a part. Raises NoShiftOpenError, WrongDeskError."""
    desk = await shifts.find_desk(tx, desk_id, caller=caller)
    shift = await shifts.lock_open_shift(tx, desk_id)
    invoice = visible(await store.lock_invoice(tx, invoice_id), caller)
    if (invoice.legal_entity_id, invoice.currency) != (desk.legal_entity_id, desk.currency):
        raise WrongDeskError
    received = _received(tx, desk_id, shift.shift_id, invoice, tender, amount_minor)
    received = replace(
        received,
        provider_reference=terminal_reference or str(received.payment_id),
        receipt_contact=receipt_contact,
    )
    await payment_store.add_payment(tx, received)
    await settlement.book_received(tx, received, invoice)
    await _cancel_what_is_under_way(tx, invoice_id)
    return received


def _received(
    tx: Transaction,
    desk_id: UUID,
    shift_id: UUID,
    invoice: Invoice,
    tender: Tender,
    amount_minor: int | None,
) -> Payment:
    return Payment(
        payment_id=PaymentId(uuid7()),
        version=1,
        status=PaymentStatus.SUCCEEDED,
        invoice_id=invoice.invoice_id,
        patient_id=invoice.patient_id,
        amount_minor=invoice.amount_to_pay(amount_minor),
        currency=invoice.currency,
        provider=tender,
        requested_at=tx.now,
        received_at=tx.now,
        desk_id=desk_id,
        shift_id=shift_id,
    )


async def _cancel_what_is_under_way(tx: Transaction, invoice_id: UUID) -> None:
    """A payment that was begun online would be a second one; if it's too late, the invoice says so."""
    pending = await payment_store.find_pending_payment(tx, invoice_id)
    if pending is not None:
        await payment_store.request_call(tx, "cancel-intent", pending.payment_id)


async def give_back(tx: Transaction, desk_id: UUID, refund_id: UUID, *, caller: Principal) -> Refund:
    """Hand out, or undo at the terminal, a refund of a payment that a desk took.

    The refund was asked for, and approved where a second person is needed, as for any other payment.
    """
    desk = await shifts.find_desk(tx, desk_id, caller=caller)
    shift = await shifts.lock_open_shift(tx, desk_id)
    known = await payment_store.find_refund(tx, refund_id)
    if known is None:
        raise NotFoundError
    payment, invoice = await payments.lock(tx, known.payment_id, caller=caller)
    refund = await payment_store.find_refund(tx, refund_id) or known
    if payment.desk_id is None or refund.status is not RefundStatus.PENDING:
        raise NotRefundableError
    if (invoice.legal_entity_id, payment.desk_id) != (desk.legal_entity_id, desk_id):
        raise WrongDeskError
    if payment.provider == CASH:
        await shifts.require_cash(tx, desk_id, refund.amount_minor)
    await payment_store.set_refund_shift(tx, refund_id, shift.shift_id)
    told = ToldRefund(
        reference=str(refund_id),
        amount_minor=refund.amount_minor,
        currency=payment.currency,
        refunded_at=tx.now,
        refund_id=refund_id,
    )
    await settlement.give_back(tx, payment.payment_id, told)
    return await payment_store.find_refund(tx, refund_id) or refund
