"""From what was done to what is owed: one invoice for each completed visit, and for priced lab orders.

A visit whose price or centre isn't known yet stays billable and is invoiced when it becomes known: it
is neither lost nor a failure. A lab order is invoiced only for the tests that the clinic has prices of;
without any, the lab charges the patient itself.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.principal import Principal
from clinic_shared.timers import Timer, Timers

from clinic_billing import advances, invoices, lab_order_store, ledger, store
from clinic_billing.accounts import invoice_entries
from clinic_billing.domain import (
    PATIENT,
    Attention,
    Centre,
    ChargeItem,
    Invoice,
    InvoiceLine,
    PriceKind,
)
from clinic_billing.events import invoice_issued
from clinic_billing.prices import packages, quoting

timers = Timers()

WAITING_VISITS = "invoice-waiting-visits"
BATCH = 100


async def record_visit(tx: Transaction, item: ChargeItem) -> None:
    """Invoice a completed visit, once; without a price it waits for one."""
    await store.hold_prices(tx, item.centre_id, exclusive=False)
    if await store.add_charge_item(tx, item):
        await _invoice_visit(tx, item)


async def withdraw_visit(tx: Transaction, appointment_id: UUID, *, why: Attention) -> None:
    """A visit didn't take place. Completed, cancelled and missed are all final, so normally nothing is owed.

    Should it be invoiced all the same, a person decides about the invoice: money may have been paid.
    """
    if await store.set_charge_status(tx, appointment_id, "not-billable"):
        return
    await _note(tx, await store.lock_invoice_of_visit(tx, appointment_id), why)


async def _note(tx: Transaction, invoice: Invoice | None, why: Attention) -> None:
    if invoice is not None and invoice.attention is not why:
        await store.save_invoice(tx, invoice.noting(why))
        invoices.audit_invoice(tx, Action.UPDATE, invoice)


async def record_lab_order(
    tx: Transaction,
    *,
    lab_order_id: UUID,
    patient_id: UUID,
    centre_id: UUID,
    department_id: UUID,
    test_codes: Sequence[str],
    placed_at: datetime,
) -> None:
    """Invoice the tests that have a price here; without one, the order is none of billing's business."""
    await lab_order_store.lock(tx, lab_order_id)
    centre = await store.find_centre(tx, centre_id)
    if centre is None or await lab_order_store.is_settled(tx, lab_order_id):
        return
    placed_on = placed_at.astimezone(ZoneInfo(centre.time_zone)).date()
    lines = await _priced_lines(tx, centre, test_codes, on=placed_on, department_id=department_id)
    if lines:
        await _issue(
            tx,
            centre,
            lines,
            patient_id=patient_id,
            department_id=department_id,
            lab_order_id=lab_order_id,
        )


async def withdraw_lab_order(tx: Transaction, lab_order_id: UUID) -> None:
    """An order was cancelled. Normally it is invoiced by then: a person decides, since money may have been paid."""
    await lab_order_store.lock(tx, lab_order_id)
    await lab_order_store.keep_cancelled(tx, lab_order_id)
    invoice = await store.lock_invoice_of_lab_order(tx, lab_order_id)
    await _note(tx, invoice, Attention.LAB_ORDER_CANCELLED)


async def _priced_lines(
    tx: Transaction, centre: Centre, test_codes: Sequence[str], *, on: date, department_id: UUID
) -> list[InvoiceLine]:
    lines = []
    for code, quantity in Counter(test_codes).items():
        price = await store.find_price(
            tx,
            centre=centre,
            kind=PriceKind.LAB_TEST,
            service_code=code,
            on=on,
            department_id=department_id,
        )
        if price is not None:
            lines.append(
                InvoiceLine(service_code=code, quantity=quantity, unit_amount_minor=price.amount_minor)
            )
    return lines


async def invoice_waiting_visits(
    tx: Transaction, centre_id: UUID, *, cause: UUID, cause_version: int, after: UUID | None = None
) -> None:
    """Let a centre's billable visits be tried again, soon and in batches, because something became known."""
    await tx.schedule(
        Timer(
            kind=WAITING_VISITS,
            subject=cause,
            subject_version=cause_version,
            occurrence=str(after or ""),
            due_at=tx.now,
            payload={"centre_id": str(centre_id), "after": str(after) if after else None},
        )
    )


@timers.on(WAITING_VISITS)
async def try_waiting_visits(tx: Transaction, timer: Timer) -> None:
    centre_id, after = UUID(timer.payload["centre_id"]), timer.payload["after"]
    items = await store.lock_billable(tx, centre_id, after=UUID(after) if after else None, limit=BATCH)
    for item in items:
        await _invoice_visit(tx, item)
    if len(items) == BATCH:
        await invoice_waiting_visits(
            tx,
            centre_id,
            cause=timer.subject,
            cause_version=timer.subject_version,
            after=items[-1].appointment_id,
        )


async def _invoice_visit(tx: Transaction, item: ChargeItem) -> None:
    centre = await store.find_centre(tx, item.centre_id)
    if centre is None:
        return
    quoted = await quoting.quote(tx, centre, item)
    if quoted is None or not await store.set_charge_status(tx, item.appointment_id, "billed"):
        return
    if quoted.package is not None:
        await packages.use(tx, quoted.package, item.service_code)
    await _issue(
        tx,
        centre,
        [quoted.line],
        patient_id=item.patient_id,
        department_id=item.department_id,
        appointment_id=item.appointment_id,
        payer=quoted.payer,
        package=quoted.package,
    )


async def _issue(
    tx: Transaction,
    centre: Centre,
    lines: Sequence[InvoiceLine],
    *,
    patient_id: UUID,
    department_id: UUID,
    appointment_id: UUID | None = None,
    lab_order_id: UUID | None = None,
    payer: str = PATIENT,
    package: UUID | None = None,
) -> None:
    """The service has been rendered: from now on it is owed, less what was paid for it in advance."""
    invoice = await invoices.make(
        tx,
        centre,
        lines,
        patient_id=patient_id,
        department_id=department_id,
        appointment_id=appointment_id,
        lab_order_id=lab_order_id,
        payer=payer,
    )
    await ledger.book(
        tx,
        "invoice-issued",
        invoice_entries(invoice),
        source_id=invoice.invoice_id,
        legal_entity_id=invoice.legal_entity_id,
        currency=invoice.currency,
    )
    settled = await advances.set_off_for_visit(tx, invoice, package=package)
    tx.emit(invoice_issued(invoice, prepaid_minor=settled.paid_minor))


async def list_waiting_visits(
    tx: Transaction, *, caller: Principal, after: UUID | None, limit: int
) -> list[ChargeItem]:
    """Return completed visits that can't be invoiced because their price isn't known."""
    found = await store.list_billable(tx, within=invoices.within(caller), after=after, limit=limit)
    for item in found:
        tx.audit(
            AuditEntry(
                action=Action.READ,
                resource_type="ChargeItem",
                resource_id=item.appointment_id,
                patient_id=item.patient_id,
            )
        )
    return found
