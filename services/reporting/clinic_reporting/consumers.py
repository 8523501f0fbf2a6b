"""Events in: everything that is counted, each aggregate as one fact in its newest state.

A payload's model names exactly what is kept of it; private fields are not among them, so nothing
that tells who a patient is can get into a report.
"""

from typing import Annotated, Literal
from uuid import UUID
from zoneinfo import available_timezones

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.projections import keep_newer
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict
from sqlalchemy import Table

from clinic_reporting import store, tables
from clinic_reporting.domain import AppointmentStatus, Milestone

handlers = Handlers("reporting")


def _known_zone(name: str) -> str:
    # Refused here, where it parks one message, rather than in every report of the network.
    if name not in available_timezones():
        raise ValueError("not an IANA time zone")
    return name


class Fact(BaseModel):
    """Of an event, what the read model keeps: the columns of one table."""

    model_config = ConfigDict(use_enum_values=True)

    version: int


class Centre(Fact):
    centre_id: UUID
    name: str
    time_zone: Annotated[str, AfterValidator(_known_zone)]
    status: str


class Department(Fact):
    department_id: UUID
    centre_id: UUID
    name: str
    status: str


class StaffMember(Fact):
    staff_id: UUID
    department_ids: list[UUID]
    practitioner: bool
    active: bool


class Service(Fact):
    service_id: UUID
    code: str
    name: str
    status: str


class Appointment(Fact):
    appointment_id: UUID
    status: AppointmentStatus
    centre_id: UUID
    department_id: UUID
    service_code: str
    starts_at: AwareDatetime
    ends_at: AwareDatetime


class Referral(Fact):
    referral_id: UUID
    status: str
    from_centre_id: UUID
    from_department_id: UUID
    to_centre_id: UUID
    to_department_id: UUID
    created_at: AwareDatetime
    accepted_at: AwareDatetime | None
    declined_at: AwareDatetime | None
    booked_at: AwareDatetime | None
    seen_at: AwareDatetime | None
    reported_at: AwareDatetime | None
    closed_at: AwareDatetime | None


class LabOrder(Fact):
    lab_order_id: UUID
    status: str
    centre_id: UUID
    department_id: UUID
    placed_at: AwareDatetime


class LabResult(Fact):
    result_id: UUID
    status: str
    centre_id: UUID | None
    department_id: UUID | None
    lab_order_id: UUID | None
    critical_count: int


class LabResultMessage(LabResult):
    received_at: AwareDatetime


class LabResultFiled(BaseModel):
    result_id: UUID
    filed_at: AwareDatetime


class CriticalResult(Fact):
    obligation_id: UUID
    status: str
    centre_id: UUID | None
    department_id: UUID | None
    raised_at: AwareDatetime


class Invoice(Fact):
    invoice_id: UUID
    centre_id: UUID
    department_id: UUID | None
    currency: str
    total_minor: int
    issued_at: AwareDatetime


class Payment(Fact):
    payment_id: UUID
    centre_id: UUID
    department_id: UUID | None
    currency: str
    amount_minor: int
    received_at: AwareDatetime


class Refund(Fact):
    refund_id: UUID
    centre_id: UUID
    department_id: UUID | None
    currency: str
    amount_minor: int
    refunded_at: AwareDatetime


class Message(Fact):
    message_id: UUID
    status: str
    channel: str
    purpose: str
    centre_id: UUID | None
    department_id: UUID | None
    queued_at: AwareDatetime


class Registration(Fact):
    patient_id: UUID
    status: str
    centre_id: UUID | None
    registered_at: AwareDatetime


class Encounter(Fact):
    encounter_id: UUID
    status: str
    centre_id: UUID
    department_id: UUID
    started_at: AwareDatetime


class Prescription(Fact):
    prescription_id: UUID
    status: str
    centre_id: UUID
    department_id: UUID
    issued_at: AwareDatetime


class Consent(Fact):
    consent_id: UUID
    status: Literal["granted", "withdrawn"]
    kind: str
    changed_at: AwareDatetime


class Checkpoint(BaseModel):
    checkpoint_id: UUID
    root_hash: str
    log_origin: str
    tree_size: int
    key_id: str
    algorithm: str
    signature: str
    signed_at: AwareDatetime


async def _keep(tx: Transaction, table: Table, envelope: Envelope, fact: Fact) -> None:
    await keep_newer(tx, table, fact.model_dump() | {"occurred_at": envelope.time})


@handlers.on("identity.centre-opened.v1", "identity.centre-changed.v1")
async def keep_centre(tx: Transaction, envelope: Envelope, centre: Centre) -> None:
    await _keep(tx, tables.centre, envelope, centre)


@handlers.on(
    "identity.department-opened.v1", "identity.department-changed.v1", "identity.department-closed.v1"
)
async def keep_department(tx: Transaction, envelope: Envelope, department: Department) -> None:
    await _keep(tx, tables.department, envelope, department)


@handlers.on(
    "identity.staff-member-added.v1", "identity.staff-member-moved.v1", "identity.staff-member-deactivated.v1"
)
async def keep_staff_member(tx: Transaction, envelope: Envelope, staff: StaffMember) -> None:
    await _keep(tx, tables.staff_member, envelope, staff)


@handlers.on(
    "scheduling.service-defined.v1", "scheduling.service-changed.v1", "scheduling.service-withdrawn.v1"
)
async def keep_service(tx: Transaction, envelope: Envelope, service: Service) -> None:
    await _keep(tx, tables.service, envelope, service)


@handlers.on(
    "scheduling.appointment-booked.v1",
    "scheduling.appointment-rescheduled.v1",
    "scheduling.appointment-confirmed.v1",
    "scheduling.patient-arrived.v1",
    "scheduling.appointment-completed.v1",
    "scheduling.appointment-cancelled.v1",
    "scheduling.appointment-missed.v1",
)
async def keep_appointment(tx: Transaction, envelope: Envelope, appointment: Appointment) -> None:
    await _keep(tx, tables.appointment_fact, envelope, appointment)


@handlers.on(
    "referrals.referral-created.v1",
    "referrals.referral-accepted.v1",
    "referrals.referral-declined.v1",
    "referrals.referral-booked.v1",
    "referrals.referral-seen.v1",
    "referrals.referral-reported.v1",
    "referrals.referral-closed.v1",
)
async def keep_referral(tx: Transaction, envelope: Envelope, referral: Referral) -> None:
    await _keep(tx, tables.referral_fact, envelope, referral)


@handlers.on("lab-integration.lab-order-placed.v1")
async def keep_lab_order(tx: Transaction, envelope: Envelope, order: LabOrder) -> None:
    await _keep(tx, tables.lab_order_fact, envelope, order)


@handlers.on(
    "lab-integration.lab-result-received.v1",
    "lab-integration.lab-result-corrected.v1",
    "lab-integration.lab-result-retracted.v1",
)
async def keep_lab_result(tx: Transaction, envelope: Envelope, result: LabResultMessage) -> None:
    """A correction brings its own time of receipt; the turnaround ends at the first."""
    await store.keep_earliest(tx, result.result_id, Milestone.RECEIVED, result.received_at)
    kept = LabResult.model_validate(result.model_dump(include=set(LabResult.model_fields)))
    await _keep(tx, tables.lab_result_fact, envelope, kept)


@handlers.on("patients.lab-result-filed.v1")
async def keep_filing(tx: Transaction, _: Envelope, filed: LabResultFiled) -> None:
    await store.keep_earliest(tx, filed.result_id, Milestone.FILED, filed.filed_at)


@handlers.on("lab-integration.critical-result-raised.v1")
async def keep_critical_result(tx: Transaction, envelope: Envelope, raised: CriticalResult) -> None:
    await _keep(tx, tables.critical_result_fact, envelope, raised)


@handlers.on("billing.invoice-issued.v1")
async def keep_invoice(tx: Transaction, envelope: Envelope, invoice: Invoice) -> None:
    await _keep(tx, tables.invoice_fact, envelope, invoice)


@handlers.on("billing.payment-received.v1")
async def keep_payment(tx: Transaction, envelope: Envelope, payment: Payment) -> None:
    await _keep(tx, tables.payment_fact, envelope, payment)


@handlers.on("billing.payment-refunded.v1")
async def keep_refund(tx: Transaction, envelope: Envelope, refund: Refund) -> None:
    """Its version is the payment's, and each refund is told once, so it is the refund's own fact."""
    await _keep(tx, tables.refund_fact, envelope, refund)


@handlers.on(
    "notifications.message-queued.v1",
    "notifications.message-sent.v1",
    "notifications.message-delivered.v1",
    "notifications.message-failed.v1",
)
async def keep_message(tx: Transaction, envelope: Envelope, message: Message) -> None:
    await _keep(tx, tables.message_fact, envelope, message)


@handlers.on("patients.patient-registered.v1", "patients.patient-updated.v1")
async def keep_registration(tx: Transaction, envelope: Envelope, registration: Registration) -> None:
    await _keep(tx, tables.registration_fact, envelope, registration)


@handlers.on("patients.encounter-recorded.v1")
async def keep_encounter(tx: Transaction, envelope: Envelope, encounter: Encounter) -> None:
    await _keep(tx, tables.encounter_fact, envelope, encounter)


@handlers.on("patients.prescription-issued.v1")
async def keep_prescription(tx: Transaction, envelope: Envelope, prescription: Prescription) -> None:
    await _keep(tx, tables.prescription_fact, envelope, prescription)


@handlers.on("patients.consent-changed.v1")
async def keep_consent(tx: Transaction, envelope: Envelope, consent: Consent) -> None:
    await _keep(tx, tables.consent_fact, envelope, consent)


@handlers.on("audit.audit-checkpoint-signed.v1")
async def witness_checkpoint(tx: Transaction, _: Envelope, checkpoint: Checkpoint) -> None:
    await store.add_witness(tx, checkpoint.model_dump())
