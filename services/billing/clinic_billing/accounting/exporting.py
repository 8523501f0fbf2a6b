"""From the ledger's movements to accounting documents: the ledger is append-only, so a day that is over stays.

An invoice's document is exported in the version in which the invoice was issued; what happens to it afterwards is
a document of its own.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import Row, select, text

from clinic_billing.accounting.documents import AccountingDocument, DocumentKind, DocumentLine, Export
from clinic_billing.accounts import CASH
from clinic_billing.tables import invoice_line

# Each kind of movement finds its invoice, and who paid how, through its source.
_MOVEMENTS = text("""
    SELECT m.movement_id, m.kind, m.booked_at, i.number, i.invoice_id, i.patient_id,
           coalesce(p.provider, rp.provider) AS provider,
           (SELECT sum(amount_minor) FROM ledger_entry e
            WHERE e.movement_id = m.movement_id AND e.amount_minor > 0)::bigint AS amount,
           (SELECT min(currency) FROM ledger_entry e WHERE e.movement_id = m.movement_id) AS currency
    FROM ledger_movement m
    LEFT JOIN payment p ON m.kind = 'payment-received' AND p.payment_id = m.source_id
    LEFT JOIN refund r ON m.kind = 'payment-refunded' AND r.refund_id = m.source_id
    LEFT JOIN payment rp ON rp.payment_id = r.payment_id
    LEFT JOIN advance_application a ON m.kind = 'advance-applied' AND a.application_id = m.source_id
    LEFT JOIN write_off w ON m.kind = 'written-off' AND w.write_off_id = m.source_id
    JOIN invoice i ON i.invoice_id = coalesce(
        CASE m.kind WHEN 'invoice-issued' THEN m.source_id END,
        p.invoice_id, rp.invoice_id, a.invoice_id, w.invoice_id)
    WHERE m.legal_entity_id = :legal_entity_id AND m.booked_at >= :first AND m.booked_at < :end
    ORDER BY m.movement_id
""")


async def export_day(tx: Transaction, legal_entity_id: UUID, day: date) -> Export:
    """Return a legal entity's documents of a day of UTC, in the order in which they were booked."""
    first = datetime.combine(day, time(), UTC)
    rows = await tx.fetch_all(
        _MOVEMENTS, {"legal_entity_id": legal_entity_id, "first": first, "end": first + timedelta(days=1)}
    )
    lines = await _lines(tx, [row.invoice_id for row in rows if row.kind == "invoice-issued"])
    documents = [_document(row, legal_entity_id, lines) for row in rows]
    return Export(legal_entity_id=legal_entity_id, day=day, documents=documents)


async def _lines(tx: Transaction, invoice_ids: list[UUID]) -> dict[UUID, tuple[DocumentLine, ...]]:
    rows = await tx.fetch_all(
        select(invoice_line)
        .where(invoice_line.c.invoice_id.in_(invoice_ids))
        .order_by(invoice_line.c.invoice_id, invoice_line.c.position)
    )
    found: dict[UUID, tuple[DocumentLine, ...]] = {}
    for row in rows:
        line = DocumentLine(
            service_code=row.service_code, quantity=row.quantity, amount_minor=row.amount_minor
        )
        found[row.invoice_id] = (*found.get(row.invoice_id, ()), line)
    return found


def _document(
    row: Row[Any], legal_entity_id: UUID, lines: dict[UUID, tuple[DocumentLine, ...]]
) -> AccountingDocument:
    return AccountingDocument(
        guid=row.movement_id,
        # A movement is never changed: what corrects it is another one.
        version=1,
        kind=_kind(row),
        number=row.number,
        at=row.booked_at.astimezone(UTC),
        amount_minor=int(row.amount),
        currency=row.currency,
        legal_entity_id=legal_entity_id,
        patient_id=row.patient_id,
        invoice_id=row.invoice_id,
        lines=lines.get(row.invoice_id, ()) if row.kind == "invoice-issued" else (),
    )


def _kind(row: Row[Any]) -> DocumentKind:
    if row.kind == "payment-received":
        return DocumentKind.CASH_IN if row.provider == CASH else DocumentKind.PAYMENT
    if row.kind == "payment-refunded":
        return DocumentKind.CASH_OUT if row.provider == CASH else DocumentKind.REFUND
    return {
        "invoice-issued": DocumentKind.SALE,
        "advance-applied": DocumentKind.SET_OFF,
        "written-off": DocumentKind.WRITE_OFF,
    }[row.kind]
