"""Events in: what invoicing needs of identity, patients and scheduling, and what is to be invoiced."""

from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from clinic_shared import merges
from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.merges import TOLD_BY, ToldMerge
from clinic_shared.projections import keep_newer
from pydantic import BaseModel

from clinic_billing import export, invoicing, store, tables
from clinic_billing.domain import Attention, ChargeItem

handlers = Handlers("billing")
handlers.include(export.handlers)


class Centre(BaseModel):
    centre_id: UUID
    version: int
    legal_entity_id: UUID
    legal_entity_name: str
    currency: str
    time_zone: str
    status: str


class Department(BaseModel):
    department_id: UUID
    version: int
    centre_id: UUID
    name: str
    status: str


class Patient(BaseModel):
    patient_id: UUID
    version: int
    status: str


class CatalogueService(BaseModel):
    service_id: UUID
    version: int
    code: str
    name: str
    status: str


class Visit(BaseModel):
    appointment_id: UUID
    patient_id: UUID
    centre_id: UUID
    department_id: UUID
    service_code: str
    starts_at: datetime
    time_zone: str


class Test(BaseModel):
    code: str


class LabOrder(BaseModel):
    lab_order_id: UUID
    patient_id: UUID
    centre_id: UUID
    department_id: UUID
    tests: list[Test]
    placed_at: datetime


class CancelledLabOrder(BaseModel):
    lab_order_id: UUID


@handlers.on("identity.centre-opened.v1", "identity.centre-changed.v1")
async def keep_centre(tx: Transaction, _: Envelope, centre: Centre) -> None:
    """Visits may have waited for the centre, as they wait for prices."""
    await store.hold_prices(tx, centre.centre_id, exclusive=True)
    newer = await keep_newer(
        tx,
        tables.centre,
        {
            "centre_id": centre.centre_id,
            "version": centre.version,
            "legal_entity_id": centre.legal_entity_id,
            "legal_entity_name": centre.legal_entity_name,
            "currency": centre.currency,
            "time_zone": centre.time_zone,
            "active": centre.status == "active",
        },
    )
    if newer:
        await invoicing.invoice_waiting_visits(
            tx, centre.centre_id, cause=centre.centre_id, cause_version=centre.version
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
            "name": department.name,
            "active": department.status == "active",
        },
    )


@handlers.on("patients.patient-registered.v1")
async def keep_patient(tx: Transaction, _: Envelope, patient: Patient) -> None:
    await keep_newer(
        tx,
        tables.patient,
        {
            "patient_id": patient.patient_id,
            "version": patient.version,
            "active": patient.status == "active",
        },
    )


@handlers.on(*TOLD_BY)
async def keep_merge(tx: Transaction, _: Envelope, told: ToldMerge) -> None:
    """Nothing is moved: what is owed and paid keeps the record that it was written to, and is read by person."""
    await merges.keep_told(tx, tables.patient_merge, told)


@handlers.on(
    "scheduling.service-defined.v1", "scheduling.service-changed.v1", "scheduling.service-withdrawn.v1"
)
async def keep_service(tx: Transaction, _: Envelope, service: CatalogueService) -> None:
    await keep_newer(
        tx,
        tables.service,
        {
            "service_id": service.service_id,
            "version": service.version,
            "code": service.code,
            "name": service.name,
            "active": service.status == "active",
        },
    )


@handlers.on("scheduling.appointment-completed.v1")
async def invoice_visit(tx: Transaction, _: Envelope, visit: Visit) -> None:
    """The price is that of the day of the visit, where the visit was."""
    item = ChargeItem(
        appointment_id=visit.appointment_id,
        patient_id=visit.patient_id,
        centre_id=visit.centre_id,
        department_id=visit.department_id,
        service_code=visit.service_code,
        rendered_on=visit.starts_at.astimezone(ZoneInfo(visit.time_zone)).date(),
        recorded_at=tx.now,
    )
    await invoicing.record_visit(tx, item)


@handlers.on("scheduling.appointment-cancelled.v1")
async def withdraw_cancelled_visit(tx: Transaction, _: Envelope, visit: Visit) -> None:
    await invoicing.withdraw_visit(tx, visit.appointment_id, why=Attention.VISIT_CANCELLED)


@handlers.on("scheduling.appointment-missed.v1")
async def withdraw_missed_visit(tx: Transaction, _: Envelope, visit: Visit) -> None:
    await invoicing.withdraw_visit(tx, visit.appointment_id, why=Attention.VISIT_MISSED)


@handlers.on("lab-integration.lab-order-placed.v1")
async def invoice_lab_order(tx: Transaction, _: Envelope, order: LabOrder) -> None:
    await invoicing.record_lab_order(
        tx,
        lab_order_id=order.lab_order_id,
        patient_id=order.patient_id,
        centre_id=order.centre_id,
        department_id=order.department_id,
        test_codes=[test.code for test in order.tests],
        placed_at=order.placed_at,
    )


@handlers.on("lab-integration.lab-order-cancelled.v1")
async def withdraw_cancelled_lab_order(tx: Transaction, _: Envelope, order: CancelledLabOrder) -> None:
    await invoicing.withdraw_lab_order(tx, order.lab_order_id)
