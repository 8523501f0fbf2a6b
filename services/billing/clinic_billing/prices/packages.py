"""Packages: several services at a price of their own, paid in advance and used one by one."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from clinic_shared import merges
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, NotFoundError, ReferenceNotYetKnownError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from sqlalchemy import Row, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_billing import advances, invoices, store
from clinic_billing.domain import Centre, ChargeItem, Invoice, InvoiceKind, InvoiceLine
from clinic_billing.prices.tables import entitlement, package


class PackageCodeTakenError(DomainError):
    """The centre offers a package of that code."""

    slug = "package-code-taken"
    title = "The centre offers a package of that code"
    fix = "Withdraw that one first, or take another code."


@dataclass(frozen=True, kw_only=True)
class PackageItem:
    service_code: str
    quantity: int
    unit_amount_minor: int


async def define(
    tx: Transaction,
    *,
    centre_id: UUID,
    code: str,
    name: str,
    items: Sequence[PackageItem],
    caller: Principal,
) -> Row[Any]:
    """Offer a package; it costs what its items cost in it. Raises PackageCodeTakenError."""
    caller.require_place(centre_id=centre_id)
    made = (
        upsert(package)
        .values(
            package_id=uuid7(),
            centre_id=centre_id,
            code=code,
            name=name,
            items=[asdict(item) for item in items],
            amount_minor=sum(item.quantity * item.unit_amount_minor for item in items),
            defined_at=tx.now,
        )
        .on_conflict_do_nothing()
        .returning(package)
    )
    row = await tx.fetch_one(made)
    if row is None:
        raise PackageCodeTakenError
    tx.audit(AuditEntry(action=Action.CREATE, resource_type="Package", resource_id=row.package_id))
    return row


async def withdraw(tx: Transaction, package_id: UUID, *, caller: Principal) -> None:
    """Offer a package no longer; what was bought stays."""
    caller.require_place(centre_id=(await _find(tx, package_id)).centre_id)
    mine = update(package).where(package.c.package_id == package_id, package.c.withdrawn_at.is_(None))
    await tx.execute(mine.values(withdrawn_at=tx.now))
    tx.audit(AuditEntry(action=Action.UPDATE, resource_type="Package", resource_id=package_id))


async def list_offered(tx: Transaction, centre_id: UUID | None) -> Sequence[Row[Any]]:
    offered = select(package).where(package.c.withdrawn_at.is_(None)).order_by(package.c.package_id)
    return await tx.fetch_all(
        offered if centre_id is None else offered.where(package.c.centre_id == centre_id)
    )


async def sell(
    tx: Transaction, package_id: UUID, *, patient_id: UUID, department_id: UUID, caller: Principal
) -> Invoice:
    """Ask a patient to pay a package in advance; once that is paid, visits are taken from it."""
    offered = await _find(tx, package_id)
    caller.require_place(centre_id=offered.centre_id, department_id=department_id)
    centre = await store.find_centre(tx, offered.centre_id)
    if centre is None or offered.withdrawn_at is not None:
        raise NotFoundError
    patient_id = await merges.survivor_of(tx, patient_id)
    if not await store.is_patient_known(tx, patient_id):
        raise ReferenceNotYetKnownError("The patient is not known here yet.", reference="patient_id")
    advance = await invoices.make(
        tx,
        centre,
        [InvoiceLine(**item) for item in offered.items],
        patient_id=patient_id,
        department_id=department_id,
        kind=InvoiceKind.ADVANCE,
    )
    rights = [
        {
            "advance_id": advance.invoice_id,
            "service_code": item["service_code"],
            "patient_id": patient_id,
            "legal_entity_id": centre.legal_entity_id,
            "unit_amount_minor": item["unit_amount_minor"],
            "bought": item["quantity"],
            "used": 0,
        }
        for item in offered.items
    ]
    await tx.execute(insert(entitlement), rights)
    return advance


async def find_bought(tx: Transaction, centre: Centre, visit: ChargeItem) -> Row[Any] | None:
    """Return the oldest package of the patient that holds the service, is paid for, and isn't used up."""
    rows = await tx.fetch_all(
        select(entitlement)
        .where(
            entitlement.c.patient_id.in_(await merges.records_of(tx, visit.patient_id)),
            entitlement.c.service_code == visit.service_code,
            entitlement.c.legal_entity_id == centre.legal_entity_id,
            entitlement.c.used < entitlement.c.bought,
        )
        .order_by(entitlement.c.advance_id)
        .with_for_update()
    )
    for row in rows:
        advance = await store.lock_invoice(tx, row.advance_id)
        if advance is not None and await advances.available(tx, advance) >= row.unit_amount_minor:
            return row
    return None


async def use(tx: Transaction, advance_id: UUID, service_code: str) -> None:
    mine = update(entitlement).where(
        entitlement.c.advance_id == advance_id, entitlement.c.service_code == service_code
    )
    await tx.execute(mine.values(used=entitlement.c.used + 1))


async def _find(tx: Transaction, package_id: UUID) -> Row[Any]:
    row = await tx.fetch_one(select(package).where(package.c.package_id == package_id))
    if row is None:
        raise NotFoundError
    return row
