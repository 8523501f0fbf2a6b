"""What clients send and get of price lists, discounts, coverages and packages."""

from datetime import date, datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Row

from clinic_billing.domain import PATIENT, PriceKind
from clinic_billing.models import Currency, Payer, PriceAmount, ReasonCode, Request, ServiceCode
from clinic_billing.prices.lists import ListedPrice, PublishList, SetDiscount
from clinic_billing.prices.packages import PackageItem

_CENTRE = "01900000-0000-7000-8000-ce0000000001"


class ListedPriceRequest(Request):
    kind: PriceKind = PriceKind.SERVICE
    service_code: ServiceCode
    amount_minor: PriceAmount


class PriceListRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "centre_id": _CENTRE,
                    "currency": "RUB",
                    "valid_from": "2026-07-01",
                    "prices": [{"service_code": "dermatology-consultation", "amount_minor": 270000}],
                }
            ]
        }
    )

    centre_id: UUID
    department_id: Annotated[UUID | None, Field(description="Only there; absent: in the whole centre")] = None
    payer: Payer = "patient"
    currency: Currency
    valid_from: date
    prices: Annotated[list[ListedPriceRequest], Field(min_length=1, max_length=500)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len({(one.kind, one.service_code) for one in self.prices}) < len(self.prices):
            raise ValueError("a service stands there twice")
        return self

    def command(self) -> PublishList:
        listed = [
            ListedPrice(kind=one.kind, service_code=one.service_code, amount_minor=one.amount_minor)
            for one in self.prices
        ]
        return PublishList(
            centre_id=self.centre_id,
            department_id=self.department_id,
            payer=self.payer,
            currency=self.currency,
            valid_from=self.valid_from,
            prices=listed,
        )


class PriceListResponse(BaseModel):
    """One published version. Its prices are at `/v1/prices`, where they end when a later one begins."""

    list_id: UUID
    centre_id: UUID
    department_id: UUID | None
    payer: str
    version: Annotated[int, Field(description="Counts for each centre, department and payer")]
    valid_from: date
    prices: Annotated[int, Field(description="How many")]
    published_at: datetime
    published_by: UUID

    @classmethod
    def of(cls, row: Row[Any]) -> "PriceListResponse":
        return cls(**row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it


class DiscountRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "centre_id": _CENTRE,
                    "code": "spring",
                    "basis_points": 1000,
                    "valid_from": "2026-03-01",
                    "valid_until": "2026-06-01",
                }
            ]
        }
    )

    centre_id: UUID
    code: ReasonCode
    service_code: Annotated[ServiceCode | None, Field(description="Absent: every service")] = None
    patient_id: Annotated[UUID | None, Field(description="Absent: every patient")] = None
    basis_points: Annotated[int, Field(strict=True, ge=1, le=10_000, description="1000 is 10 %")]
    valid_from: date
    valid_until: Annotated[date, Field(description="Exclusive")]

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.valid_until <= self.valid_from:
            raise ValueError("valid_until must be after valid_from")
        return self

    def command(self) -> SetDiscount:
        return SetDiscount(**self.model_dump())


class DiscountResponse(BaseModel):
    discount_id: UUID
    centre_id: UUID
    code: str
    service_code: str | None
    patient_id: UUID | None
    basis_points: int
    valid_from: date
    valid_until: date

    @classmethod
    def of(cls, row: Row[Any]) -> "DiscountResponse":
        values = {name: getattr(row, name) for name in cls.model_fields if not name.startswith("valid")}
        return cls(**values, valid_from=row.valid.lower, valid_until=row.valid.upper)


class CoverageRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "patient_id": "01900000-0000-7000-8000-a00000000001",
                    "payer": "fictitious-insurer",
                    "valid_from": "2026-01-01",
                }
            ]
        }
    )

    patient_id: UUID
    payer: Payer
    valid_from: date
    valid_until: Annotated[date | None, Field(description="Exclusive; absent: until further notice")] = None

    @model_validator(mode="after")
    def _is_of_an_insurer_and_lasts(self) -> Self:
        if self.payer == PATIENT:
            raise ValueError("without a coverage the patient pays")
        if self.valid_until is not None and self.valid_until <= self.valid_from:
            raise ValueError("valid_until must be after valid_from")
        return self


class CoverageResponse(BaseModel):
    coverage_id: UUID
    patient_id: UUID
    payer: str
    valid_from: date
    valid_until: date | None


class PackageItemModel(Request):
    service_code: ServiceCode
    quantity: Annotated[int, Field(strict=True, ge=1, le=1000)]
    unit_amount_minor: Annotated[int, Field(strict=True, ge=1, le=99_999_999)]


class PackageRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "centre_id": _CENTRE,
                    "code": "five-consultations",
                    "name": "Five consultations",
                    "items": [
                        {
                            "service_code": "dermatology-consultation",
                            "quantity": 5,
                            "unit_amount_minor": 200000,
                        }
                    ],
                }
            ]
        }
    )

    centre_id: UUID
    code: ReasonCode
    name: Annotated[str, Field(min_length=1, max_length=200)]
    items: Annotated[list[PackageItemModel], Field(min_length=1, max_length=50)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len({item.service_code for item in self.items}) < len(self.items):
            raise ValueError("a service stands there twice")
        return self

    def values(self) -> list[PackageItem]:
        return [PackageItem(**item.model_dump()) for item in self.items]


class PackageResponse(BaseModel):
    package_id: UUID
    centre_id: UUID
    code: str
    name: str
    items: list[PackageItemModel]
    amount_minor: int
    defined_at: datetime

    @classmethod
    def of(cls, row: Row[Any]) -> "PackageResponse":
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class PackageSaleRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "patient_id": "01900000-0000-7000-8000-a00000000001",
                    "department_id": "01900000-0000-7000-8000-de0000000001",
                }
            ]
        }
    )

    patient_id: UUID
    department_id: UUID
