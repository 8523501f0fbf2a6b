"""What a visit costs, and whom: put together from packages, payers, prices and discounts."""

from dataclasses import dataclass
from datetime import date
from uuid import UUID

from clinic_shared import merges
from clinic_shared.database import Transaction
from sqlalchemy import func, or_, select

from clinic_billing import store
from clinic_billing.domain import PATIENT, Centre, ChargeItem, InvoiceLine, Price, PriceKind
from clinic_billing.prices import packages
from clinic_billing.prices.tables import coverage, discount

_WHOLE = 10_000


@dataclass(frozen=True, kw_only=True)
class Quote:
    """`package` is the advance that the visit was bought with, where it was."""

    line: InvoiceLine
    payer: str = PATIENT
    package: UUID | None = None


async def quote(tx: Transaction, centre: Centre, visit: ChargeItem) -> Quote | None:
    """Return None while the visit has no price."""
    bought = await packages.find_bought(tx, centre, visit)
    if bought is not None:
        line = InvoiceLine(
            service_code=visit.service_code, quantity=1, unit_amount_minor=bought.unit_amount_minor
        )
        return Quote(line=line, package=bought.advance_id)
    price = await store.find_price(
        tx,
        centre=centre,
        kind=PriceKind.SERVICE,
        service_code=visit.service_code,
        on=visit.rendered_on,
        department_id=visit.department_id,
        payer=await payer_of(tx, visit.patient_id, on=visit.rendered_on),
    )
    if price is None:
        return None
    if price.payer != PATIENT:
        # What was agreed with an insurer is what it pays.
        return Quote(line=_line(price), payer=price.payer)
    return Quote(line=await _discounted(tx, price, visit))


async def payer_of(tx: Transaction, patient_id: UUID, *, on: date) -> str:
    """Return who covers a person on a day: by the record that was asked about before their others."""
    records = await merges.records_of(tx, patient_id)
    row = await tx.fetch_one(
        select(coverage.c.payer)
        .where(coverage.c.patient_id.in_(records), coverage.c.valid.contains(on))
        .order_by(coverage.c.patient_id != patient_id, coverage.c.patient_id)
        .limit(1)
    )
    return PATIENT if row is None else str(row.payer)


def reduced(amount_minor: int, basis_points: int) -> int:
    """Return an amount less so many hundredths of a percent, rounded in the patient's favour."""
    return amount_minor * (_WHOLE - basis_points) // _WHOLE


def _line(price: Price) -> InvoiceLine:
    return InvoiceLine(service_code=price.service_code, quantity=1, unit_amount_minor=price.amount_minor)


async def _discounted(tx: Transaction, price: Price, visit: ChargeItem) -> InvoiceLine:
    """Apply the largest discount that fits; they don't add up."""
    records = await merges.records_of(tx, visit.patient_id)
    row = await tx.fetch_one(
        select(discount.c.code, discount.c.basis_points)
        .where(
            discount.c.centre_id == visit.centre_id,
            or_(discount.c.service_code.is_(None), discount.c.service_code == visit.service_code),
            or_(discount.c.patient_id.is_(None), discount.c.patient_id.in_(records)),
            discount.c.valid.contains(visit.rendered_on),
        )
        .order_by(discount.c.basis_points.desc(), func.coalesce(discount.c.code, ""))
        .limit(1)
    )
    if row is None:
        return _line(price)
    return InvoiceLine(
        service_code=price.service_code,
        quantity=1,
        unit_amount_minor=reduced(price.amount_minor, row.basis_points),
        list_unit_amount_minor=price.amount_minor,
        discount_code=row.code,
    )
