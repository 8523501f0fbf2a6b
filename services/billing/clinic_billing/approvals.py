"""The second pair of eyes: refunds and write-offs above a limit wait until somebody else decides.

What counts is how much of a payment or an invoice is given away in all, so that the limit isn't passed in slices.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from clinic_shared.audit import Action
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from sqlalchemy import Row, func, insert, select, update

from clinic_billing import invoices, ledger, payment_store, payments, store
from clinic_billing.accounts import write_off_entries
from clinic_billing.domain import Invoice, Refund
from clinic_billing.errors import AlreadyDecidedError, ApprovedByOneselfError
from clinic_billing.tables import write_off


async def decide_refund(tx: Transaction, refund_id: UUID, *, approved: bool, caller: Principal) -> Refund:
    """Let a refund go on its way, or turn it down. Raises AlreadyDecidedError, ApprovedByOneselfError."""
    known = await payment_store.find_refund(tx, refund_id)
    if known is None:
        raise NotFoundError
    payment, _ = await payments.lock(tx, known.payment_id, caller=caller)
    refund = await payment_store.find_refund(tx, refund_id) or known
    decided = refund.decided(by=caller.subject, approved=approved)
    await payment_store.save_refund(tx, decided)
    if approved:
        await payments.send_refund(tx, payment, decided)
    else:
        await payment_store.save_payment(tx, payment.refunding(-refund.amount_minor))
    payments.audit_payment(
        tx, Action.UPDATE, payment, refund_id=str(refund_id), decision=decided.status.value
    )
    return decided


async def write_off_invoice(
    tx: Transaction,
    invoice_id: UUID,
    *,
    amount_minor: int | None,
    reason_code: str,
    limit_minor: int,
    caller: Principal,
) -> UUID:
    """Give up what an invoice still asks for, all or a part; above the limit once a second person agrees."""
    invoice = invoices.visible(await store.lock_invoice(tx, invoice_id), caller)
    amount = invoice.amount_to_pay(amount_minor)
    waits = await _given_up(tx, invoice_id) + amount > limit_minor
    write_off_id = uuid7()
    await tx.execute(
        insert(write_off).values(
            write_off_id=write_off_id,
            invoice_id=invoice_id,
            status="awaiting-approval" if waits else "booked",
            amount_minor=amount,
            reason_code=reason_code,
            requested_at=tx.now,
            requested_by=caller.subject,
        )
    )
    if not waits:
        await _book(tx, invoice, write_off_id, amount)
    invoices.audit_invoice(tx, Action.UPDATE, invoice)
    return write_off_id


async def decide_write_off(tx: Transaction, write_off_id: UUID, *, approved: bool, caller: Principal) -> None:
    """Raises AlreadyDecidedError, ApprovedByOneselfError, NothingToPayError, AmountTooHighError."""
    known = await find_write_off(tx, write_off_id)
    invoice = invoices.visible(await store.lock_invoice(tx, known.invoice_id), caller)
    asked = await find_write_off(tx, write_off_id)
    if asked.status != "awaiting-approval":
        raise AlreadyDecidedError
    if asked.requested_by == caller.subject:
        raise ApprovedByOneselfError
    status = "booked" if approved else "turned-down"
    mine = update(write_off).where(write_off.c.write_off_id == write_off_id)
    await tx.execute(mine.values(status=status, decided_by=caller.subject, decided_at=tx.now))
    if approved:
        # It may have been paid meanwhile.
        await _book(tx, invoice, write_off_id, invoice.amount_to_pay(asked.amount_minor))
    invoices.audit_invoice(tx, Action.UPDATE, invoice)


async def list_write_offs(tx: Transaction, invoice_id: UUID, *, caller: Principal) -> Sequence[Row[Any]]:
    await invoices.read_invoice(tx, invoice_id, caller=caller)
    mine = select(write_off).where(write_off.c.invoice_id == invoice_id)
    return await tx.fetch_all(mine.order_by(write_off.c.write_off_id))


async def find_write_off(tx: Transaction, write_off_id: UUID) -> Row[Any]:
    row = await tx.fetch_one(select(write_off).where(write_off.c.write_off_id == write_off_id))
    if row is None:
        raise NotFoundError
    return row


async def _given_up(tx: Transaction, invoice_id: UUID) -> int:
    """Sum what is given up or is asked to be, so that many small ones aren't a way around the limit."""
    total = select(func.coalesce(func.sum(write_off.c.amount_minor), 0)).where(
        write_off.c.invoice_id == invoice_id, write_off.c.status != "turned-down"
    )
    row = await tx.fetch_one(total)
    return int(row[0]) if row else 0


async def _book(tx: Transaction, invoice: Invoice, write_off_id: UUID, amount_minor: int) -> None:
    await store.save_invoice(tx, invoice.written_off(amount_minor))
    await ledger.book(
        tx,
        "written-off",
        write_off_entries(invoice, amount_minor),
        source_id=write_off_id,
        legal_entity_id=invoice.legal_entity_id,
        currency=invoice.currency,
    )
