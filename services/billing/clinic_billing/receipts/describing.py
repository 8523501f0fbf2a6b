"""From a movement of money to what stands on its receipt."""

from dataclasses import dataclass
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from sqlalchemy import func, select

from clinic_billing import payment_store, store
from clinic_billing.accounts import CASH, receivable
from clinic_billing.domain import WITHOUT_SERVICE, Invoice, Payment
from clinic_billing.receipts.document import Document, Sale, Tender, method_of, of_money_back, of_money_in
from clinic_billing.tables import advance_application, ledger_entry, ledger_movement, service

_ADVANCE_NAME = "Аванс за медицинские услуги"
_SETTLES = ("payment-received", "payment-refunded", "advance-applied")


@dataclass(frozen=True, kw_only=True)
class Described:
    document: Document
    invoice: Invoice
    payment_id: UUID | None


async def describe(tx: Transaction, movement_id: UUID) -> Described:
    """Return what the receipt of a movement says. The same movement is always described alike."""
    row = await tx.fetch_one(select(ledger_movement).where(ledger_movement.c.movement_id == movement_id))
    if row is None:
        raise NotFoundError
    describe_kind = {
        "payment-received": _money_in,
        "payment-refunded": _money_back,
        "advance-applied": _set_off,
    }[row.kind]
    return await describe_kind(tx, movement_id, row.source_id)


async def _money_in(tx: Transaction, movement_id: UUID, payment_id: UUID) -> Described:
    paid = await _payment(tx, payment_id)
    sale = await _sale(tx, movement_id, paid.invoice_id, paid.receipt_contact)
    document = of_money_in(sale, paid.amount_minor, _tender(paid))
    return Described(document=document, invoice=sale.invoice, payment_id=payment_id)


async def _money_back(tx: Transaction, _: UUID, refund_id: UUID) -> Described:
    refund = await payment_store.find_refund(tx, refund_id)
    if refund is None:
        raise NotFoundError
    paid = await _payment(tx, refund.payment_id)
    first = await tx.fetch_one(
        select(ledger_movement.c.movement_id).where(
            ledger_movement.c.kind == "payment-received", ledger_movement.c.source_id == paid.payment_id
        )
    )
    if first is None:
        raise NotFoundError
    sale = await _sale(tx, first.movement_id, paid.invoice_id, paid.receipt_contact)
    method = method_of(sale, paid.amount_minor)
    document = of_money_back(sale, refund.amount_minor, _tender(paid), method)
    return Described(document=document, invoice=sale.invoice, payment_id=paid.payment_id)


async def _set_off(tx: Transaction, movement_id: UUID, application_id: UUID) -> Described:
    mine = select(advance_application).where(advance_application.c.application_id == application_id)
    row = await tx.fetch_one(mine)
    if row is None:
        raise NotFoundError
    contact = await payment_store.find_contact(tx, row.advance_id)
    sale = await _sale(tx, movement_id, row.invoice_id, contact)
    document = of_money_in(sale, row.amount_minor, Tender.PREPAID)
    return Described(document=document, invoice=sale.invoice, payment_id=None)


async def _sale(tx: Transaction, movement_id: UUID, invoice_id: UUID, contact: str | None) -> Sale:
    invoice = await store.find_invoice(tx, invoice_id)
    if invoice is None:
        raise NotFoundError
    codes = [line.service_code for line in invoice.lines]
    rows = await tx.fetch_all(select(service.c.code, service.c.name).where(service.c.code.in_(codes)))
    known = {row.code: row.name for row in rows} | {WITHOUT_SERVICE: _ADVANCE_NAME}
    return Sale(
        invoice=invoice,
        names=[known.get(code, code) for code in codes],
        settled_before_minor=await _settled_before(tx, invoice, movement_id),
        contact=contact,
    )


async def _settled_before(tx: Transaction, invoice: Invoice, movement_id: UUID) -> int:
    settled = (
        select(func.coalesce(func.sum(-ledger_entry.c.amount_minor), 0))
        .join(ledger_movement, ledger_movement.c.movement_id == ledger_entry.c.movement_id)
        .where(
            ledger_entry.c.account == receivable(invoice),
            ledger_movement.c.kind.in_(_SETTLES),
            ledger_movement.c.movement_id < movement_id,
        )
    )
    row = await tx.fetch_one(settled)
    return int(row[0]) if row else 0


async def _payment(tx: Transaction, payment_id: UUID) -> Payment:
    found = await payment_store.find_payment(tx, payment_id)
    if found is None:
        raise NotFoundError
    return found


def _tender(paid: Payment) -> Tender:
    return Tender.CASH if paid.provider == CASH else Tender.ELECTRONIC
