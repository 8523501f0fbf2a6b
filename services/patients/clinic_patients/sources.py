"""What other services tell of the things that happen to a patient, and what care follows from them."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from clinic_patients.care_domain import (
    CareRelationship,
    Carers,
    of_appointment,
    of_lab_order,
    of_referral,
)


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

    def care(self, now: datetime) -> CareRelationship:
        carers = Carers(
            practitioner_id=self.practitioner_id,
            centre_id=self.centre_id,
            department_id=self.department_id,
        )
        return of_appointment(
            self.appointment_id,
            self.version,
            self.patient_id,
            carers,
            status=self.status,
            starts_at=self.starts_at,
            now=now,
        )


class Referral(Source):
    referral_id: UUID
    created_at: datetime
    accepted_at: datetime | None
    closed_at: datetime | None
    from_centre_id: UUID | None
    from_department_id: UUID | None
    from_practitioner_id: UUID | None
    to_centre_id: UUID | None
    to_department_id: UUID | None
    to_practitioner_id: UUID | None
    service_code: str | None

    def care(self, now: datetime) -> list[CareRelationship]:
        return of_referral(
            self.referral_id,
            self.version,
            self.patient_id,
            sender=Carers(
                practitioner_id=self.from_practitioner_id,
                centre_id=self.from_centre_id,
                department_id=self.from_department_id,
            ),
            receiver=Carers(
                practitioner_id=self.to_practitioner_id,
                centre_id=self.to_centre_id,
                department_id=self.to_department_id,
            ),
            status=self.status,
            created_at=self.created_at,
            accepted_at=self.accepted_at,
            closed_at=self.closed_at,
            now=now,
        )


class LabOrder(Source):
    lab_order_id: UUID
    placed_at: datetime
    centre_id: UUID | None
    department_id: UUID | None
    practitioner_id: UUID | None

    def care(self, now: datetime) -> CareRelationship:
        carers = Carers(
            practitioner_id=self.practitioner_id,
            centre_id=self.centre_id,
            department_id=self.department_id,
        )
        return of_lab_order(
            self.lab_order_id,
            self.version,
            self.patient_id,
            carers,
            status=self.status,
            placed_at=self.placed_at,
            now=now,
        )


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
