"""HTTP in: what laboratories' codes and units stand for, what nobody has mapped, and panic ranges."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Self
from uuid import UUID

from clinic_shared.errors import NotFoundError, RuleError
from clinic_shared.routing import Caller, ClinicRouter, IfMatch, Page, PageQuery, Tx, page_of
from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Row

from clinic_lab_integration import code_map_store, code_maps, store
from clinic_lab_integration.meaning import MapKind, PanicRange, SourceCode, Target
from clinic_lab_integration.models import Name, Request

router = ClinicRouter(prefix="/v1/lab", tags=["lab-code-maps"])

Version = Annotated[
    int | None, Query(ge=0, le=2**31, description="An earlier version; else the one in force")
]
READ, MANAGE = "lab-partners.read", "lab-partners.manage"
Loinc = Annotated[str, Path(min_length=1, max_length=100, description="LOINC")]


class MappedCode(BaseModel):
    """`kind` test: `code` is LOINC, `unit` what values are shown in. `kind` unit: `code` is UCUM."""

    entry_id: UUID
    kind: MapKind
    source_system: str
    source_code: str
    code: str
    display: str | None
    unit: str | None
    since_version: int

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class CodeMapChange(Request):
    """`code` null: take the entry out."""

    kind: MapKind = MapKind.TEST
    source_system: str = Field(default="", max_length=200, description="as sent; empty: the lab's own codes")
    source_code: Name
    code: Name | None
    display: Annotated[str, Field(max_length=500)] | None = None
    unit: Annotated[str, Field(max_length=60)] | None = None

    @property
    def source(self) -> SourceCode:
        return SourceCode(self.kind, self.source_system, self.source_code)

    @property
    def target(self) -> Target | None:
        return None if self.code is None else Target(code=self.code, display=self.display, unit=self.unit)


class CodeMapRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "changes": [
                        {"source_code": "HGB", "code": "718-7", "display": "Hemoglobin", "unit": "g/L"},
                        {"kind": "unit", "source_code": "G/DL", "code": "g/dL"},
                    ]
                }
            ]
        }
    )

    changes: list[CodeMapChange] = Field(min_length=1, max_length=5000)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len({change.source for change in self.changes}) != len(self.changes):
            raise RuleError("a code is named twice")
        return self


class CodeMapResponse(BaseModel):
    partner_id: UUID
    version: int


class UnmappedCode(BaseModel):
    """A code or unit that results came with; `message_id` is the first of them."""

    unmapped_id: UUID
    partner_id: UUID
    kind: MapKind
    source_system: str
    source_code: str
    display: str | None
    message_id: UUID
    seen_at: datetime

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class PanicRangeRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"display": "Potassium", "unit": "mmol/L", "low": "2.5", "high": "6.5"}]
        }
    )

    display: Annotated[str, Field(max_length=500)] | None = None
    unit: Annotated[str, Field(max_length=60)] | None = Field(default=None, description="UCUM")
    low: Decimal | None = Field(default=None, allow_inf_nan=False, max_digits=20)
    high: Decimal | None = Field(default=None, allow_inf_nan=False, max_digits=20)

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low is None and self.high is None:
            raise RuleError("name at least one of the limits")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise RuleError("low must be below high")
        return self


class PanicRangeResponse(BaseModel):
    """Below `low` or above `high` somebody must answer for the result at once."""

    code: str
    version: int
    display: str | None
    unit: str | None
    low: Decimal | None
    high: Decimal | None

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


@router.get("/partners/{partner_id}/code-map", permission=READ, operation_id="getLabCodeMap")
async def get_code_map(
    tx: Tx, partner_id: UUID, page: PageQuery, version: Version = None
) -> Page[MappedCode]:
    """List what a laboratory's codes and units stand for, now or in an earlier version of its map."""
    if await store.find_partner(tx, partner_id) is None:
        raise NotFoundError
    held = version if version is not None else await code_map_store.current_version(tx, partner_id)
    found = await code_map_store.list_entries(tx, partner_id, held, after=page.after, limit=page.limit + 1)
    return page_of([MappedCode.of(row) for row in found], page, key=lambda e: e.entry_id)


@router.post("/partners/{partner_id}/code-map", permission=MANAGE, operation_id="changeLabCodeMap")
async def change_code_map(
    tx: Tx, caller: Caller, partner_id: UUID, body: CodeMapRequest, expected: IfMatch
) -> CodeMapResponse:
    """Make the next version of a laboratory's map. It holds for results that are filed from now on."""
    version = await code_maps.change_map(
        tx,
        partner_id,
        {change.source: change.target for change in body.changes},
        caller=caller,
        expected_version=expected,
    )
    return CodeMapResponse(partner_id=partner_id, version=version)


@router.get("/unmapped-codes", permission=READ, operation_id="listUnmappedLabCodes")
async def list_unmapped(tx: Tx, page: PageQuery, partner_id: UUID | None = None) -> Page[UnmappedCode]:
    """List codes and units that nobody has mapped. Their results are in the charts as the laboratory wrote them."""
    found = await code_map_store.list_unmapped(
        tx, partner_id=partner_id, after=page.after, limit=page.limit + 1
    )
    return page_of([UnmappedCode.of(row) for row in found], page, key=lambda u: u.unmapped_id)


@router.get("/panic-ranges", permission=READ, operation_id="listPanicRanges")
async def list_panic_ranges(tx: Tx) -> list[PanicRangeResponse]:
    """List from which values on a test's result is critical, whatever the laboratory's flag says."""
    return [PanicRangeResponse.of(row) for row in await code_map_store.list_panic_ranges(tx)]


@router.put("/panic-ranges/{code}", permission=MANAGE, operation_id="setPanicRange")
async def set_panic_range(
    tx: Tx, code: Loinc, body: PanicRangeRequest, expected: IfMatch
) -> PanicRangeResponse:
    """Set a test's panic range. It holds for results that are filed from now on."""
    panic = PanicRange(code, body.unit, body.low, body.high)
    version = await code_maps.set_panic_range(tx, panic, display=body.display, expected_version=expected)
    return PanicRangeResponse(**vars(panic), version=version, display=body.display)


@router.delete("/panic-ranges/{code}", permission=MANAGE, status_code=204, operation_id="deletePanicRange")
async def delete_panic_range(tx: Tx, code: Loinc) -> None:
    """Take a test's panic range away. The laboratory's own flags still count."""
    await code_maps.delete_panic_range(tx, code)
