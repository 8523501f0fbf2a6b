"""The rules of money, pure: what a visit costs, what an invoice still asks for, how a payment moves.

Amounts are integers in minor units of an ISO 4217 currency. A price is valid on half-open ranges of dates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NewType
from uuid import UUID

from clinic_billing.errors import (
    AlreadyDecidedError,
    AmountTooHighError,
    ApprovedByOneselfError,
    NothingToPayError,
    NotRefundableError,
    PaymentClosedError,
    PaymentMismatchError,
)

InvoiceId = NewType("InvoiceId", UUID)
PaymentId = NewType("PaymentId", UUID)
PriceId = NewType("PriceId", UUID)
RefundId = NewType("RefundId", UUID)

PAYMENT_TERM = timedelta(days=7)
PATIENT = "patient"
"""Who pays where no insurer does."""
WITHOUT_SERVICE = "advance"
"""The code of a line that asks for money in advance of no service in particular."""


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
    WRITTEN_OFF = "written-off"  # balanced


class InvoiceKind(StrEnum):
    """An advance asks for money before there is a service; what was paid of it is set off against invoices."""

    SERVICES = "services"
    ADVANCE = "advance"


class PaymentStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARTLY_REFUNDED = "partly-refunded"
    REFUNDED = "refunded"


class RefundStatus(StrEnum):
    AWAITING_APPROVAL = "awaiting-approval"
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Attention(StrEnum):
    """Why a person should look at an invoice."""

    OVERPAID = "overpaid"
    ADVANCE_OVERDRAWN = "advance-overdrawn"
    VISIT_CANCELLED = "visit-cancelled"
    VISIT_MISSED = "visit-missed"
    LAB_ORDER_CANCELLED = "lab-order-cancelled"


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
    department_id: UUID | None = None
    payer: str = PATIENT
    list_id: UUID | None = None


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
    """`list_unit_amount_minor` is the price before a discount, where one was given."""

    service_code: str
    quantity: int
    unit_amount_minor: int
    list_unit_amount_minor: int | None = None
    discount_code: str | None = None

    @property
    def amount_minor(self) -> int:
        return self.quantity * self.unit_amount_minor


@dataclass(frozen=True, kw_only=True)
class Invoice:
    """`paid_minor` is what was received or set off, less what was refunded; it may exceed the total.

    Of an advance, `applied_minor` is what has been set off against invoices.
    """

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
    kind: InvoiceKind = InvoiceKind.SERVICES
    for_appointment_id: UUID | None = None
    applied_minor: int = 0
    written_off_minor: int = 0
    payer: str = PATIENT

    @property
    def outstanding_minor(self) -> int:
        left = self.total_minor - self.paid_minor - self.written_off_minor
        return 0 if self.status is InvoiceStatus.CANCELLED else max(0, left)

    @property
    def available_minor(self) -> int:
        """What of an advance has been paid and not been set off."""
        return max(0, self.paid_minor - self.applied_minor) if self.kind is InvoiceKind.ADVANCE else 0

    @property
    def paid_in_full(self) -> bool:
        return self.paid_minor >= self.total_minor

    def moved_by(self, amount_minor: int) -> "Invoice":
        """Return the invoice after money came (positive) or went back (negative)."""
        moved = replace(self, version=self.version + 1, paid_minor=self.paid_minor + amount_minor)
        return _consistent(moved)

    def applied(self, amount_minor: int) -> "Invoice":
        """Return the advance after some of it was set off."""
        return replace(self, version=self.version + 1, applied_minor=self.applied_minor + amount_minor)

    def written_off(self, amount_minor: int) -> "Invoice":
        given_up = self.written_off_minor + amount_minor
        return _consistent(replace(self, version=self.version + 1, written_off_minor=given_up))

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


def _consistent(moved: Invoice) -> Invoice:
    """Return an invoice with the status and the attention that follow from its sums."""
    status = status_of(
        total_minor=moved.total_minor,
        paid_minor=moved.paid_minor,
        written_off_minor=moved.written_off_minor,
    )
    return replace(moved, status=status, attention=attention_of(moved))


def status_of(*, total_minor: int, paid_minor: int, written_off_minor: int = 0) -> InvoiceStatus:
    if paid_minor >= total_minor:
        return InvoiceStatus.PAID
    if paid_minor + written_off_minor >= total_minor:
        return InvoiceStatus.WRITTEN_OFF
    return InvoiceStatus.PARTLY_PAID if paid_minor > 0 else InvoiceStatus.ISSUED


def attention_of(invoice: Invoice) -> Attention | None:
    """Return why a person should look at an invoice; what others have noted stays."""
    if invoice.attention not in (None, Attention.OVERPAID, Attention.ADVANCE_OVERDRAWN):
        return invoice.attention
    if invoice.paid_minor < invoice.applied_minor:
        return Attention.ADVANCE_OVERDRAWN
    overpaid = invoice.paid_minor > 0 and (
        invoice.paid_minor + invoice.written_off_minor > invoice.total_minor
    )
    return Attention.OVERPAID if overpaid else None


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
    confirmation_url: str | None = field(default=None, repr=False)
    refunded_minor: int = 0
    refunding_minor: int = 0
    failure_code: str | None = None
    received_at: datetime | None = None
    desk_id: UUID | None = None
    shift_id: UUID | None = None
    receipt_contact: str | None = field(default=None, repr=False)

    @property
    def was_received(self) -> bool:
        return self.received_at is not None

    @property
    def refundable_minor(self) -> int:
        return self.amount_minor - self.refunded_minor - self.refunding_minor if self.was_received else 0

    @property
    def is_payable(self) -> bool:
        """Whether the customer can have been told how to pay."""
        return self.client_secret is not None or self.confirmation_url is not None

    def known_to_provider(
        self, reference: str, *, client_secret: str | None, confirmation_url: str | None
    ) -> "Payment":
        return replace(
            self,
            version=self.version + 1,
            provider_reference=reference,
            client_secret=client_secret,
            confirmation_url=confirmation_url,
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

    def amount_to_refund(self, wanted_minor: int | None, *, most_minor: int | None = None) -> int:
        """Return what a refund gives back. Raises NotRefundableError, AmountTooHighError."""
        refundable = self.refundable_minor if most_minor is None else min(self.refundable_minor, most_minor)
        if refundable == 0:
            raise NotRefundableError
        if wanted_minor is not None and wanted_minor > refundable:
            raise AmountTooHighError(refundable_minor=refundable)
        return wanted_minor or refundable

    def refunding(self, amount_minor: int) -> "Payment":
        """Set money aside for a refund under way; a negative amount releases it.

        No event tells of that, so the version stays: subscribers hear of each version of a received payment.
        """
        return replace(self, refunding_minor=self.refunding_minor + amount_minor)

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
    requested_by: UUID | None = None
    decided_by: UUID | None = None
    shift_id: UUID | None = None

    def decided(self, *, by: UUID, approved: bool) -> "Refund":
        """Raises AlreadyDecidedError, ApprovedByOneselfError."""
        if self.status is not RefundStatus.AWAITING_APPROVAL:
            raise AlreadyDecidedError
        if by == self.requested_by:
            raise ApprovedByOneselfError
        status = RefundStatus.PENDING if approved else RefundStatus.FAILED
        return replace(self, status=status, decided_by=by, failure_code=None if approved else "not-approved")

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


def total_of(lines: Sequence[InvoiceLine]) -> int:
    return sum(line.amount_minor for line in lines)
