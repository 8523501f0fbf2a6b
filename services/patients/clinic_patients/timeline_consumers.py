"""Events in: what happened to patients at all services, for the timeline of the chart and for who treats them."""

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope

from clinic_patients import care, chart_store
from clinic_patients.chart_domain import EntryKind, TimelineEntry
from clinic_patients.sources import Appointment, Invoice, LabOrder, Message, Payment, Referral

handlers = Handlers("patients")


@handlers.on(
    "scheduling.appointment-booked.v1",
    "scheduling.appointment-rescheduled.v1",
    "scheduling.appointment-confirmed.v1",
    "scheduling.appointment-cancelled.v1",
    "scheduling.patient-arrived.v1",
    "scheduling.appointment-completed.v1",
    "scheduling.appointment-missed.v1",
)
async def show_appointment(tx: Transaction, _: Envelope, appointment: Appointment) -> None:
    chart_store.keep_entry(
        tx,
        TimelineEntry(
            kind=EntryKind.APPOINTMENT,
            source_id=appointment.appointment_id,
            version=appointment.version,
            patient_id=appointment.patient_id,
            status=appointment.status,
            occurred_at=appointment.starts_at,
            centre_id=appointment.centre_id,
            department_id=appointment.department_id,
            practitioner_id=appointment.practitioner_id,
            code=appointment.service_code,
        ),
    )
    await care.keep(tx, [appointment.care(tx.now)])


@handlers.on(
    "referrals.referral-created.v1",
    "referrals.referral-accepted.v1",
    "referrals.referral-declined.v1",
    "referrals.referral-booked.v1",
    "referrals.referral-seen.v1",
    "referrals.referral-reported.v1",
    "referrals.referral-closed.v1",
)
async def show_referral(tx: Transaction, _: Envelope, referral: Referral) -> None:
    """Stands at the department that is asked."""
    chart_store.keep_entry(
        tx,
        TimelineEntry(
            kind=EntryKind.REFERRAL,
            source_id=referral.referral_id,
            version=referral.version,
            patient_id=referral.patient_id,
            status=referral.status,
            occurred_at=referral.created_at,
            centre_id=referral.to_centre_id,
            department_id=referral.to_department_id,
            practitioner_id=referral.from_practitioner_id,
            code=referral.service_code,
        ),
    )
    await care.keep(tx, referral.care(tx.now))


@handlers.on("lab-integration.lab-order-placed.v1", "lab-integration.lab-order-cancelled.v1")
async def show_lab_order(tx: Transaction, _: Envelope, order: LabOrder) -> None:
    chart_store.keep_entry(
        tx,
        TimelineEntry(
            kind=EntryKind.LAB_ORDER,
            source_id=order.lab_order_id,
            version=order.version,
            patient_id=order.patient_id,
            status=order.status,
            occurred_at=order.placed_at,
            centre_id=order.centre_id,
            department_id=order.department_id,
            practitioner_id=order.practitioner_id,
        ),
    )
    await care.keep(tx, [order.care(tx.now)])


@handlers.on("notifications.message-delivered.v1")
async def show_message(tx: Transaction, _: Envelope, message: Message) -> None:
    if message.patient_id is None:
        return
    chart_store.keep_entry(
        tx,
        TimelineEntry(
            kind=EntryKind.MESSAGE,
            source_id=message.message_id,
            version=message.version,
            patient_id=message.patient_id,
            status=message.status,
            occurred_at=message.delivered_at or message.sent_at or message.send_at,
            centre_id=message.centre_id,
            department_id=message.department_id,
            code=message.purpose,
        ),
    )


@handlers.on("billing.invoice-issued.v1")
async def show_invoice(tx: Transaction, _: Envelope, invoice: Invoice) -> None:
    chart_store.keep_entry(
        tx,
        TimelineEntry(
            kind=EntryKind.INVOICE,
            source_id=invoice.invoice_id,
            version=invoice.version,
            patient_id=invoice.patient_id,
            status=invoice.status,
            occurred_at=invoice.issued_at,
            centre_id=invoice.centre_id,
            department_id=invoice.department_id,
            amount_minor=invoice.total_minor,
            currency=invoice.currency,
        ),
    )


@handlers.on("billing.payment-received.v1")
async def show_payment(tx: Transaction, _: Envelope, payment: Payment) -> None:
    chart_store.keep_entry(
        tx,
        TimelineEntry(
            kind=EntryKind.PAYMENT,
            source_id=payment.payment_id,
            version=payment.version,
            patient_id=payment.patient_id,
            status=payment.status,
            occurred_at=payment.received_at,
            centre_id=payment.centre_id,
            department_id=payment.department_id,
            amount_minor=payment.amount_minor,
            currency=payment.currency,
        ),
    )
