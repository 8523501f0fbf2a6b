"""The accounts of the ledger, and which of them a movement of money touches. Pure.

| account | holds |
|---|---|
| `receivable:<invoice>` | what the patient owes: the total less what was paid, set off or given up |
| `revenue:<legal entity>` | what was earned (negative) |
| `cash:<provider>`, `cash:desk:<desk>` | what a payment provider or a cash desk holds for us |
| `advance:<invoice>` | what we owe because it was paid in advance (negative) |
| `written-off:<legal entity>` | what was given up |
| `safe:<legal entity>`, `desk-difference:<legal entity>` | cash taken from desks; what was too much or too little |
"""

from dataclasses import dataclass

from clinic_billing.domain import Invoice, InvoiceKind, Payment, Refund

CASH, CARD_TERMINAL = "cash", "card-terminal"
"""What a payment at a cash desk has in place of a provider."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One side of a movement of money; the amounts of a movement's entries sum to zero."""

    account: str
    amount_minor: int


def receivable(invoice: Invoice) -> str:
    return f"receivable:{invoice.invoice_id}"


def invoice_entries(invoice: Invoice) -> list[Entry]:
    """The patient owes what the legal entity earned."""
    return moved(to=receivable(invoice), of=f"revenue:{invoice.legal_entity_id}", by=invoice.total_minor)


def owed(invoice: Invoice) -> str:
    """Return the account that a payment of the invoice settles: what they owe us, or what we owe them."""
    if invoice.kind is InvoiceKind.ADVANCE:
        return f"advance:{invoice.invoice_id}"
    return receivable(invoice)


def cash(payment: Payment) -> str:
    if payment.desk_id is None:
        return f"cash:{payment.provider}"
    return f"cash:{'desk' if payment.provider == CASH else 'terminal'}:{payment.desk_id}"


def payment_entries(invoice: Invoice, payment: Payment) -> list[Entry]:
    return moved(to=cash(payment), of=owed(invoice), by=payment.amount_minor)


def refund_entries(invoice: Invoice, payment: Payment, refund: Refund) -> list[Entry]:
    """What goes back is owed again; an invoice is reduced by a correction of its own, not by a refund."""
    return moved(to=owed(invoice), of=cash(payment), by=refund.amount_minor)


def set_off_entries(advance: Invoice, invoice: Invoice, amount_minor: int) -> list[Entry]:
    return moved(to=owed(advance), of=receivable(invoice), by=amount_minor)


def write_off_entries(invoice: Invoice, amount_minor: int) -> list[Entry]:
    return moved(to=f"written-off:{invoice.legal_entity_id}", of=receivable(invoice), by=amount_minor)


def moved(*, to: str, of: str, by: int) -> list[Entry]:
    return [Entry(account=to, amount_minor=by), Entry(account=of, amount_minor=-by)] if by else []
