"""The queries of prices, visits and invoices, each on the open transaction it is given.

Locks are taken in one order: the centre's prices, then the invoice, then the payment, then the refund.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, cast
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.encryption.fields import SEAL_COLUMNS
from sqlalchemy import ColumnElement, Row, Select, Table, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_billing.domain import (
    PATIENT,
    Attention,
    Centre,
    ChargeItem,
    Invoice,
    InvoiceKind,
    InvoiceLine,
    InvoiceStatus,
    Price,
    PriceKind,
)
from clinic_billing.tables import (
    centre,
    charge_item,
    invoice,
    invoice_line,
    invoice_number,
    patient,
    price,
    service,
)


@dataclass(frozen=True, kw_only=True)
class Within:
    """Whose invoices a caller may see: a patient's own, staff's those of their places."""

    patient_ids: Collection[UUID] = ()
    everywhere: bool = False
    centre_ids: Collection[UUID] = ()
    department_ids: Collection[UUID] = ()

    def condition(self) -> ColumnElement[bool] | None:
        if self.patient_ids:
            return invoice.c.patient_id.in_(self.patient_ids)
        if self.everywhere:
            return None
        return or_(invoice.c.centre_id.in_(self.centre_ids), invoice.c.department_id.in_(self.department_ids))


# -- centres and prices


async def find_centre(tx: Transaction, centre_id: UUID) -> Centre | None:
    row = await tx.fetch_one(
        select(centre.c.centre_id, centre.c.legal_entity_id, centre.c.currency, centre.c.time_zone).where(
            centre.c.centre_id == centre_id
        )
    )
    return None if row is None else Centre(**row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it


async def is_patient_known(tx: Transaction, patient_id: UUID) -> bool:
    found = select(patient.c.patient_id).where(patient.c.patient_id == patient_id)
    return await tx.fetch_one(found) is not None


async def is_service_known(tx: Transaction, code: str) -> bool:
    return bool(await tx.fetch_all(select(service.c.service_id).where(service.c.code == code).limit(1)))


async def hold_prices(tx: Transaction, centre_id: UUID, *, exclusive: bool) -> None:
    """Keep a centre's prices as they are until this transaction ends; exclusively, to change them.

    Who records a visit holds them shared, who sets a price exclusively. So either the visit finds the
    price or the price finds the visit.
    """
    lock = func.pg_advisory_xact_lock if exclusive else func.pg_advisory_xact_lock_shared
    await tx.execute(select(lock(func.hashtextextended(f"prices:{centre_id}", 0))))


async def find_price(
    tx: Transaction,
    *,
    centre: Centre,
    kind: PriceKind,
    service_code: str,
    on: date,
    department_id: UUID | None = None,
    payer: str = PATIENT,
) -> Price | None:
    """Return the price valid on a date, in the currency the centre charges in.

    The payer's comes before what patients pay, and the department's before the centre's.
    """
    row = await tx.fetch_one(
        select(price)
        .where(
            price.c.centre_id == centre.centre_id,
            or_(price.c.department_id.is_(None), price.c.department_id == department_id),
            price.c.payer.in_({payer, PATIENT}),
            price.c.kind == kind.value,
            price.c.service_code == service_code,
            price.c.currency == centre.currency,
            price.c.valid.contains(on),
        )
        .order_by((price.c.payer == PATIENT), price.c.department_id.is_(None))
        .limit(1)
    )
    return None if row is None else _price(row)


async def list_prices(
    tx: Transaction,
    *,
    centre_id: UUID | None,
    service_code: str | None,
    on: date | None,
    after: UUID | None,
    limit: int,
) -> list[Price]:
    statement = select(price).order_by(price.c.price_id).limit(limit)
    if centre_id is not None:
        statement = statement.where(price.c.centre_id == centre_id)
    if service_code is not None:
        statement = statement.where(price.c.service_code == service_code)
    if on is not None:
        statement = statement.where(price.c.valid.contains(on))
    if after is not None:
        statement = statement.where(price.c.price_id > after)
    return [_price(row) for row in await tx.fetch_all(statement)]


async def list_prices_of(
    tx: Transaction,
    centre_id: UUID,
    kind: PriceKind,
    service_code: str,
    *,
    department_id: UUID | None,
    payer: str,
) -> list[Price]:
    """Return all prices that one thing has had and will have for somebody, in order of time."""
    rows = await tx.fetch_all(
        select(price)
        .where(
            price.c.centre_id == centre_id,
            price.c.department_id.is_not_distinct_from(department_id),
            price.c.payer == payer,
            price.c.kind == kind.value,
            price.c.service_code == service_code,
        )
        .order_by(func.lower(price.c.valid))
    )
    return [_price(row) for row in rows]


async def add_price(tx: Transaction, new: Price) -> None:
    await tx.execute(
        insert(price).values(
            price_id=new.price_id,
            centre_id=new.centre_id,
            kind=new.kind.value,
            service_code=new.service_code,
            amount_minor=new.amount_minor,
            currency=new.currency,
            valid=Range(new.valid_from, new.valid_until, bounds="[)"),
            set_at=new.set_at,
            department_id=new.department_id,
            payer=new.payer,
            list_id=new.list_id,
        )
    )


async def end_price(tx: Transaction, ended: Price, *, on: date) -> None:
    valid = Range(ended.valid_from, on, bounds="[)")
    await tx.execute(update(price).where(price.c.price_id == ended.price_id).values(valid=valid))


# -- visits to be invoiced


async def add_charge_item(tx: Transaction, new: ChargeItem) -> bool:
    """Return False when the visit is known already."""
    values = {column.name: getattr(new, column.name, "billable") for column in charge_item.columns}
    # RETURNING, since SQLAlchemy doesn't promise a row count for an INSERT.
    added = upsert(charge_item).values(values).on_conflict_do_nothing()
    return await tx.fetch_one(added.returning(charge_item.c.appointment_id)) is not None


async def set_charge_status(tx: Transaction, appointment_id: UUID, status: str) -> bool:
    """Move a visit on from billable; return False when it isn't billable."""
    moved = await tx.execute(
        update(charge_item)
        .where(charge_item.c.appointment_id == appointment_id, charge_item.c.status == "billable")
        .values(status=status)
    )
    return moved.rowcount == 1


async def list_billable(
    tx: Transaction, *, within: Within, after: UUID | None, limit: int
) -> list[ChargeItem]:
    statement = _billable().limit(limit)
    if not within.everywhere:
        statement = statement.where(
            or_(
                charge_item.c.centre_id.in_(within.centre_ids),
                charge_item.c.department_id.in_(within.department_ids),
            )
        )
    if after is not None:
        statement = statement.where(charge_item.c.appointment_id > after)
    return [_charge_item(row) for row in await tx.fetch_all(statement)]


async def lock_billable(
    tx: Transaction, centre_id: UUID, *, after: UUID | None, limit: int
) -> list[ChargeItem]:
    """Lock a centre's next visits without an invoice, in the order of ids."""
    statement = _billable().where(charge_item.c.centre_id == centre_id).limit(limit).with_for_update()
    if after is not None:
        statement = statement.where(charge_item.c.appointment_id > after)
    return [_charge_item(row) for row in await tx.fetch_all(statement)]


def _billable() -> Select[Any]:
    billable = select(charge_item).where(charge_item.c.status == "billable")
    return billable.order_by(charge_item.c.appointment_id)


# -- invoices


async def next_invoice_number(tx: Transaction, legal_entity_id: UUID, year: int) -> str:
    """Take the legal entity's next number of the year; others wait for it until the commit."""
    first = upsert(invoice_number).values(legal_entity_id=legal_entity_id, year=year, last=1)
    row = await tx.fetch_one(
        first.on_conflict_do_update(
            index_elements=["legal_entity_id", "year"], set_={"last": invoice_number.c.last + 1}
        ).returning(invoice_number.c.last)
    )
    return f"{year}-{cast('Row[Any]', row).last:06d}"


async def add_invoice(tx: Transaction, new: Invoice) -> None:
    await tx.execute(insert(invoice).values(column_values(invoice, new)))
    await tx.execute(
        insert(invoice_line),
        [
            {
                "invoice_id": new.invoice_id,
                "position": position,
                "service_code": line.service_code,
                "quantity": line.quantity,
                "unit_amount_minor": line.unit_amount_minor,
                "amount_minor": line.amount_minor,
                "list_unit_amount_minor": line.list_unit_amount_minor,
                "discount_code": line.discount_code,
            }
            for position, line in enumerate(new.lines, start=1)
        ],
    )


async def save_invoice(tx: Transaction, changed: Invoice) -> None:
    mine = invoice.c.invoice_id == changed.invoice_id
    await tx.execute(update(invoice).where(mine).values(column_values(invoice, changed)))


async def find_invoice(tx: Transaction, invoice_id: UUID) -> Invoice | None:
    return await _one_invoice(tx, select(invoice).where(invoice.c.invoice_id == invoice_id))


async def lock_invoice(tx: Transaction, invoice_id: UUID) -> Invoice | None:
    mine = select(invoice).where(invoice.c.invoice_id == invoice_id)
    return await _one_invoice(tx, mine.with_for_update())


async def lock_invoice_of_visit(tx: Transaction, appointment_id: UUID) -> Invoice | None:
    mine = select(invoice).where(invoice.c.appointment_id == appointment_id)
    return await _one_invoice(tx, mine.with_for_update())


async def lock_advances_for(tx: Transaction, appointment_id: UUID, *, or_this: UUID | None) -> list[Invoice]:
    """Lock what was asked for in advance of a visit, in the order of ids."""
    mine = select(invoice).where(
        or_(invoice.c.for_appointment_id == appointment_id, invoice.c.invoice_id == or_this)
    )
    rows = await tx.fetch_all(mine.order_by(invoice.c.invoice_id).with_for_update())
    lines = await _lines(tx, [row.invoice_id for row in rows])
    return [_invoice(row, lines.get(row.invoice_id, ())) for row in rows]


async def lock_invoice_of_lab_order(tx: Transaction, lab_order_id: UUID) -> Invoice | None:
    mine = select(invoice).where(invoice.c.lab_order_id == lab_order_id)
    return await _one_invoice(tx, mine.with_for_update())


async def list_invoices(
    tx: Transaction,
    *,
    within: Within,
    person: Collection[UUID],
    appointment_id: UUID | None,
    status: InvoiceStatus | None,
    after: UUID | None,
    limit: int,
) -> list[Invoice]:
    statement = select(invoice).order_by(invoice.c.invoice_id).limit(limit)
    for condition in (
        within.condition(),
        invoice.c.patient_id.in_(person) if person else None,
        None if appointment_id is None else invoice.c.appointment_id == appointment_id,
        None if status is None else invoice.c.status == status.value,
        None if after is None else invoice.c.invoice_id > after,
    ):
        if condition is not None:
            statement = statement.where(condition)
    rows = await tx.fetch_all(statement)
    lines = await _lines(tx, [row.invoice_id for row in rows])
    return [_invoice(row, lines.get(row.invoice_id, ())) for row in rows]


async def _one_invoice(tx: Transaction, statement: Select[Any]) -> Invoice | None:
    row = await tx.fetch_one(statement)
    if row is None:
        return None
    return _invoice(row, (await _lines(tx, [row.invoice_id])).get(row.invoice_id, ()))


async def _lines(tx: Transaction, invoice_ids: Sequence[UUID]) -> dict[UUID, tuple[InvoiceLine, ...]]:
    if not invoice_ids:
        return {}
    rows = await tx.fetch_all(
        select(invoice_line)
        .where(invoice_line.c.invoice_id.in_(invoice_ids))
        .order_by(invoice_line.c.invoice_id, invoice_line.c.position)
    )
    found: dict[UUID, tuple[InvoiceLine, ...]] = {}
    for row in rows:
        line = InvoiceLine(
            service_code=row.service_code,
            quantity=row.quantity,
            unit_amount_minor=row.unit_amount_minor,
            list_unit_amount_minor=row.list_unit_amount_minor,
            discount_code=row.discount_code,
        )
        found[row.invoice_id] = (*found.get(row.invoice_id, ()), line)
    return found


# -- rows to values and back


def _price(row: Row[Any]) -> Price:
    return Price(
        price_id=row.price_id,
        centre_id=row.centre_id,
        kind=PriceKind(row.kind),
        service_code=row.service_code,
        amount_minor=row.amount_minor,
        currency=row.currency,
        valid_from=row.valid.lower,
        valid_until=row.valid.upper,
        set_at=row.set_at,
        department_id=row.department_id,
        payer=row.payer,
        list_id=row.list_id,
    )


def _charge_item(row: Row[Any]) -> ChargeItem:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    del values["status"]
    return ChargeItem(**values)


def _invoice(row: Row[Any], lines: tuple[InvoiceLine, ...]) -> Invoice:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    attention = values.pop("attention")
    return Invoice(
        **values | {"status": InvoiceStatus(row.status), "kind": InvoiceKind(row.kind)},
        attention=None if attention is None else Attention(attention),
        lines=lines,
    )


def column_values(table: Table, value: object) -> dict[str, Any]:
    """Return an aggregate's columns, without those of its seal; enumerations are strings as they are."""
    return {name: getattr(value, name) for name in table.columns.keys() if name not in SEAL_COLUMNS}  # noqa: SIM118  # it iterates over columns
