"""What clients send and get of receipts."""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from clinic_billing.models import Request
from clinic_billing.receipts.document import Correction, Method, Operation
from clinic_billing.receipts.receipt import Receipt, ReceiptStatus
from clinic_billing.receipts.registrar import Company


class ReceiptItemResponse(BaseModel):
    name: str
    quantity: int
    price_minor: int
    method: Annotated[Method, Field(description="Tag 1214 of FFD 1.2")]


class ReceiptResponse(BaseModel):
    """A receipt that is owed for a movement of money, and what the registrar has made of it."""

    receipt_id: Annotated[UUID, Field(description="The id of the movement that it is for")]
    version: int
    status: ReceiptStatus
    operation: Operation | None
    amount_minor: int | None
    currency: str | None
    items: list[ReceiptItemResponse]
    payments: Annotated[dict[str, int], Field(description="By `electronic`, `cash`, `prepaid`, `credit`")]
    invoice_id: UUID | None
    payment_id: UUID | None
    legal_entity_id: UUID
    owed_at: datetime
    overdue_at: Annotated[datetime | None, Field(description="When it was noted to be late")]
    submission: Annotated[int, Field(description="Counts up when the registrar failed the one before")]
    error: Annotated[str | None, Field(description="Why it isn't registered; the registrar's code")]
    fiscal_storage: str | None
    shift_number: int | None
    receipt_number: int | None
    document_number: str | None
    document_sign: str | None
    registered_at: datetime | None

    @classmethod
    def of(cls, receipt: Receipt) -> "ReceiptResponse":
        document, registered = receipt.document, receipt.registered
        fiscal = ("fiscal_storage", "shift_number", "receipt_number", "document_number", "document_sign")
        return cls(
            receipt_id=receipt.receipt_id,
            version=receipt.version,
            status=receipt.status,
            operation=document.operation if document else None,
            amount_minor=document.total_minor if document else None,
            currency=document.currency if document else None,
            items=[ReceiptItemResponse(**vars(item)) for item in document.items] if document else [],
            payments={t.value: amount for t, amount in document.payments.items()} if document else {},
            invoice_id=receipt.invoice_id,
            payment_id=receipt.payment_id,
            legal_entity_id=receipt.legal_entity_id,
            owed_at=receipt.owed_at,
            overdue_at=receipt.overdue_at,
            submission=receipt.submission,
            error=receipt.last_error,
            registered_at=registered.registered_at if registered else None,
            **{name: getattr(registered, name, None) for name in fiscal},
        )


class ReceiptCorrectionRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"base_on": "2026-03-02", "base_number": "12"}]}
    )

    base_on: Annotated[date, Field(description="When the money moved without a receipt")]
    base_number: Annotated[
        str, Field(min_length=1, max_length=32, description="Of the order to correct; 0 without one")
    ] = "0"

    def value(self) -> Correction:
        return Correction(base_on=self.base_on.isoformat(), base_number=self.base_number)


class FiscalProfileRequest(Request):
    """As the tax office and the registrar know the legal entity."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "inn": "0000000000",
                    "taxation": "osn",
                    "email": "receipts@clinic.example",
                    "payment_address": "https://clinic.example",
                    "group_code": "fictitious-group",
                }
            ]
        }
    )

    inn: Annotated[str, Field(pattern=r"^[0-9]{10}([0-9]{2})?$")]
    taxation: Literal["osn", "usn_income", "usn_income_outcome", "esn", "patent"]
    email: Annotated[str, Field(max_length=64, pattern=r"^[^@\s]+@[^@\s]+$")]
    payment_address: Annotated[str, Field(min_length=1, max_length=256)]
    group_code: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Of its registers at ATOL")
    ]

    def company(self) -> Company:
        return Company(**self.model_dump())


class FiscalProfileResponse(BaseModel):
    legal_entity_id: UUID
    inn: str
    taxation: str
    email: str
    payment_address: str
    group_code: str
