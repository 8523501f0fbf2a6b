"""HTTP in: price lists, discounts, who pays for whom, packages."""

from datetime import date
from uuid import UUID

from clinic_shared.routing import Caller, ClinicRouter, Idempotency, Tx

from clinic_billing.models import InvoiceResponse
from clinic_billing.prices import lists, packages
from clinic_billing.prices.models import (
    CoverageRequest,
    CoverageResponse,
    DiscountRequest,
    DiscountResponse,
    PackageRequest,
    PackageResponse,
    PackageSaleRequest,
    PriceListRequest,
    PriceListResponse,
)

router = ClinicRouter(tags=["prices"])


@router.post("/v1/prices/lists", permission="prices.manage", status_code=201, operation_id="publishPriceList")
async def publish_price_list(tx: Tx, caller: Caller, body: PriceListRequest) -> PriceListResponse:
    """Publish a version of a centre's or department's price list: all its prices begin on one day.

    What isn't in it stays as it was. A price that begins on that day already refuses all of it.
    """
    return PriceListResponse.of(await lists.publish(tx, body.command(), caller=caller))


@router.get("/v1/prices/lists", permission="prices.read", operation_id="listPriceLists")
async def list_price_lists(tx: Tx, centre_id: UUID | None = None) -> list[PriceListResponse]:
    """List the versions that were published."""
    return [PriceListResponse.of(row) for row in await lists.list_lists(tx, centre_id)]


@router.post("/v1/prices/discounts", permission="prices.manage", status_code=201, operation_id="setDiscount")
async def set_discount(tx: Tx, caller: Caller, body: DiscountRequest) -> DiscountResponse:
    """Give a discount on visits of some days. Of several that fit, an invoice gets the largest."""
    return DiscountResponse.of(await lists.set_discount(tx, body.command(), caller=caller))


@router.get("/v1/prices/discounts", permission="prices.manage", operation_id="listDiscounts")
async def list_discounts(tx: Tx, caller: Caller, centre_id: UUID, on: date) -> list[DiscountResponse]:
    """List a centre's discounts of one day."""
    caller.require_place(centre_id=centre_id)
    return [DiscountResponse.of(row) for row in await lists.list_discounts(tx, centre_id, on=on)]


@router.post(
    "/v1/prices/coverages", permission="invoices.manage", status_code=201, operation_id="coverPatient"
)
async def cover_patient(tx: Tx, body: CoverageRequest) -> CoverageResponse:
    """Let an insurer pay for a patient's visits of some days, where there is a price for that insurer."""
    coverage_id = await lists.cover(tx, **body.model_dump())
    return CoverageResponse(coverage_id=coverage_id, **body.model_dump())


@router.post("/v1/prices/packages", permission="prices.manage", status_code=201, operation_id="definePackage")
async def define_package(tx: Tx, caller: Caller, body: PackageRequest) -> PackageResponse:
    """Offer several services together, each at its price in the package."""
    made = await packages.define(
        tx,
        centre_id=body.centre_id,
        code=body.code,
        name=body.name,
        items=body.values(),
        caller=caller,
    )
    return PackageResponse.of(made)


@router.get("/v1/prices/packages", permission="prices.read", operation_id="listPackages")
async def list_packages(tx: Tx, centre_id: UUID | None = None) -> list[PackageResponse]:
    """List the packages that are offered."""
    return [PackageResponse.of(row) for row in await packages.list_offered(tx, centre_id)]


@router.delete(
    "/v1/prices/packages/{package_id}",
    permission="prices.manage",
    status_code=204,
    operation_id="withdrawPackage",
)
async def withdraw_package(tx: Tx, caller: Caller, package_id: UUID) -> None:
    """Offer a package no longer. What patients bought of it stays theirs."""
    await packages.withdraw(tx, package_id, caller=caller)


@router.post(
    "/v1/prices/packages/{package_id}/sales",
    permission="invoices.create",
    idempotency=Idempotency.REQUIRED,
    status_code=201,
    operation_id="sellPackage",
)
async def sell_package(tx: Tx, caller: Caller, package_id: UUID, body: PackageSaleRequest) -> InvoiceResponse:
    """Ask a patient to pay a package. Once the advance is paid, visits are taken from it by themselves."""
    advance = await packages.sell(
        tx, package_id, patient_id=body.patient_id, department_id=body.department_id, caller=caller
    )
    return InvoiceResponse.of(advance)
