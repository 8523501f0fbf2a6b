"""Events in: lab results to file, everybody's events for the timeline, what is known of identity."""

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.projections import keep_newer
from pydantic import BaseModel, BeforeValidator

from clinic_patients import chart_store, registry, results, tables
from clinic_patients.chart_domain import (
    EntryKind,
    Observation,
    ResultVersion,
    TimelineEntry,
)
from clinic_patients.domain import Identifier, PersonName, Sex, is_plausible_birth
from clinic_patients.settings import RegistrySettings

handlers = Handlers("patients")

Texts = Annotated[tuple[str, ...], BeforeValidator(lambda value: value or ())]
"""Private lists may be missing, null or erased."""


# -- identity


class Centre(BaseModel):
    centre_id: UUID
    version: int
    status: str


class Department(BaseModel):
    department_id: UUID
    version: int
    centre_id: UUID
    status: str


class StaffName(BaseModel):
    family: str | None = None
    given: str | None = None
    patronymic: str | None = None

    def full(self) -> str | None:
        return " ".join(part for part in (self.family, self.given, self.patronymic) if part) or None


class StaffMember(BaseModel):
    staff_id: UUID
    version: int
    active: bool
    name: StaffName | None = None


@handlers.on("identity.centre-opened.v1", "identity.centre-changed.v1")
async def keep_centre(tx: Transaction, _: Envelope, centre: Centre) -> None:
    await keep_newer(
        tx,
        tables.centre,
        {
            "centre_id": centre.centre_id,
            "version": centre.version,
            "active": centre.status == "active",
        },
    )


@handlers.on(
    "identity.department-opened.v1", "identity.department-changed.v1", "identity.department-closed.v1"
)
async def keep_department(tx: Transaction, _: Envelope, department: Department) -> None:
    await keep_newer(
        tx,
        tables.department,
        {
            "department_id": department.department_id,
            "version": department.version,
            "centre_id": department.centre_id,
            "active": department.status == "active",
        },
    )


@handlers.on(
    "identity.staff-member-added.v1", "identity.staff-member-moved.v1", "identity.staff-member-deactivated.v1"
)
async def keep_staff_member(tx: Transaction, _: Envelope, member: StaffMember) -> None:
    """Names of those who wrote into charts, also after they have left."""
    await keep_newer(
        tx,
        tables.staff,
        {
            "staff_id": member.staff_id,
            "version": member.version,
            "name": member.name.full() if member.name else None,
            "active": member.active,
        },
    )


# -- who is to be registered


class RequestedName(BaseModel):
    family: str | None = None
    given: str | None = None
    patronymic: str | None = None


class RequestedIdentifier(BaseModel):
    authority: str
    value: str


class RequestedPatient(BaseModel):
    patient_id: UUID
    centre_id: UUID | None
    name: RequestedName | None = None
    birth_on: date | None = None
    sex: Sex | None = None
    identifiers: list[RequestedIdentifier] | None = None

    def demographics(self, now: datetime) -> registry.Demographics:
        """What a laboratory writes is taken as far as it can be true."""
        name = self.name or RequestedName()
        return registry.Demographics(
            name=PersonName(family=name.family or "", given=name.given, patronymic=name.patronymic),
            birth_on=self.birth_on if is_plausible_birth(self.birth_on, now=now) else None,
            sex=self.sex or Sex.UNKNOWN,
            phones=(),
            emails=(),
            language=None,
            identifiers=tuple(
                Identifier(authority=i.authority, type=None, value=i.value) for i in self.identifiers or []
            ),
        )


@handlers.on("lab-integration.patient-requested.v1")
async def register_requested(tx: Transaction, _: Envelope, requested: RequestedPatient) -> None:
    await registry.register_requested(
        tx,
        requested.patient_id,
        requested.demographics(tx.now),
        centre_id=requested.centre_id,
        settings=RegistrySettings(),
    )


# -- lab results


class Coding(BaseModel):
    code: str | None
    system: str | None
    display: str | None


class ObservationPayload(BaseModel):
    code: str | None
    system: str | None
    display: str | None
    value_type: str | None
    value: str | None
    units: str | None
    reference_range: str | None
    interpretation: Texts
    status: str | None
    observed_at: datetime | None
    sub_id: str | None
    notes: Texts
    meaning: dict[str, Any] | None = None


class LabResult(BaseModel):
    result_id: UUID
    version: int
    status: str
    lab_order_id: UUID | None
    placer_order_number: str | None
    filler_order_number: str | None
    parent_filler_order_number: str | None = None
    patient_id: UUID
    partner_id: UUID
    message_id: UUID
    group_index: int
    report_index: int
    practitioner_id: UUID | None
    centre_id: UUID | None
    department_id: UUID | None
    report: Coding
    observation_count: int
    abnormal_count: int
    critical_count: int
    collected_at: datetime | None
    reported_at: datetime | None
    received_at: datetime
    retraction_reason_code: str | None
    observations: Annotated[list[ObservationPayload], BeforeValidator(lambda value: value or [])] = []
    conclusion: str | None = None
    notes: Texts = ()

    def as_filed(self, filed_at: datetime) -> ResultVersion:
        values = self.model_dump(exclude={"report", "observations"})
        return ResultVersion(
            **values,
            report_code=self.report.code,
            report_system=self.report.system,
            report_display=self.report.display,
            observations=tuple(Observation(**line.model_dump()) for line in self.observations),
            filed_at=filed_at,
        )


@handlers.on(
    "lab-integration.lab-result-received.v1",
    "lab-integration.lab-result-corrected.v1",
    "lab-integration.lab-result-retracted.v1",
)
async def file_result(tx: Transaction, _: Envelope, result: LabResult) -> None:
    await results.file_result(tx, result.as_filed(tx.now))


# -- timeline


class Source(BaseModel):
    """What every aggregate with a patient tells."""

    version: int
    status: str
    patient_id: UUID


class Appointment(Source):
    appointment_id: UUID
    starts_at: datetime
    centre_id: UUID
    department_id: UUID
    practitioner_id: UUID | None
    service_code: str


class Referral(Source):
    referral_id: UUID
    created_at: datetime
    from_practitioner_id: UUID | None
    to_centre_id: UUID | None
    to_department_id: UUID | None
    service_code: str | None


class LabOrder(Source):
    lab_order_id: UUID
    placed_at: datetime
    centre_id: UUID | None
    department_id: UUID | None
    practitioner_id: UUID | None


class Message(BaseModel):
    message_id: UUID
    version: int
    status: str
    patient_id: UUID | None
    purpose: str
    send_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    centre_id: UUID | None
    department_id: UUID | None


class Invoice(Source):
    invoice_id: UUID
    issued_at: datetime
    centre_id: UUID | None
    department_id: UUID | None
    total_minor: int
    currency: str


class Payment(Source):
    payment_id: UUID
    received_at: datetime
    centre_id: UUID | None
    department_id: UUID | None
    amount_minor: int
    currency: str


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
    await chart_store.keep_entry(
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
    await chart_store.keep_entry(
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


@handlers.on("lab-integration.lab-order-placed.v1", "lab-integration.lab-order-cancelled.v1")
async def show_lab_order(tx: Transaction, _: Envelope, order: LabOrder) -> None:
    await chart_store.keep_entry(
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


@handlers.on("notifications.message-delivered.v1")
async def show_message(tx: Transaction, _: Envelope, message: Message) -> None:
    if message.patient_id is None:
        return
    await chart_store.keep_entry(
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
    await chart_store.keep_entry(
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
    await chart_store.keep_entry(
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
