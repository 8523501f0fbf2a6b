"""What clients send and get of cash desks; amounts are minor units."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row

from clinic_billing.models import Amount, ReceiptContact, Request

Counted = Annotated[int, Field(strict=True, ge=0, le=10**12, description="What is in the drawer")]


class DeskRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"centre_id": "01900000-0000-7000-8000-ce0000000001", "name": "Desk 1"}]
        }
    )

    centre_id: UUID
    name: Annotated[str, Field(min_length=1, max_length=100)]


class DeskResponse(BaseModel):
    desk_id: UUID
    centre_id: UUID
    legal_entity_id: UUID
    currency: str
    name: str
    opened_at: datetime

    @classmethod
    def of(cls, row: Row[Any]) -> "DeskResponse":
        return cls(**row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it


class CountRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"counted_minor": 500000}]})

    counted_minor: Counted


class ShiftResponse(BaseModel):
    """Until it is closed, nothing of its end is known."""

    shift_id: UUID
    desk_id: UUID
    opened_at: datetime
    opened_by: UUID
    counted_at_open_minor: int
    closed_at: datetime | None
    closed_by: UUID | None
    expected_minor: Annotated[int | None, Field(description="In the drawer by the books, at the end")]
    counted_minor: int | None
    terminal_minor: Annotated[int | None, Field(description="What the card terminal's report must say")]

    @classmethod
    def of(cls, row: Row[Any]) -> "ShiftResponse":
        return cls(**row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it


class CarryRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"direction": "in", "amount_minor": 500000}]})

    direction: Annotated[Literal["in", "out"], Field(description="From the safe, or to it")]
    amount_minor: Amount


class DrawerResponse(BaseModel):
    desk_id: UUID
    cash_minor: int


class DeskPaymentRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"invoice_id": "01900000-0000-7000-8000-1f0000000001", "tender": "cash"}]
        }
    )

    invoice_id: UUID
    tender: Literal["cash", "card-terminal"]
    amount_minor: Annotated[Amount | None, Field(description="Absent: all that is left to pay")] = None
    terminal_reference: Annotated[
        str | None, Field(min_length=1, max_length=100, description="The terminal's number of the operation")
    ] = None
    receipt_to: ReceiptContact | None = None
