"""Events in: projections, and what patients are told of."""

from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from clinic_shared import merges
from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.merges import TOLD_BY, ToldMerge
from clinic_shared.projections import keep_newer
from pydantic import BaseModel

from clinic_notifications import announcing, domain, export, links, tables, together
from clinic_notifications.domain import Purpose, Subject
from clinic_notifications.together_store import Desk

handlers = Handlers("notifications")
handlers.include(export.handlers)


class AccessLink(BaseModel):
    request_id: UUID
    version: int
    purpose: str
    staff_id: UUID | None
    patient_id: UUID | None
    page_url: str
    expires_at: datetime


class NewDevice(BaseModel):
    device_id: UUID
    version: int
    staff_id: UUID | None
    patient_id: UUID | None
    seen_at: datetime
    address: str | None = None

    @property
    def login_address(self) -> str | None:
        """Return the address if it is one, and nothing that somebody could have written."""
        try:
            return str(ip_address(self.address or ""))
        except ValueError:
            return None


class OneTimeCode(BaseModel):
    request_id: UUID
    version: int
    patient_id: UUID
    public_key: str
    expires_at: datetime


class ChangedPassword(BaseModel):
    change_id: UUID
    version: int
    staff_id: UUID | None
    patient_id: UUID | None
    changed_at: datetime


class Centre(BaseModel):
    centre_id: UUID
    version: int
    name: str
    address: str | None = None
    phone: str | None = None
    time_zone: str
    language: str


class Department(BaseModel):
    department_id: UUID
    version: int
    name: str
    centre_id: UUID


class Patient(BaseModel):
    patient_id: UUID
    version: int
    status: str
    centre_id: UUID | None
    phones: list[str] | None = None
    emails: list[str] | None = None
    language: str | None = None


class Consent(BaseModel):
    consent_id: UUID
    version: int
    patient_id: UUID
    kind: str
    status: str
    channel: str | None
    expires_at: datetime | None


class Appointment(BaseModel):
    appointment_id: UUID
    version: int
    status: str
    patient_id: UUID
    centre_id: UUID
    department_id: UUID
    starts_at: datetime
    time_zone: str
    service_name: str | None = None

    def known(self) -> domain.Appointment:
        return domain.Appointment(**self.model_dump())


class Referral(BaseModel):
    referral_id: UUID
    version: int
    patient_id: UUID
    to_centre_id: UUID | None
    to_department_id: UUID | None


class LabResult(BaseModel):
    result_id: UUID
    version: int
    status: str
    patient_id: UUID
    centre_id: UUID | None
    department_id: UUID | None

    @property
    def is_told(self) -> bool:
        """Preliminary results are for doctors."""
        return self.status in {"final", "amended", "corrected"}

    @property
    def desk(self) -> Desk:
        return Desk(patient_id=self.patient_id, centre_id=self.centre_id, department_id=self.department_id)


class Obligation(BaseModel):
    obligation_id: UUID
    version: int
    kind: str
    owner_id: UUID | None
    centre_id: UUID | None
    department_id: UUID | None
    due_at: datetime


class CriticalResult(BaseModel):
    obligation_id: UUID


class Invoice(BaseModel):
    invoice_id: UUID
    version: int
    number: str
    status: str
    patient_id: UUID
    centre_id: UUID
    department_id: UUID | None
    total_minor: int
    prepaid_minor: int = 0
    payer: str = "patient"
    currency: str
    payment_url: str | None = None


class Payment(BaseModel):
    payment_id: UUID
    version: int
    patient_id: UUID
    centre_id: UUID
    department_id: UUID | None
    amount_minor: int
    currency: str


@handlers.on("identity.access-link-requested.v1")
async def send_access_link(tx: Transaction, _: Envelope, link: AccessLink) -> None:
    """Write to whoever is to choose a password; the link itself is made when the message leaves."""
    await announcing.announce(
        tx,
        purpose=links.PURPOSES[link.purpose],
        about=Subject(type="access-link", id=link.request_id, version=link.version),
        patient_id=link.patient_id,
        staff_id=link.staff_id,
        centre_id=None,
        department_id=None,
        facts={"page_url": link.page_url},
        useful_until_at=link.expires_at,
    )


@handlers.on("identity.new-device-seen.v1")
async def tell_of_new_device(tx: Transaction, _: Envelope, device: NewDevice) -> None:
    """Say when and where from; what the browser calls itself would be a stranger's words in our name."""
    await announcing.announce(
        tx,
        purpose=Purpose.NEW_DEVICE,
        about=Subject(type="device", id=device.device_id, version=device.version),
        patient_id=device.patient_id,
        staff_id=device.staff_id,
        centre_id=None,
        department_id=None,
        facts={
            "starts_at": device.seen_at.isoformat(),
            "time_zone": "UTC",
            "login_address": device.login_address,
        },
    )


@handlers.on("identity.one-time-code-requested.v1")
async def send_code(tx: Transaction, _: Envelope, asked: OneTimeCode) -> None:
    """Write to whoever is logging in; the code itself is made when the message leaves."""
    await announcing.announce(
        tx,
        purpose=Purpose.SIGN_IN_CODE,
        about=Subject(type="one-time-code", id=asked.request_id, version=asked.version),
        patient_id=asked.patient_id,
        centre_id=None,
        department_id=None,
        facts={"public_key": asked.public_key},
        useful_until_at=asked.expires_at,
    )


@handlers.on("identity.password-changed.v1")
async def tell_of_changed_password(tx: Transaction, _: Envelope, change: ChangedPassword) -> None:
    await announcing.announce(
        tx,
        purpose=Purpose.PASSWORD_CHANGED,
        about=Subject(type="password", id=change.change_id, version=change.version),
        patient_id=change.patient_id,
        staff_id=change.staff_id,
        centre_id=None,
        department_id=None,
        facts={"starts_at": change.changed_at.isoformat(), "time_zone": "UTC"},
    )


@handlers.on("identity.centre-opened.v1", "identity.centre-changed.v1")
async def keep_centre(tx: Transaction, _: Envelope, centre: Centre) -> None:
    await keep_newer(tx, tables.centre, centre.model_dump())


@handlers.on(
    "identity.department-opened.v1", "identity.department-changed.v1", "identity.department-closed.v1"
)
async def keep_department(tx: Transaction, _: Envelope, department: Department) -> None:
    await keep_newer(tx, tables.department, department.model_dump())


@handlers.on("patients.patient-registered.v1", "patients.patient-updated.v1")
async def keep_patient(tx: Transaction, _: Envelope, patient: Patient) -> None:
    known = patient.model_dump() | {"phones": patient.phones or [], "emails": patient.emails or []}
    await keep_newer(tx, tables.patient, tables.CONTACTS.stored(tx, known))


@handlers.on(*TOLD_BY)
async def keep_merge(tx: Transaction, _: Envelope, told: ToldMerge) -> None:
    """Whoever was replaced is reached, and asks not to be, as the person that they are."""
    await merges.keep_told(tx, tables.patient_merge, told)


@handlers.on("patients.consent-changed.v1")
async def keep_consent(tx: Transaction, _: Envelope, consent: Consent) -> None:
    await keep_newer(tx, tables.consent, consent.model_dump())


@handlers.on("scheduling.appointment-booked.v1")
async def confirm_booking(tx: Transaction, _: Envelope, appointment: Appointment) -> None:
    await announcing.keep_appointment(tx, appointment.known(), Purpose.CONFIRMATION)


@handlers.on("scheduling.appointment-rescheduled.v1")
async def tell_change(tx: Transaction, _: Envelope, appointment: Appointment) -> None:
    await announcing.keep_appointment(tx, appointment.known(), Purpose.CHANGE)


@handlers.on("scheduling.appointment-cancelled.v1")
async def tell_cancellation(tx: Transaction, _: Envelope, appointment: Appointment) -> None:
    await announcing.keep_appointment(tx, appointment.known(), Purpose.CANCELLATION)


@handlers.on(
    "scheduling.appointment-confirmed.v1",
    "scheduling.appointment-completed.v1",
    "scheduling.appointment-missed.v1",
)
async def follow_appointment(tx: Transaction, _: Envelope, appointment: Appointment) -> None:
    """The patient knows; reminders stay, or go with what is over."""
    await announcing.keep_appointment(tx, appointment.known(), None)


@handlers.on("referrals.referral-accepted.v1")
async def tell_referral_accepted(tx: Transaction, _: Envelope, referral: Referral) -> None:
    """From here on the patient can book."""
    await announcing.announce(
        tx,
        purpose=Purpose.REFERRAL_UPDATE,
        about=Subject(type="referral", id=referral.referral_id, version=referral.version),
        patient_id=referral.patient_id,
        centre_id=referral.to_centre_id,
        department_id=referral.to_department_id,
        facts={},
    )


@handlers.on(
    "referrals.referral-created.v1",
    "referrals.referral-declined.v1",
    "referrals.referral-booked.v1",
    "referrals.referral-seen.v1",
    "referrals.referral-reported.v1",
    "referrals.referral-closed.v1",
)
async def leave_referral_to_staff(tx: Transaction, _: Envelope, referral: Referral) -> None:
    """Between departments, or told otherwise: a booked referral is told by its appointment's confirmation."""


async def read_told(tx: Transaction, results: Sequence[LabResult]) -> None:
    await together.read_ahead(tx, (result.desk for result in results if result.is_told))


@handlers.on("patients.lab-result-filed.v1", ahead=read_told)
async def tell_result(tx: Transaction, _: Envelope, result: LabResult) -> None:
    """Say that there is one, never what it says."""
    if result.is_told:
        about = Subject(type="lab-result", id=result.result_id, version=result.version)
        await together.announce_result(tx, about, result.desk)


@handlers.on("lab-integration.critical-result-raised.v1")
async def leave_critical_result_to_doctors(tx: Transaction, _: Envelope, result: CriticalResult) -> None:
    """A patient must hear it from a person; the obligation and its escalation are lab-integration's."""


@handlers.on("lab-integration.obligation-assigned.v1")
async def call_for_an_answer(tx: Transaction, _: Envelope, obligation: Obligation) -> None:
    """Tell whoever is asked that something waits for them, and not about whom; who is asked next is told in turn."""
    if obligation.owner_id is None:
        return
    critical = obligation.kind == "critical-result"
    await announcing.announce(
        tx,
        purpose=Purpose.CRITICAL_RESULT if critical else Purpose.ANSWER_NEEDED,
        about=Subject(type="obligation", id=obligation.obligation_id, version=obligation.version),
        staff_id=obligation.owner_id,
        centre_id=obligation.centre_id,
        department_id=obligation.department_id,
        facts={"number": str(obligation.obligation_id)},
        useful_until_at=obligation.due_at,
    )


@handlers.on("billing.invoice-issued.v1")
async def tell_invoice(tx: Transaction, _: Envelope, invoice: Invoice) -> None:
    left_minor = invoice.total_minor - invoice.prepaid_minor
    if invoice.status != "issued" or left_minor <= 0 or invoice.payer != "patient":
        return
    facts: dict[str, Any] = {
        "number": invoice.number,
        "amount_minor": left_minor,
        "currency": invoice.currency,
        "payment_url": invoice.payment_url,
    }
    await announcing.announce(
        tx,
        purpose=Purpose.INVOICE,
        about=Subject(type="invoice", id=invoice.invoice_id, version=invoice.version),
        patient_id=invoice.patient_id,
        centre_id=invoice.centre_id,
        department_id=invoice.department_id,
        facts=facts,
    )


@handlers.on("billing.payment-received.v1")
async def tell_payment(tx: Transaction, _: Envelope, payment: Payment) -> None:
    await announcing.announce(
        tx,
        purpose=Purpose.PAYMENT_RECEIVED,
        about=Subject(type="payment", id=payment.payment_id, version=payment.version),
        patient_id=payment.patient_id,
        centre_id=payment.centre_id,
        department_id=payment.department_id,
        facts={"amount_minor": payment.amount_minor, "currency": payment.currency},
    )
