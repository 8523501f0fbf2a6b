"""What stands on a receipt, pure: which operation, which method of settlement, what was paid with what.

Tag numbers are those of FFD 1.2. A visit paid in advance has two receipts: one when the money came, one when
the service was rendered and the advance was set off against it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from clinic_billing.domain import WITHOUT_SERVICE, Invoice, InvoiceKind


class Operation(StrEnum):
    """Tag 1054 and, for a correction, the form of the document."""

    SELL = "sell"
    SELL_REFUND = "sell-refund"
    SELL_CORRECTION = "sell-correction"
    SELL_REFUND_CORRECTION = "sell-refund-correction"


class Method(StrEnum):
    """Tag 1214."""

    FULL_PREPAYMENT = "full_prepayment"
    PREPAYMENT = "prepayment"
    ADVANCE = "advance"
    FULL_PAYMENT = "full_payment"
    PARTIAL_PAYMENT = "partial_payment"
    CREDIT_PAYMENT = "credit_payment"


class Tender(StrEnum):
    """Tags 1081, 1031, 1215, 1216."""

    ELECTRONIC = "electronic"
    CASH = "cash"
    PREPAID = "prepaid"
    CREDIT = "credit"


_SHARES = {Method.CREDIT_PAYMENT, Method.PREPAYMENT, Method.ADVANCE}
CORRECTED = {
    Operation.SELL: Operation.SELL_CORRECTION,
    Operation.SELL_REFUND: Operation.SELL_REFUND_CORRECTION,
}


@dataclass(frozen=True, kw_only=True)
class Item:
    name: str
    quantity: int
    price_minor: int
    method: Method

    @property
    def sum_minor(self) -> int:
        return self.quantity * self.price_minor


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Why a document corrects: tags 1173, 1178, 1179. `base_number` is the order's, `0` without one."""

    base_on: str
    base_number: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """A receipt without its company. What was paid, and what remains as credit, sums to its items."""

    operation: Operation
    items: tuple[Item, ...]
    payments: dict[Tender, int]
    currency: str
    contact: str | None = None
    correction: Correction | None = None

    @property
    def total_minor(self) -> int:
        return sum(item.sum_minor for item in self.items)

    @property
    def balanced(self) -> bool:
        return self.total_minor == sum(self.payments.values())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Document":
        correction = stored["correction"]
        items = (Item(**item | {"method": Method(item["method"])}) for item in stored["items"])
        return cls(
            operation=Operation(stored["operation"]),
            items=tuple(items),
            payments={Tender(tender): amount for tender, amount in stored["payments"].items()},
            currency=stored["currency"],
            contact=stored["contact"],
            correction=None if correction is None else Correction(**correction),
        )


@dataclass(frozen=True, kw_only=True)
class Sale:
    """What a receipt is about: the invoice with the names of its lines, and what of it was settled before."""

    invoice: Invoice
    names: Sequence[str]
    settled_before_minor: int
    contact: str | None

    def whole(self, method: Method) -> tuple[Item, ...]:
        return tuple(
            Item(name=name, quantity=line.quantity, price_minor=line.unit_amount_minor, method=method)
            for name, line in zip(self.names, self.invoice.lines, strict=True)
            if line.unit_amount_minor
        )

    def share(self, amount_minor: int, method: Method) -> tuple[Item, ...]:
        """Return one item of an amount that isn't that of the lines."""
        name = ", ".join(dict.fromkeys(self.names))
        return (Item(name=name, quantity=1, price_minor=amount_minor, method=method),)


def of_money_in(sale: Sale, amount_minor: int, tender: Tender) -> Document:
    """Return the receipt of money that came, or of an advance that was set off (`Tender.PREPAID`)."""
    payments = {tender: amount_minor}
    method = method_of(sale, amount_minor)
    if method is Method.PARTIAL_PAYMENT:
        # The service is rendered as a whole, so it stands there as a whole; what is owed still is credit.
        payments[Tender.CREDIT] = sale.invoice.total_minor - amount_minor
    if method in _SHARES or amount_minor > sale.invoice.total_minor:
        items = sale.share(amount_minor, method)
    else:
        items = sale.whole(method)
    return Document(
        operation=Operation.SELL,
        items=items,
        payments=payments,
        currency=sale.invoice.currency,
        contact=sale.contact,
    )


def of_money_back(sale: Sale, amount_minor: int, tender: Tender, method: Method) -> Document:
    """Return the receipt of a refund; `method` is that of the receipt that it takes back."""
    return Document(
        operation=Operation.SELL_REFUND,
        items=sale.share(amount_minor, method),
        payments={tender: amount_minor},
        currency=sale.invoice.currency,
        contact=sale.contact,
    )


def method_of(sale: Sale, amount_minor: int) -> Method:
    invoice, is_all = sale.invoice, amount_minor >= sale.invoice.total_minor
    if invoice.kind is InvoiceKind.ADVANCE:
        if all(line.service_code == WITHOUT_SERVICE for line in invoice.lines):
            return Method.ADVANCE
        return Method.FULL_PREPAYMENT if is_all else Method.PREPAYMENT
    if sale.settled_before_minor > 0:
        return Method.CREDIT_PAYMENT
    return Method.FULL_PAYMENT if is_all else Method.PARTIAL_PAYMENT
