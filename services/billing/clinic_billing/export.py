"""What billing holds about a patient: invoices, and how they were paid. Secrets of payment forms stay here."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.exporting import Part, concept, contribute, fhir_status, present, reference, told
from sqlalchemy import Row, select

from clinic_billing.amounts import to_text
from clinic_billing.tables import PAYER_CONTACT, charge_item, invoice, invoice_line, payment, refund

handlers = Handlers("billing")

_OF_THE_FORM = ("client_secret", "confirmation_url")
_OF_STAFF = ("requested_by", "decided_by", "shift_id")


async def gather(tx: Transaction, patient_ids: Sequence[UUID]) -> Part:
    invoices = await tx.fetch_all(
        select(invoice)
        .where(invoice.c.patient_id.in_(patient_ids))
        .order_by(invoice.c.issued_at, invoice.c.invoice_id)
    )
    lines: defaultdict[UUID, list[Row[Any]]] = defaultdict(list)
    for line in await tx.fetch_all(
        select(invoice_line)
        .where(invoice_line.c.invoice_id.in_([row.invoice_id for row in invoices]))
        .order_by(invoice_line.c.invoice_id, invoice_line.c.position)
    ):
        lines[line.invoice_id].append(line)
    return Part(
        resources=[_invoice(row, lines[row.invoice_id]) for row in invoices],
        others=await _movements(tx, patient_ids),
    )


async def _movements(tx: Transaction, patient_ids: Sequence[UUID]) -> dict[str, list[dict[str, Any]]]:
    payments = await tx.fetch_all(
        select(payment).where(payment.c.patient_id.in_(patient_ids)).order_by(payment.c.payment_id)
    )
    refunds = await tx.fetch_all(
        select(refund)
        .where(refund.c.payment_id.in_([row.payment_id for row in payments]))
        .order_by(refund.c.refund_id)
    )
    charges = await tx.fetch_all(
        select(charge_item)
        .where(charge_item.c.patient_id.in_(patient_ids))
        .order_by(charge_item.c.appointment_id)
    )
    return {
        "payments": [told(PAYER_CONTACT.opened(tx, row), without=_OF_THE_FORM) for row in payments],
        "refunds": [told(row, without=_OF_STAFF) for row in refunds],
        "charge-items": [told(row) for row in charges],
    }


def _invoice(row: Row[Any], lines: Sequence[Row[Any]]) -> dict[str, Any]:
    return present(
        resourceType="Invoice",
        id=row.invoice_id,
        identifier=[{"value": row.number}],
        status=fhir_status("invoice", row.status),
        subject=reference("Patient", row.patient_id),
        date=row.issued_at,
        issuer=reference("Organization", row.legal_entity_id),
        lineItem=[_line(line, row.currency) for line in lines],
        totalGross=_money(row.total_minor, row.currency),
    )


def _line(line: Row[Any], currency: str) -> dict[str, Any]:
    price = _money(line.unit_amount_minor, currency)
    return present(
        sequence=line.position + 1,
        chargeItemCodeableConcept=concept(line.service_code, (None, line.service_code)),
        priceComponent=[{"type": "base", "factor": line.quantity, "amount": price}],
    )


def _money(amount_minor: int, currency: str) -> dict[str, Any]:
    # FHIR's decimals are JSON numbers.
    return {"value": float(to_text(amount_minor, currency)), "currency": currency}


contribute(handlers, "billing.export-part-ready.v1", gather)
