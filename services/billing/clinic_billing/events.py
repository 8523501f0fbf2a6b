"""Events out: each carries the aggregate's resulting state (contracts/events/billing)."""

from datetime import datetime
from uuid import UUID

from clinic_shared.events import Event, wire_id, wire_instant

from clinic_billing.domain import Invoice, Payment, Refund


def invoice_issued(invoice: Invoice, *, prepaid_minor: int) -> Event:
    """`invoice` is as it was issued; `prepaid_minor` was paid in advance and has been set off."""
    return Event(
        type="billing.invoice-issued.v1",
        subject=invoice.invoice_id,
        aggregate_version=invoice.version,
        patient_id=invoice.patient_id,
        data={
            **_invoice_references(invoice),
            "version": invoice.version,
            "number": invoice.number,
            "status": "issued",
            "lab_order_id": wire_id(invoice.lab_order_id),
            "currency": invoice.currency,
            "lines": [
                {
                    "service_code": line.service_code,
                    "quantity": line.quantity,
                    "unit_amount_minor": line.unit_amount_minor,
                    "amount_minor": line.amount_minor,
                }
                for line in invoice.lines
            ],
            "total_minor": invoice.total_minor,
            "prepaid_minor": prepaid_minor,
            "payer": invoice.payer,
            "issued_at": wire_instant(invoice.issued_at),
            "due_on": invoice.due_on.isoformat(),
        },
    )


def payment_received(payment: Payment, invoice: Invoice) -> Event:
    """`invoice` is as the payment left it."""
    return Event(
        type="billing.payment-received.v1",
        subject=payment.payment_id,
        aggregate_version=payment.version,
        patient_id=payment.patient_id,
        data={
            **_invoice_references(invoice),
            **_balance(invoice),
            "payment_id": str(payment.payment_id),
            "version": payment.version,
            "status": payment.status.value,
            "amount_minor": payment.amount_minor,
            "currency": payment.currency,
            "provider": payment.provider,
            "provider_reference": payment.provider_reference,
            "received_at": wire_instant(payment.received_at),
        },
    )


def advance_applied(
    application_id: UUID, advance: Invoice, invoice: Invoice, amount_minor: int, applied_at: datetime
) -> Event:
    """`invoice` is as the advance left it."""
    return Event(
        type="billing.advance-applied.v1",
        subject=application_id,
        aggregate_version=1,
        patient_id=invoice.patient_id,
        data={
            **_invoice_references(invoice),
            **_balance(invoice),
            "application_id": str(application_id),
            "version": 1,
            "advance_id": str(advance.invoice_id),
            "amount_minor": amount_minor,
            "currency": invoice.currency,
            "applied_at": wire_instant(applied_at),
        },
    )


def payment_refunded(refund: Refund, payment: Payment, invoice: Invoice) -> Event:
    """`payment` and `invoice` are as the refund left them."""
    return Event(
        type="billing.payment-refunded.v1",
        subject=payment.payment_id,
        aggregate_version=payment.version,
        patient_id=payment.patient_id,
        data={
            **_invoice_references(invoice),
            **_balance(invoice),
            "refund_id": str(refund.refund_id),
            "payment_id": str(payment.payment_id),
            "version": payment.version,
            "status": payment.status.value,
            "amount_minor": refund.amount_minor,
            "refunded_minor": payment.refunded_minor,
            "currency": payment.currency,
            "provider": refund.provider,
            "provider_reference": refund.provider_reference,
            "reason_code": refund.reason_code,
            "refunded_at": wire_instant(refund.refunded_at),
        },
    )


def _invoice_references(invoice: Invoice) -> dict[str, object]:
    return {
        "invoice_id": str(invoice.invoice_id),
        "patient_id": str(invoice.patient_id),
        "appointment_id": wire_id(invoice.appointment_id),
        "centre_id": str(invoice.centre_id),
        "department_id": str(invoice.department_id),
        "legal_entity_id": str(invoice.legal_entity_id),
    }


def _balance(invoice: Invoice) -> dict[str, object]:
    return {
        "invoice_total_minor": invoice.total_minor,
        "invoice_paid_minor": invoice.paid_minor,
        "paid_in_full": invoice.paid_in_full,
    }
