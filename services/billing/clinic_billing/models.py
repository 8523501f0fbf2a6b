"""What clients of billing send and get. Requests refuse fields they don't know; amounts are minor units."""

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row

from clinic_billing import advances, pricing
from clinic_billing.domain import (
    Attention,
    ChargeItem,
    Invoice,
    InvoiceKind,
    InvoiceStatus,
    Payment,
    PaymentStatus,
    Price,
    PriceKind,
    Refund,
    RefundStatus,
)

ServiceCode = Annotated[str, Field(min_length=1, max_length=200, examples=["dermatology-consultation"])]
ReasonCode = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217", examples=["RUB"])]
ReceiptContact = Annotated[
    str,
    Field(
        max_length=64,
        pattern=r"^(\+[0-9]{7,15}|[^@\s]+@[^@\s]+)$",
        description="E-mail or phone that the fiscal receipt goes to; absent: the clinic's own",
    ),
]
# What Stripe takes in one payment.
Amount = Annotated[int, Field(strict=True, ge=1, le=99_999_999)]


PriceAmount = Annotated[int, Field(strict=True, ge=0, le=99_999_999, examples=[250000])]
Payer = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$",
        max_length=64,
        description="`patient`, or the insurer that pays this price",
    ),
]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PriceRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "service_code": "dermatology-consultation",
                    "centre_id": "01900000-0000-7000-8000-ce0000000001",
                    "amount_minor": 250000,
                    "currency": "RUB",
                    "valid_from": "2026-01-01",
                }
            ]
        }
    )

    centre_id: UUID
    kind: Annotated[
        PriceKind, Field(description="`service`: of the catalogue; `lab-test`: a test code of lab orders")
    ] = PriceKind.SERVICE
    service_code: ServiceCode
    amount_minor: PriceAmount
    currency: Currency
    valid_from: Annotated[date, Field(description="First day, in the centre's time zone")]
    department_id: Annotated[UUID | None, Field(description="Only there; absent: in the whole centre")] = None
    payer: Payer = "patient"

    def command(self) -> pricing.SetPrice:
        return pricing.SetPrice(**self.model_dump() | {"kind": self.kind})


class PriceResponse(BaseModel):
    price_id: UUID
    centre_id: UUID
    kind: PriceKind
    service_code: str
    amount_minor: int
    currency: str
    valid_from: date
    valid_until: Annotated[date | None, Field(description="Exclusive; null while no later price is set")]
    set_at: datetime
    department_id: UUID | None
    payer: str
    list_id: Annotated[UUID | None, Field(description="The version it was published with")]

    @classmethod
    def of(cls, price: Price) -> "PriceResponse":
        return cls(**vars(price))


class InvoiceLineResponse(BaseModel):
    service_code: str
    quantity: int
    unit_amount_minor: int
    amount_minor: int
    list_unit_amount_minor: Annotated[int | None, Field(description="Before the discount, if there was one")]
    discount_code: str | None


class InvoiceResponse(BaseModel):
    invoice_id: UUID
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
    lines: list[InvoiceLineResponse]
    total_minor: int
    paid_minor: Annotated[int, Field(description="Received less refunded")]
    written_off_minor: Annotated[int, Field(description="Given up")]
    outstanding_minor: int
    payer: Annotated[str, Field(description="`patient`, or the insurer that it goes to")]
    kind: Annotated[InvoiceKind, Field(description="An `advance` is a request that nobody owes anything by")]
    for_appointment_id: Annotated[UUID | None, Field(description="The visit that an advance is for")]
    applied_minor: Annotated[int, Field(description="What of an advance has been set off against invoices")]
    available_minor: Annotated[int, Field(description="What of an advance has been paid and not set off")]
    issued_at: datetime
    due_on: date
    attention: Annotated[Attention | None, Field(description="Why a person should look at it")]

    @classmethod
    def of(cls, invoice: Invoice) -> "InvoiceResponse":
        lines = [InvoiceLineResponse(**vars(line), amount_minor=line.amount_minor) for line in invoice.lines]
        return cls(
            **vars(invoice) | {"lines": lines},
            outstanding_minor=invoice.outstanding_minor,
            available_minor=invoice.available_minor,
        )


class WaitingVisitResponse(BaseModel):
    """A completed visit that is invoiced as soon as its price is set."""

    appointment_id: UUID
    patient_id: UUID
    centre_id: UUID
    department_id: UUID
    service_code: str
    rendered_on: date
    recorded_at: datetime

    @classmethod
    def of(cls, item: ChargeItem) -> "WaitingVisitResponse":
        return cls(**vars(item))


class PaymentRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"amount_minor": 100000}]})

    amount_minor: Annotated[Amount | None, Field(description="Absent: all that is left to pay")] = None
    provider: Annotated[
        Literal["stripe", "yookassa", "razorpay"] | None,
        Field(description="Absent: the one that the clinic prefers"),
    ] = None
    receipt_to: ReceiptContact | None = None


class PaymentResponse(BaseModel):
    payment_id: UUID
    version: int
    status: PaymentStatus
    invoice_id: UUID
    patient_id: UUID
    amount_minor: int
    currency: str
    provider: str
    provider_reference: Annotated[
        str | None, Field(description="Null until the provider has been asked, a moment after this one")
    ]
    client_secret: Annotated[
        str | None, Field(description="For the provider's payment form; shown while the payment is pending")
    ]
    confirmation_url: Annotated[
        str | None, Field(description="Where the customer pays, with a provider that has a page of its own")
    ]
    refunded_minor: int
    failure_code: Annotated[str | None, Field(description="Why the last attempt failed")]
    requested_at: datetime
    received_at: datetime | None

    @classmethod
    def of(cls, payment: Payment) -> "PaymentResponse":
        values = {name: getattr(payment, name) for name in cls.model_fields}
        if payment.status is not PaymentStatus.PENDING:
            values |= {"client_secret": None, "confirmation_url": None}
        return cls(**values)


class RefundRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason_code": "service-not-rendered"}]})

    amount_minor: Annotated[Amount | None, Field(description="Absent: all that is left")] = None
    reason_code: ReasonCode


class RefundResponse(BaseModel):
    refund_id: UUID
    payment_id: UUID
    status: RefundStatus
    amount_minor: int
    reason_code: str
    provider: str
    provider_reference: str | None
    failure_code: str | None
    requested_at: datetime
    refunded_at: datetime | None
    requested_by: UUID | None
    decided_by: Annotated[UUID | None, Field(description="The second person, where one was needed")]

    @classmethod
    def of(cls, refund: Refund) -> "RefundResponse":
        return cls(**{name: getattr(refund, name) for name in cls.model_fields})


class AdvanceRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "patient_id": "01900000-0000-7000-8000-a00000000001",
                    "centre_id": "01900000-0000-7000-8000-ce0000000001",
                    "department_id": "01900000-0000-7000-8000-de0000000001",
                    "amount_minor": 500000,
                }
            ]
        }
    )

    patient_id: UUID
    centre_id: UUID
    department_id: UUID
    amount_minor: Amount
    appointment_id: Annotated[
        UUID | None, Field(description="The visit that is paid for; its invoice is settled with it by itself")
    ] = None
    service_code: Annotated[ServiceCode | None, Field(description="What is paid for, where it is known")] = (
        None
    )

    def command(self) -> advances.AskForAdvance:
        return advances.AskForAdvance(**self.model_dump())


class SetOffRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"advance_id": "01900000-0000-7000-8000-1f0000000002"}]}
    )

    advance_id: UUID
    amount_minor: Annotated[Amount | None, Field(description="Absent: as much as both allow")] = None


class WriteOffRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason_code": "uncollectable"}]})

    amount_minor: Annotated[Amount | None, Field(description="Absent: all that is left to pay")] = None
    reason_code: ReasonCode


class WriteOffResponse(BaseModel):
    write_off_id: UUID
    invoice_id: UUID
    status: Literal["awaiting-approval", "booked", "turned-down"]
    amount_minor: int
    reason_code: str
    requested_at: datetime
    requested_by: UUID
    decided_by: UUID | None
    decided_at: datetime | None

    @classmethod
    def of(cls, row: Row[Any]) -> "WriteOffResponse":
        return cls(**row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it


class DecisionRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"approved": True}]})

    approved: bool


DispositionName = Literal[
    "applied", "parked", "rejected", "superseded", "duplicate", "discarded", "in-flight"
]


class NotificationResponse(BaseModel):
    """A notification of a payment provider and what became of it, without its content."""

    notification_id: UUID
    provider: str
    received_at: datetime
    via: Annotated[Literal["database", "queue"], Field(description="Where it became durable first")]
    disposition: DispositionName
    reason: str | None
    error: Annotated[str | None, Field(description="Why it is parked or will be tried again")]
    event_id: str | None
    event_type: str | None
    payment_id: UUID | None

    @classmethod
    def of(cls, row: Row[Any]) -> "NotificationResponse":
        return cls(**row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it


class NotificationDiscardRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Test payment of the provider"}]})

    reason: Annotated[str, Field(min_length=3, max_length=500)]
