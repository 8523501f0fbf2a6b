"""Events in: labs, places, people and patients that orders and matching need; and what the chart has filed."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any
from uuid import UUID

from clinic_shared import care
from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.merges import TOLD_BY, ToldMerge
from clinic_shared.projections import keep_newer
from pydantic import BaseModel

from clinic_lab_integration import (
    closing,
    export,
    merging,
    obligations,
    protection,
    store,
    tables,
    worklist,
)
from clinic_lab_integration.candidates import Person
from clinic_lab_integration.domain import Identifier
from clinic_lab_integration.events import Place
from clinic_lab_integration.unit_store import UnitPlace

handlers = Handlers("lab-integration")
handlers.include(export.handlers)


class Lab(BaseModel):
    partner_id: UUID
    version: int
    client_id: str
    name: str
    active: bool
    secret_digests: list[str] = []


class Department(BaseModel):
    department_id: UUID
    version: int
    centre_id: UUID
    status: str


class StaffMember(BaseModel):
    staff_id: UUID
    version: int
    practitioner: bool
    active: bool
    department_ids: list[UUID]


class PatientIdentifier(BaseModel):
    authority: str
    value: str


class PersonName(BaseModel):
    family: str | None = None
    given: str | None = None
    patronymic: str | None = None


class Patient(BaseModel):
    patient_id: UUID
    version: int
    status: str
    name: PersonName | None = None
    birth_on: date | None = None
    sex: str | None = None
    identifiers: list[PatientIdentifier] | None = None

    @property
    def person(self) -> Person:
        name = self.name or PersonName()
        return Person(**name.model_dump(), birth_on=self.birth_on, sex=self.sex)


class Appointment(BaseModel):
    appointment_id: UUID
    version: int
    status: str
    patient_id: UUID
    centre_id: UUID
    department_id: UUID


class FiledResult(BaseModel):
    message_id: UUID
    group_index: int
    report_index: int
    version: int

    @property
    def place(self) -> UnitPlace:
        return self.message_id, self.group_index


class Reader(BaseModel):
    reader_id: UUID


class RetractedResultRead(BaseModel):
    result_id: UUID
    version: int
    patient_id: UUID
    partner_id: UUID
    lab_order_id: UUID | None
    practitioner_id: UUID | None
    centre_id: UUID | None
    department_id: UUID | None
    readers: list[Reader]


@handlers.on("identity.lab-registered.v1", "identity.lab-changed.v1")
async def keep_partner(tx: Transaction, _: Envelope, lab: Lab) -> None:
    await keep_newer(tx, tables.partner, lab.model_dump())


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
async def keep_practitioner(tx: Transaction, _: Envelope, staff: StaffMember) -> None:
    """Results that wait for somebody who has left wait for the next one now."""
    values: dict[str, Any] = {
        "practitioner_id": staff.staff_id,
        "version": staff.version,
        "department_ids": staff.department_ids,
        "active": staff.active and staff.practitioner,
    }
    if not await keep_newer(tx, tables.practitioner, values):
        return
    # Who is at work is read once in a transaction.
    tx.known.clear()
    if not values["active"]:
        await obligations.pass_on(tx, staff.staff_id)


@handlers.on("patients.patient-registered.v1", "patients.patient-updated.v1")
async def keep_patient(tx: Transaction, _: Envelope, patient: Patient) -> None:
    """Results that came before their patient find them now."""
    values: dict[str, Any] = {
        "patient_id": patient.patient_id,
        "version": patient.version,
        "active": patient.status != "merged",
        **asdict(patient.person),
    }
    if not await keep_newer(tx, tables.patient, protection.stored_person(tx, values)):
        return
    identifiers = [Identifier(i.authority, i.value) for i in patient.identifiers or []]
    await store.replace_identifiers(tx, patient.patient_id, identifiers)
    await worklist.match_again(tx, identifiers)


@handlers.on(*TOLD_BY)
async def take_merge(tx: Transaction, _: Envelope, told: ToldMerge) -> None:
    await merging.take(tx, told)


@handlers.on(
    "scheduling.appointment-booked.v1",
    "scheduling.appointment-rescheduled.v1",
    "scheduling.appointment-confirmed.v1",
    "scheduling.appointment-cancelled.v1",
    "scheduling.appointment-completed.v1",
    "scheduling.appointment-missed.v1",
)
async def keep_appointment(tx: Transaction, _: Envelope, appointment: Appointment) -> None:
    await keep_newer(tx, tables.appointment, appointment.model_dump())


async def read_lines(tx: Transaction, of_several: Sequence[FiledResult]) -> None:
    await closing.read_ahead(tx, [filed.place for filed in of_several])


@handlers.on("patients.lab-result-filed.v1", ahead=read_lines)
async def close_line(tx: Transaction, _: Envelope, filed: FiledResult) -> None:
    await closing.close(tx, filed.place, report_index=filed.report_index, version=filed.version)


@handlers.on("patients.retracted-result-read.v1")
async def alert_readers(tx: Transaction, _: Envelope, read: RetractedResultRead) -> None:
    about = obligations.About(
        result_id=read.result_id,
        result_version=read.version,
        patient_id=read.patient_id,
        partner_id=read.partner_id,
    )
    place = Place(
        lab_order_id=read.lab_order_id,
        practitioner_id=read.practitioner_id,
        centre_id=read.centre_id,
        department_id=read.department_id,
    )
    await obligations.alert_readers(tx, about, (r.reader_id for r in read.readers), place=place)


@handlers.on("patients.care-relationship-started.v1", "patients.care-relationship-ended.v1")
async def keep_care_relationship(tx: Transaction, _: Envelope, told: care.ToldRelationship) -> None:
    await care.keep_told(tx, tables.care_relationship, told)
