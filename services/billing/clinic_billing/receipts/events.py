"""Events out: an obligation that was met, and one that is late."""

from clinic_shared.events import Event, wire_id, wire_instant

from clinic_billing.receipts.receipt import Receipt


def receipt_fiscalised(receipt: Receipt) -> Event:
    registered = receipt.registered
    assert registered is not None  # noqa: S101  # done receipts are registered
    return Event(
        type="billing.receipt-fiscalised.v1",
        subject=receipt.receipt_id,
        aggregate_version=receipt.version,
        patient_id=receipt.patient_id,
        data={
            **_about(receipt),
            "fiscal_storage": registered.fiscal_storage,
            "document_number": registered.document_number,
            "document_sign": registered.document_sign,
            "registered_at": wire_instant(registered.registered_at) if registered.registered_at else None,
        },
    )


def receipt_overdue(receipt: Receipt) -> Event:
    return Event(
        type="billing.receipt-overdue.v1",
        subject=receipt.receipt_id,
        aggregate_version=receipt.version,
        patient_id=receipt.patient_id,
        data={**_about(receipt), "owed_at": wire_instant(receipt.owed_at)},
    )


def _about(receipt: Receipt) -> dict[str, object]:
    document = receipt.document
    return {
        "receipt_id": str(receipt.receipt_id),
        "version": receipt.version,
        "status": receipt.status.value,
        "operation": document.operation.value if document else None,
        "amount_minor": document.total_minor if document else None,
        "currency": document.currency if document else None,
        "invoice_id": wire_id(receipt.invoice_id),
        "payment_id": wire_id(receipt.payment_id),
        "patient_id": wire_id(receipt.patient_id),
        "legal_entity_id": str(receipt.legal_entity_id),
    }
