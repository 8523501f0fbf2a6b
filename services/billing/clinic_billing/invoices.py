"""Invoices as such: making one, who may see it, reading it.

When one is made and what else happens then is `invoicing.py`'s and `advances.py`'s business.
"""

from collections.abc import Sequence
from uuid import UUID
from zoneinfo import ZoneInfo

from clinic_shared import merges
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import ConcealedError, NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from clinic_billing import store
from clinic_billing.domain import (
    PATIENT,
    PAYMENT_TERM,
    Centre,
    Invoice,
    InvoiceId,
    InvoiceKind,
    InvoiceLine,
    InvoiceStatus,
    status_of,
    total_of,
)
from clinic_billing.store import Within


async def make(
    tx: Transaction,
    centre: Centre,
    lines: Sequence[InvoiceLine],
    *,
    patient_id: UUID,
    department_id: UUID,
    appointment_id: UUID | None = None,
    lab_order_id: UUID | None = None,
    for_appointment_id: UUID | None = None,
    kind: InvoiceKind = InvoiceKind.SERVICES,
    payer: str = PATIENT,
) -> Invoice:
    today = tx.now.astimezone(ZoneInfo(centre.time_zone)).date()
    total = total_of(lines)
    invoice = Invoice(
        invoice_id=InvoiceId(uuid7()),
        version=1,
        number=await store.next_invoice_number(tx, centre.legal_entity_id, today.year),
        status=status_of(total_minor=total, paid_minor=0),
        patient_id=patient_id,
        appointment_id=appointment_id,
        lab_order_id=lab_order_id,
        centre_id=centre.centre_id,
        department_id=department_id,
        legal_entity_id=centre.legal_entity_id,
        currency=centre.currency,
        lines=tuple(lines),
        total_minor=total,
        paid_minor=0,
        issued_at=tx.now,
        due_on=today + PAYMENT_TERM,
        kind=kind,
        for_appointment_id=for_appointment_id,
        payer=payer,
    )
    await store.add_invoice(tx, invoice)
    audit_invoice(tx, Action.CREATE, invoice)
    return invoice


def within(caller: Principal) -> Within:
    """Return whose invoices and payments the caller may see."""
    if caller.kind == "patient":
        # A patient without a record sees nothing rather than everything.
        return Within(patient_ids=caller.own_records or {caller.subject})
    return Within(
        everywhere=caller.network, centre_ids=caller.centre_ids, department_ids=caller.department_ids
    )


def visible(invoice: Invoice | None, caller: Principal) -> Invoice:
    """Return the invoice if the caller may know of it. Raises NotFoundError, ConcealedError."""
    if invoice is None:
        raise NotFoundError
    caller.require_patient(invoice.patient_id)
    if caller.kind != "patient" and not caller.works_in(
        centre_id=invoice.centre_id, department_id=invoice.department_id
    ):
        raise ConcealedError
    return invoice


async def read_invoice(tx: Transaction, invoice_id: UUID, *, caller: Principal) -> Invoice:
    invoice = visible(await store.find_invoice(tx, invoice_id), caller)
    audit_invoice(tx, Action.READ, invoice)
    return invoice


async def list_invoices(
    tx: Transaction,
    *,
    caller: Principal,
    patient_id: UUID | None,
    appointment_id: UUID | None,
    status: InvoiceStatus | None,
    after: UUID | None,
    limit: int,
) -> list[Invoice]:
    """Return what the caller may see; of a patient, what stands under any of the person's records."""
    found = await store.list_invoices(
        tx,
        within=within(caller),
        person=await merges.records_of(tx, patient_id) if patient_id is not None else (),
        appointment_id=appointment_id,
        status=status,
        after=after,
        limit=limit,
    )
    for invoice in found:
        audit_invoice(tx, Action.READ, invoice)
    return found


def audit_invoice(tx: Transaction, action: Action, invoice: Invoice) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="Invoice",
            resource_id=invoice.invoice_id,
            patient_id=invoice.patient_id,
            details={"status": invoice.status.value},
        )
    )
