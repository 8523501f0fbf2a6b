"""The rules of money, pure: what a visit costs, what an invoice still asks for, how a payment moves.

Amounts are integers in minor units of an ISO 4217 currency. A price is valid on half-open ranges of dates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NewType
from uuid import UUID

from clinic_shared.errors import DomainError, InvalidRequestError, ReferenceNotYetKnownError

InvoiceId = NewType("InvoiceId", UUID)
PaymentId = NewType("PaymentId", UUID)
PriceId = NewType("PriceId", UUID)
RefundId = NewType("RefundId", UUID)

PAYMENT_TERM = timedelta(days=7)
STRIPE = "stripe"


class PriceKind(StrEnum):
    """What a price is of: a service of the catalogue, or a test that a lab does."""

    SERVICE = "service"
    LAB_TEST = "lab-test"


class InvoiceStatus(StrEnum):
    """contracts/taxonomy/statuses.yaml; FHIR R4 Invoice.status beside each."""

    ISSUED = "issued"  # issued
    PARTLY_PAID = "partly-paid"  # issued
    PAID = "paid"  # balanced
    CANCELLED = "cancelled"  # cancelled


class PaymentStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARTLY_REFUNDED = "partly-refunded"
    REFUNDED = "refunded"


class RefundStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Attention(StrEnum):
    """Why a person should look at an invoice."""

    OVERPAID = "overpaid"
    VISIT_CANCELLED = "visit-cancelled"
    VISIT_MISSED = "visit-missed"


class PriceAlreadySetError(DomainError):
    """A price of the same thing at the same centre begins on that date."""

    slug = "price-already-set"
    title = "A price begins on that date already"
    fix = "Let the new price begin on another date."


class CurrencyMismatchError(InvalidRequestError):
    """A centre charges in its legal entity's currency."""

    slug = "currency-mismatch"
    title = "The centre charges in another currency"
    fix = "State the price in `currency`."


class NothingToPayError(DomainError):
    """The invoice is paid, free or cancelled."""

    slug = "nothing-to-pay"
    title = "Nothing is left to pay on this invoice"
    fix = "Read the invoice's status; what was paid in error is refunded."


class AmountTooHighError(InvalidRequestError):
    """More was asked for than is left on the invoice or payment."""

    slug = "amount-too-high"
    title = "The amount is more than what is left"
    fix = "Ask for no more than `outstanding_minor` or `refundable_minor`, whichever the problem names."


class PaymentInProgressError(DomainError):
    """Another payment of the invoice, of another amount, waits for the provider."""

    slug = "payment-in-progress"
    title = "Another payment of this invoice is in progress"
    fix = "Complete the payment that `payment_id` names, or wait until it is cancelled."


class NotCancellableError(DomainError):
    """Only a payment that waits for the provider can be cancelled."""

    slug = "not-cancellable"
    title = "The payment is no longer pending"
    fix = "Read the payment's status; one that succeeded is refunded instead."


class NotRefundableError(DomainError):
    """Only money that was received, and is neither refunded nor being refunded, can go back."""

    slug = "not-refundable"
    title = "Nothing of this payment can be refunded"
    fix = "Read the payment and its refunds; a refund under way may still fail and free its amount."


class UnknownPaymentError(DomainError):
    """A provider told of money that no payment here asked for."""

    slug = "unknown-payment"
    title = "No payment here belongs to this notification"
    fix = "Find the charge at the provider. If it isn't the clinic's, discard the notification."


class PaymentMismatchError(DomainError):
    """A provider told of another amount or currency than was asked for."""

    slug = "payment-mismatch"
    title = "The amount or currency is not the one that was asked for"
    fix = "Refund the charge at the provider if it is wrong, and discard the notification with the reason."


class PaymentClosedError(DomainError):
    """A provider told of money for a payment that had failed or been cancelled."""

    slug = "payment-closed"
    title = "The payment is closed and can't succeed any more"
    fix = "Refund the charge at the provider, then discard the notification with that as the reason."


class RefundReversedError(DomainError):
    """A refund that had succeeded failed later: the money came back."""

    slug = "refund-reversed"
    title = "A refund that had succeeded was reversed"
    fix = "Give the patient the money back by another way, and discard the notification with a note of it."


class PaymentNotYetReceivedError(ReferenceNotYetKnownError):
    """A refund was told before its payment, or a sum of refunds before the refund itself."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """`valid_until` is exclusive; None while no later price is set."""

    price_id: PriceId
    centre_id: UUID
    kind: PriceKind
    service_code: str
    amount_minor: int
    currency: str
    valid_from: date
    valid_until: date | None
    set_at: datetime


@dataclass(frozen=True, kw_only=True)
class Centre:
    """What issuing an invoice needs to know of a centre."""

    centre_id: UUID
    legal_entity_id: UUID
    currency: str
    time_zone: str


@dataclass(frozen=True, kw_only=True)
class ChargeItem:
    """A visit that took place and hasn't been invoiced because its price isn't known."""

    appointment_id: UUID
    patient_id: UUID
    centre_id: UUID
    department_id: UUID
    service_code: str
    rendered_on: date
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True)
class InvoiceLine:
    service_code: str
    quantity: int
    unit_amount_minor: int

    @property
    def amount_minor(self) -> int:
        return self.quantity * self.unit_amount_minor


@dataclass(frozen=True, kw_only=True)
class Invoice:
    """`paid_minor` is what was received less what was refunded; it may exceed the total."""

    invoice_id: InvoiceId
    version: int
    number: str
    status: InvoiceStatus
    patient_id: UUID
    appointment_id: UUID | None
    lab_order_id: UUID | None
    centre_id: UUID
    department_id: UUID
    legal_entity_id: UUID
    currency: str
    lines: tuple[InvoiceLine, ...]
    total_minor: int
    paid_minor: int
    issued_at: datetime
    due_on: date
    attention: Attention | None = None

    @property
    def outstanding_minor(self) -> int:
        return 0 if self.status is InvoiceStatus.CANCELLED else max(0, self.total_minor - self.paid_minor)

    @property
    def paid_in_full(self) -> bool:
        return self.paid_minor >= self.total_minor

    def moved_by(self, amount_minor: int) -> "Invoice":
        """Return the invoice after money came (positive) or went back (negative)."""
        paid = self.paid_minor + amount_minor
        overpaid = Attention.OVERPAID if paid > self.total_minor else None
        attention = overpaid if self.attention in (None, Attention.OVERPAID) else self.attention
        return replace(
            self,
            version=self.version + 1,
            paid_minor=paid,
            status=status_of(total_minor=self.total_minor, paid_minor=paid),
            attention=attention,
        )

    def noting(self, attention: Attention) -> "Invoice":
        return replace(self, version=self.version + 1, attention=attention)

    def amount_to_pay(self, wanted_minor: int | None) -> int:
        """Return what a payment asks for. Raises NothingToPayError, AmountTooHighError."""
        outstanding = self.outstanding_minor
        if outstanding == 0:
            raise NothingToPayError
        if wanted_minor is not None and wanted_minor > outstanding:
            raise AmountTooHighError(outstanding_minor=outstanding)
        return wanted_minor or outstanding


def status_of(*, total_minor: int, paid_minor: int) -> InvoiceStatus:
    if paid_minor >= total_minor:
        return InvoiceStatus.PAID
    return InvoiceStatus.PARTLY_PAID if paid_minor > 0 else InvoiceStatus.ISSUED


@dataclass(frozen=True, kw_only=True)
class Payment:
    """One attempt to bring money in. A declined card leaves it pending: the patient may try another one."""

    payment_id: PaymentId
    version: int
    status: PaymentStatus
    invoice_id: InvoiceId
    patient_id: UUID
    amount_minor: int
    currency: str
    provider: str
    requested_at: datetime
    provider_reference: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    refunded_minor: int = 0
    refunding_minor: int = 0
    failure_code: str | None = None
    received_at: datetime | None = None

    @property
    def was_received(self) -> bool:
        return self.received_at is not None

    @property
    def refundable_minor(self) -> int:
        return self.amount_minor - self.refunded_minor - self.refunding_minor if self.was_received else 0

    def known_to_provider(self, reference: str, client_secret: str | None) -> "Payment":
        return replace(
            self, version=self.version + 1, provider_reference=reference, client_secret=client_secret
        )

    def received(
        self, *, amount_minor: int, currency: str, reference: str, received_at: datetime
    ) -> "Payment":
        """Raises PaymentClosedError, PaymentMismatchError."""
        if self.status is not PaymentStatus.PENDING:
            raise PaymentClosedError
        if (amount_minor, currency) != (self.amount_minor, self.currency):
            raise PaymentMismatchError
        return replace(
            self,
            version=self.version + 1,
            status=PaymentStatus.SUCCEEDED,
            provider_reference=reference,
            received_at=received_at,
            failure_code=None,
        )

    def declined(self, failure_code: str | None) -> "Payment":
        return replace(self, version=self.version + 1, failure_code=failure_code)

    def closed(self, status: PaymentStatus, failure_code: str | None = None) -> "Payment":
        return replace(self, version=self.version + 1, status=status, failure_code=failure_code)

    def amount_to_refund(self, wanted_minor: int | None) -> int:
        """Return what a refund gives back. Raises NotRefundableError, AmountTooHighError."""
        refundable = self.refundable_minor
        if refundable == 0:
            raise NotRefundableError
        if wanted_minor is not None and wanted_minor > refundable:
            raise AmountTooHighError(refundable_minor=refundable)
        return wanted_minor or refundable

    def refunding(self, amount_minor: int) -> "Payment":
        """Set money aside for a refund under way; a negative amount releases it."""
        return replace(self, version=self.version + 1, refunding_minor=self.refunding_minor + amount_minor)

    def refunded(self, amount_minor: int, *, of_reserved: bool) -> "Payment":
        """`of_reserved`: the money was set aside when the refund was asked for here."""
        refunded = self.refunded_minor + amount_minor
        whole = refunded >= self.amount_minor
        return replace(
            self,
            version=self.version + 1,
            refunded_minor=refunded,
            refunding_minor=self.refunding_minor - (amount_minor if of_reserved else 0),
            status=PaymentStatus.REFUNDED if whole else PaymentStatus.PARTLY_REFUNDED,
        )


@dataclass(frozen=True, kw_only=True)
class Refund:
    """Money that goes back. It may have been started here or at the provider."""

    refund_id: RefundId
    payment_id: PaymentId
    status: RefundStatus
    amount_minor: int
    reason_code: str
    provider: str
    requested_at: datetime
    provider_reference: str | None = None
    failure_code: str | None = None
    refunded_at: datetime | None = None

    def succeeded(self, *, reference: str, refunded_at: datetime) -> "Refund":
        return replace(
            self,
            status=RefundStatus.SUCCEEDED,
            provider_reference=reference,
            refunded_at=refunded_at,
            failure_code=None,
        )

    def failed(self, failure_code: str) -> "Refund":
        return replace(self, status=RefundStatus.FAILED, failure_code=failure_code)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One side of a movement of money; the amounts of a movement's entries sum to zero."""

    account: str
    amount_minor: int


def receivable(invoice: Invoice) -> str:
    return f"receivable:{invoice.invoice_id}"


def invoice_entries(invoice: Invoice) -> list[Entry]:
    """The patient owes what the legal entity earned."""
    return _moved(to=receivable(invoice), of=f"revenue:{invoice.legal_entity_id}", by=invoice.total_minor)


def payment_entries(invoice: Invoice, payment: Payment) -> list[Entry]:
    return _moved(to=f"cash:{payment.provider}", of=receivable(invoice), by=payment.amount_minor)


def refund_entries(invoice: Invoice, refund: Refund) -> list[Entry]:
    """What goes back is owed again; an invoice is reduced by a correction of its own, not by a refund."""
    return _moved(to=receivable(invoice), of=f"cash:{refund.provider}", by=refund.amount_minor)


def _moved(*, to: str, of: str, by: int) -> list[Entry]:
    return [Entry(account=to, amount_minor=by), Entry(account=of, amount_minor=-by)] if by else []


def total_of(lines: Sequence[InvoiceLine]) -> int:
    return sum(line.amount_minor for line in lines)
