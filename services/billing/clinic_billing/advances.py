"""Money before there is a service: a prepaid visit, a deposit. It is owed to the patient until it is set off.

An advance is an invoice of kind `advance`: a request that nobody owes anything by, paid and refunded like any
other. When the visit that it is for has been invoiced, what was paid of it settles that invoice.
"""

from dataclasses import dataclass, replace
from uuid import UUID

from clinic_shared import merges
from clinic_shared.audit import Action
from clinic_shared.database import Transaction
from clinic_shared.errors import ReferenceNotYetKnownError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from sqlalchemy import insert

from clinic_billing import invoices, ledger, payment_store, store
from clinic_billing.accounts import set_off_entries
from clinic_billing.domain import PATIENT, WITHOUT_SERVICE, Invoice, InvoiceKind, InvoiceLine
from clinic_billing.errors import AmountTooHighError, NotAnAdvanceError, NothingAvailableError
from clinic_billing.events import advance_applied
from clinic_billing.tables import advance_application


@dataclass(frozen=True, kw_only=True)
class AskForAdvance:
    """`appointment_id` and `service_code`: what is paid for in advance, where that is known."""

    patient_id: UUID
    centre_id: UUID
    department_id: UUID
    amount_minor: int
    appointment_id: UUID | None
    service_code: str | None


async def ask_for(tx: Transaction, asked: AskForAdvance, *, caller: Principal) -> Invoice:
    """Make a request for money in advance; it is paid like an invoice."""
    caller.require_place(centre_id=asked.centre_id, department_id=asked.department_id)
    centre = await store.find_centre(tx, asked.centre_id)
    if centre is None:
        raise ReferenceNotYetKnownError("The centre is not known here yet.", reference="centre_id")
    asked = replace(asked, patient_id=await merges.survivor_of(tx, asked.patient_id))
    if not await store.is_patient_known(tx, asked.patient_id):
        raise ReferenceNotYetKnownError("The patient is not known here yet.", reference="patient_id")
    line = InvoiceLine(
        service_code=asked.service_code or WITHOUT_SERVICE, quantity=1, unit_amount_minor=asked.amount_minor
    )
    return await invoices.make(
        tx,
        centre,
        [line],
        patient_id=asked.patient_id,
        department_id=asked.department_id,
        for_appointment_id=asked.appointment_id,
        kind=InvoiceKind.ADVANCE,
    )


async def available(tx: Transaction, advance: Invoice) -> int:
    """Return what of an advance can be set off or refunded: paid, not used, and not on its way back."""
    return max(0, advance.available_minor - await payment_store.sum_refunding(tx, advance.invoice_id))


async def set_off_for_visit(tx: Transaction, invoice: Invoice, *, package: UUID | None = None) -> Invoice:
    """Settle the invoice of a visit with what was paid in advance of it; returns it as it is then.

    `package` is the advance that the visit was bought with.
    """
    if invoice.appointment_id is None:
        return invoice
    paid_before = await store.lock_advances_for(tx, invoice.appointment_id, or_this=package)
    for advance in paid_before:
        amount = min(invoice.outstanding_minor, await available(tx, advance))
        if amount and await _belongs(tx, advance, invoice):
            invoice = await _set_off(tx, advance, invoice, amount)
    return invoice


async def set_off(
    tx: Transaction, invoice_id: UUID, advance_id: UUID, *, amount_minor: int | None, caller: Principal
) -> Invoice:
    """Settle an invoice, all that is left of it or a part, with an advance."""
    first, second = sorted((invoice_id, advance_id))
    locked = {one: await store.lock_invoice(tx, one) for one in (first, second)}
    invoice = invoices.visible(locked[invoice_id], caller)
    advance = invoices.visible(locked[advance_id], caller)
    if not await _belongs(tx, advance, invoice):
        raise NotAnAdvanceError
    wanted = invoice.amount_to_pay(amount_minor)
    left = await available(tx, advance)
    if left == 0:
        raise NothingAvailableError
    if amount_minor is not None and amount_minor > left:
        raise AmountTooHighError(available_minor=left)
    return await _set_off(tx, advance, invoice, min(wanted, left))


async def _belongs(tx: Transaction, advance: Invoice, invoice: Invoice) -> bool:
    fits = (
        advance.kind is InvoiceKind.ADVANCE
        and invoice.kind is InvoiceKind.SERVICES
        and invoice.payer == PATIENT
        and (advance.legal_entity_id, advance.currency) == (invoice.legal_entity_id, invoice.currency)
    )
    return fits and await merges.are_one_person(tx, advance.patient_id, invoice.patient_id)


async def _set_off(tx: Transaction, advance: Invoice, invoice: Invoice, amount_minor: int) -> Invoice:
    application_id, settled = uuid7(), invoice.moved_by(amount_minor)
    await store.save_invoice(tx, advance.applied(amount_minor))
    await store.save_invoice(tx, settled)
    await tx.execute(
        insert(advance_application).values(
            application_id=application_id,
            advance_id=advance.invoice_id,
            invoice_id=invoice.invoice_id,
            amount_minor=amount_minor,
            applied_at=tx.now,
        )
    )
    await ledger.book(
        tx,
        "advance-applied",
        set_off_entries(advance, settled, amount_minor),
        source_id=application_id,
        legal_entity_id=invoice.legal_entity_id,
        currency=invoice.currency,
    )
    tx.emit(advance_applied(application_id, advance, settled, amount_minor, tx.now))
    invoices.audit_invoice(tx, Action.UPDATE, settled)
    return settled
