"""Events in: everything that is counted, each aggregate as one fact in its newest state.

A payload's model names exactly what is kept of it; private fields are not among them, so nothing
that tells who a patient is can get into a report.
"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID
from zoneinfo import available_timezones

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.projections import Kept
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
    partner_id: UUID
    test_code: str | None = None
    test_system: str | None = None
    collected_at: AwareDatetime | None
    reported_at: AwareDatetime | None


class ReportCode(BaseModel):
    code: str | None
    system: str | None


class LabResultMessage(LabResult):
    report: ReportCode
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


def _newest(table: Table, envelope: Envelope, fact: Fact) -> list[Kept]:
    return [Kept(table=table, values=fact.model_dump() | {"occurred_at": envelope.time})]


def _first(result_id: UUID, milestone: Milestone, reached_at: datetime) -> Kept:
    """When a result passed a milestone first, in whatever order its versions are told."""
    values = {"result_id": result_id, "milestone": milestone.value, "reached_at": reached_at}
    return Kept(table=tables.lab_milestone, values=values, earliest="reached_at")


@handlers.project("identity.centre-opened.v1", "identity.centre-changed.v1")
def keep_centre(envelope: Envelope, centre: Centre) -> list[Kept]:
    return _newest(tables.centre, envelope, centre)


@handlers.project(
    "identity.department-opened.v1", "identity.department-changed.v1", "identity.department-closed.v1"
)
def keep_department(envelope: Envelope, department: Department) -> list[Kept]:
    return _newest(tables.department, envelope, department)


@handlers.project(
    "identity.staff-member-added.v1", "identity.staff-member-moved.v1", "identity.staff-member-deactivated.v1"
)
def keep_staff_member(envelope: Envelope, staff: StaffMember) -> list[Kept]:
    return _newest(tables.staff_member, envelope, staff)


@handlers.project(
    "scheduling.service-defined.v1", "scheduling.service-changed.v1", "scheduling.service-withdrawn.v1"
)
def keep_service(envelope: Envelope, service: Service) -> list[Kept]:
    return _newest(tables.service, envelope, service)


@handlers.project(
    "scheduling.appointment-booked.v1",
    "scheduling.appointment-rescheduled.v1",
    "scheduling.appointment-confirmed.v1",
    "scheduling.patient-arrived.v1",
    "scheduling.appointment-completed.v1",
    "scheduling.appointment-cancelled.v1",
    "scheduling.appointment-missed.v1",
)
def keep_appointment(envelope: Envelope, appointment: Appointment) -> list[Kept]:
    return _newest(tables.appointment_fact, envelope, appointment)


@handlers.project(
    "referrals.referral-created.v1",
    "referrals.referral-accepted.v1",
    "referrals.referral-declined.v1",
    "referrals.referral-booked.v1",
    "referrals.referral-seen.v1",
    "referrals.referral-reported.v1",
    "referrals.referral-closed.v1",
)
def keep_referral(envelope: Envelope, referral: Referral) -> list[Kept]:
    return _newest(tables.referral_fact, envelope, referral)


@handlers.project("lab-integration.lab-order-placed.v1", "lab-integration.lab-order-cancelled.v1")
def keep_lab_order(envelope: Envelope, order: LabOrder) -> list[Kept]:
    return _newest(tables.lab_order_fact, envelope, order)


@handlers.project(
    "lab-integration.lab-result-received.v1",
    "lab-integration.lab-result-corrected.v1",
    "lab-integration.lab-result-retracted.v1",
)
def keep_lab_result(envelope: Envelope, result: LabResultMessage) -> list[Kept]:
    """A correction brings its own time of receipt; the turnaround ends at the first."""
    told = result.model_dump(include=set(LabResult.model_fields))
    kept = LabResult.model_validate(
        {**told, "test_code": result.report.code, "test_system": result.report.system}
    )
    return [
        *_newest(tables.lab_result_fact, envelope, kept),
        _first(result.result_id, Milestone.RECEIVED, result.received_at),
    ]


@handlers.project("patients.lab-result-filed.v1")
def keep_filing(_: Envelope, filed: LabResultFiled) -> list[Kept]:
    return [_first(filed.result_id, Milestone.FILED, filed.filed_at)]


@handlers.project(
    "lab-integration.critical-result-raised.v1",
    "lab-integration.critical-result-escalated.v1",
    "lab-integration.critical-result-acknowledged.v1",
)
def keep_critical_result(envelope: Envelope, raised: CriticalResult) -> list[Kept]:
    return _newest(tables.critical_result_fact, envelope, raised)


@handlers.project("billing.invoice-issued.v1")
def keep_invoice(envelope: Envelope, invoice: Invoice) -> list[Kept]:
    return _newest(tables.invoice_fact, envelope, invoice)


@handlers.project("billing.payment-received.v1")
def keep_payment(envelope: Envelope, payment: Payment) -> list[Kept]:
    return _newest(tables.payment_fact, envelope, payment)


@handlers.project("billing.payment-refunded.v1")
def keep_refund(envelope: Envelope, refund: Refund) -> list[Kept]:
    """Its version is the payment's, and each refund is told once, so it is the refund's own fact."""
    return _newest(tables.refund_fact, envelope, refund)


@handlers.project(
    "notifications.message-queued.v1",
    "notifications.message-sent.v1",
    "notifications.message-delivered.v1",
    "notifications.message-failed.v1",
)
def keep_message(envelope: Envelope, message: Message) -> list[Kept]:
    return _newest(tables.message_fact, envelope, message)


@handlers.project("patients.patient-registered.v1", "patients.patient-updated.v1")
def keep_registration(envelope: Envelope, registration: Registration) -> list[Kept]:
    return _newest(tables.registration_fact, envelope, registration)


@handlers.project("patients.encounter-recorded.v1")
def keep_encounter(envelope: Envelope, encounter: Encounter) -> list[Kept]:
    return _newest(tables.encounter_fact, envelope, encounter)


@handlers.project("patients.prescription-issued.v1")
def keep_prescription(envelope: Envelope, prescription: Prescription) -> list[Kept]:
    return _newest(tables.prescription_fact, envelope, prescription)


@handlers.project("patients.consent-changed.v1")
def keep_consent(envelope: Envelope, consent: Consent) -> list[Kept]:
    return _newest(tables.consent_fact, envelope, consent)


@handlers.on("audit.audit-checkpoint-signed.v1")
async def witness_checkpoint(tx: Transaction, _: Envelope, checkpoint: Checkpoint) -> None:
    """Evidence, not a read model: rebuilt from the audit service's log it would only repeat the suspect."""
    await store.add_witness(tx, checkpoint.model_dump())
