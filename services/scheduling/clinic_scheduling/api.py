"""HTTP in: the catalogue, availability, free slots and appointments."""

from datetime import date, datetime, time, timedelta
from typing import Annotated, Literal
from uuid import UUID

from clinic_shared.paging import Page, PageQuery, page_of
from clinic_shared.routing import Caller, ClinicRouter, Idempotency, IfMatch, RequiredIfMatch, Tx
from fastapi import Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from clinic_scheduling import availability, booking, catalogue, store
from clinic_scheduling.domain import (
    Appointment,
    AppointmentStatus,
    AvailabilityException,
    CatalogueService,
    Interval,
    Resource,
    ResourceKind,
    WeeklyHours,
)

router = ClinicRouter(tags=["scheduling"])

Code = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")]
Label = Annotated[str, Field(min_length=1, max_length=200)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


# -- catalogue


class ServiceRequest(Request):
    code: Code
    name: Label
    duration_seconds: Annotated[int, Field(ge=300, le=86_400)]
    department_ids: Annotated[list[UUID], Field(min_length=1, max_length=200)]
    needs: list[ResourceKind] = [ResourceKind.PRACTITIONER]
    online_bookable: bool = True

    def command(self) -> catalogue.DefineService:
        return catalogue.DefineService(
            code=self.code,
            name=self.name,
            duration=timedelta(seconds=self.duration_seconds),
            department_ids=tuple(self.department_ids),
            needs=tuple(dict.fromkeys(self.needs)),
            online_bookable=self.online_bookable,
        )


class ServiceResponse(BaseModel):
    service_id: UUID
    version: int
    code: str
    name: str
    status: Literal["active", "withdrawn"]
    duration_seconds: int
    department_ids: list[UUID]
    needs: list[ResourceKind]
    online_bookable: bool

    @classmethod
    def of(cls, service: CatalogueService) -> "ServiceResponse":
        return cls(
            service_id=service.service_id,
            version=service.version,
            code=service.code,
            name=service.name,
            status="active" if service.active else "withdrawn",
            duration_seconds=int(service.duration.total_seconds()),
            department_ids=list(service.department_ids),
            needs=list(service.needs),
            online_bookable=service.online_bookable,
        )


@router.post("/v1/services", permission="catalogue.manage", status_code=201, operation_id="defineService")
async def define_service(tx: Tx, body: ServiceRequest) -> ServiceResponse:
    """Offer a service. Its code is what prices and reports know it by, and never changes."""
    return ServiceResponse.of(await catalogue.define_service(tx, body.command()))


@router.get("/v1/services", permission="slots.read", operation_id="listServices")
async def list_services(tx: Tx, page: PageQuery) -> Page[ServiceResponse]:
    """List the catalogue, withdrawn services included."""
    found = await store.list_services(tx, after=page.after, limit=page.limit + 1)
    return page_of([ServiceResponse.of(s) for s in found], page, key=lambda s: s.service_id)


@router.put("/v1/services/{service_id}", permission="catalogue.manage", operation_id="changeService")
async def change_service(
    tx: Tx, service_id: UUID, body: ServiceRequest, expected: RequiredIfMatch
) -> ServiceResponse:
    """Change a service; appointments already made keep their length."""
    changed = await catalogue.change_service(tx, service_id, body.command(), expected_version=expected)
    return ServiceResponse.of(changed)


@router.post(
    "/v1/services/{service_id}/withdraw", permission="catalogue.manage", operation_id="withdrawService"
)
async def withdraw_service(tx: Tx, service_id: UUID, expected: IfMatch) -> ServiceResponse:
    """Stop offering a service; what is booked stays booked."""
    return ServiceResponse.of(await catalogue.withdraw_service(tx, service_id, expected_version=expected))


# -- practitioners, rooms, devices


class ResourceResponse(BaseModel):
    resource_id: UUID
    kind: ResourceKind
    name: str | None
    centre_id: UUID | None
    department_ids: list[UUID]

    @classmethod
    def of(cls, resource: Resource) -> "ResourceResponse":
        return cls(
            resource_id=resource.resource_id,
            kind=resource.kind,
            name=resource.name,
            centre_id=resource.centre_id,
            department_ids=list(resource.department_ids),
        )


class RoomRequest(Request):
    kind: Literal[ResourceKind.ROOM, ResourceKind.DEVICE] = ResourceKind.ROOM
    name: Label
    centre_id: UUID
    department_ids: Annotated[list[UUID], Field(max_length=200)] = []


@router.get("/v1/practitioners", permission="slots.read", operation_id="listPractitioners")
async def list_practitioners(tx: Tx, department_id: UUID | None = None) -> list[ResourceResponse]:
    """List practitioners who receive patients, of one department or all; at most 500."""
    found = await store.list_resources(tx, kinds=[ResourceKind.PRACTITIONER], department_id=department_id)
    return [ResourceResponse.of(r) for r in found]


@router.post("/v1/rooms", permission="catalogue.manage", status_code=201, operation_id="addRoom")
async def add_room(tx: Tx, caller: Caller, body: RoomRequest) -> ResourceResponse:
    """Add a room or a device. Without departments it serves the whole centre."""
    added = await catalogue.add_room_or_device(
        tx,
        kind=body.kind,
        name=body.name,
        centre_id=body.centre_id,
        department_ids=tuple(body.department_ids),
        caller=caller,
    )
    return ResourceResponse.of(added)


@router.get("/v1/rooms", permission="slots.read", operation_id="listRooms")
async def list_rooms(tx: Tx, centre_id: UUID) -> list[ResourceResponse]:
    """List a centre's rooms and devices; at most 500."""
    kinds = [ResourceKind.ROOM, ResourceKind.DEVICE]
    return [ResourceResponse.of(r) for r in await store.list_resources(tx, kinds=kinds, centre_id=centre_id)]


# -- availability and slots


class WeeklyHoursBody(Request):
    weekday: Annotated[int, Field(ge=0, le=6, description="0 is Monday")]
    starts_local: Annotated[time, Field(description="Wall-clock time of the centre")]
    ends_local: time
    valid_from: date = date(2000, 1, 1)
    valid_until: Annotated[date | None, Field(description="Exclusive")] = None

    def hours(self) -> WeeklyHours:
        return WeeklyHours(**self.model_dump())


class AvailabilityBody(Request):
    practitioner_id: UUID
    centre_id: UUID
    weekly: Annotated[list[WeeklyHoursBody], Field(max_length=200)]


class ExceptionRequest(Request):
    practitioner_id: UUID
    centre_id: UUID
    opens: Annotated[bool, Field(description="true adds hours, false takes them away")]
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    reason_code: Code | None = None


class ExceptionResponse(BaseModel):
    exception_id: UUID


class SlotResponse(BaseModel):
    starts_at: datetime
    ends_at: datetime
    practitioner_id: UUID
    room_id: UUID | None


@router.put("/v1/availability", permission="availability.manage", operation_id="setAvailability")
async def set_availability(tx: Tx, caller: Caller, body: AvailabilityBody) -> AvailabilityBody:
    """Replace a practitioner's weekly hours at a centre, in the centre's wall-clock time."""
    hours = [h.hours() for h in body.weekly]
    await availability.set_weekly_hours(tx, body.practitioner_id, body.centre_id, hours, caller=caller)
    return body


@router.get("/v1/availability", permission="slots.read", operation_id="getAvailability")
async def get_availability(tx: Tx, practitioner_id: UUID, centre_id: UUID) -> AvailabilityBody:
    """Return a practitioner's weekly hours at a centre."""
    hours = await store.list_weekly_hours(tx, practitioner_id, centre_id)
    weekly = [
        WeeklyHoursBody(
            weekday=h.weekday,
            starts_local=h.starts_local,
            ends_local=h.ends_local,
            valid_from=h.valid_from,
            valid_until=h.valid_until,
        )
        for h in hours
    ]
    return AvailabilityBody(practitioner_id=practitioner_id, centre_id=centre_id, weekly=weekly)


@router.post(
    "/v1/availability/exceptions",
    permission="availability.manage",
    status_code=201,
    operation_id="addAvailabilityException",
)
async def add_exception(tx: Tx, caller: Caller, body: ExceptionRequest) -> ExceptionResponse:
    """Close hours (leave, illness) or open extra ones."""
    exception = AvailabilityException(time=Interval(body.starts_at, body.ends_at), opens=body.opens)
    exception_id = await availability.add_exception(
        tx, body.practitioner_id, body.centre_id, exception, reason_code=body.reason_code, caller=caller
    )
    return ExceptionResponse(exception_id=exception_id)


@router.get("/v1/slots", permission="slots.read", operation_id="findSlots")
async def find_slots(
    tx: Tx,
    service_id: UUID,
    centre_id: UUID,
    department_id: UUID,
    starts_at: AwareDatetime,
    ends_at: AwareDatetime,
    practitioner_id: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> list[SlotResponse]:
    """Find the earliest free times. A slot may be gone by the time it is booked; booking then says so."""
    slots = await availability.find_slots(
        tx,
        service_id=service_id,
        centre_id=centre_id,
        department_id=department_id,
        window=Interval(starts_at, ends_at),
        practitioner_id=practitioner_id,
        limit=limit,
    )
    return [
        SlotResponse(
            starts_at=s.time.starts_at,
            ends_at=s.time.ends_at,
            practitioner_id=s.practitioner_id,
            room_id=s.room_id,
        )
        for s in slots
    ]


# -- appointments


class BookRequest(Request):
    patient_id: UUID
    service_id: UUID
    centre_id: UUID
    department_id: UUID
    starts_at: AwareDatetime
    practitioner_id: UUID | None = None
    room_id: UUID | None = None
    device_ids: Annotated[list[UUID], Field(max_length=20)] = []
    referral_id: UUID | None = None
    reason: Annotated[str | None, Field(max_length=1000)] = None
    booked_through: Code = "registry"

    def command(self) -> booking.BookAppointment:
        values = self.model_dump()
        return booking.BookAppointment(**{**values, "device_ids": tuple(self.device_ids)})


class RescheduleRequest(Request):
    starts_at: AwareDatetime
    practitioner_id: Annotated[UUID | None, Field(description="Absent: the same as before")] = None
    room_id: UUID | None = None


class CancelRequest(Request):
    reason_code: Code = "patient"


class AppointmentResponse(BaseModel):
    appointment_id: UUID
    version: int
    status: AppointmentStatus
    patient_id: UUID
    practitioner_id: UUID | None
    room_id: UUID | None
    device_ids: list[UUID]
    service_id: UUID
    service_code: str
    centre_id: UUID
    department_id: UUID
    starts_at: datetime
    ends_at: datetime
    referral_id: UUID | None
    reason: str | None
    booked_at: datetime
    cancellation_reason_code: str | None

    @classmethod
    def of(cls, appointment: Appointment) -> "AppointmentResponse":
        return cls(
            appointment_id=appointment.appointment_id,
            version=appointment.version,
            status=appointment.status,
            patient_id=appointment.patient_id,
            practitioner_id=appointment.practitioner_id,
            room_id=appointment.room_id,
            device_ids=list(appointment.device_ids),
            service_id=appointment.service_id,
            service_code=appointment.service_code,
            centre_id=appointment.centre_id,
            department_id=appointment.department_id,
            starts_at=appointment.time.starts_at,
            ends_at=appointment.time.ends_at,
            referral_id=appointment.referral_id,
            reason=appointment.reason,
            booked_at=appointment.booked_at,
            cancellation_reason_code=appointment.cancellation_reason_code,
        )


@router.post(
    "/v1/appointments",
    permission="appointments.book",
    idempotency=Idempotency.REQUIRED,
    status_code=201,
    operation_id="bookAppointment",
)
async def book_appointment(tx: Tx, caller: Caller, body: BookRequest) -> AppointmentResponse:
    """Book. 409 `slot-taken` lists every conflict; nothing is held then.

    The confirmation to the patient is on its way when this answers, not yet delivered.
    """
    return AppointmentResponse.of(await booking.book_appointment(tx, body.command(), caller=caller))


@router.get("/v1/appointments", permission="appointments.read", operation_id="listAppointments")
async def list_appointments(
    tx: Tx,
    caller: Caller,
    page: PageQuery,
    patient_id: UUID | None = None,
    department_id: UUID | None = None,
    practitioner_id: UUID | None = None,
    starts_at: AwareDatetime | None = None,
    ends_at: AwareDatetime | None = None,
) -> Page[AppointmentResponse]:
    """List appointments the caller may see; with a window, those that touch it."""
    found = await booking.list_appointments(
        tx,
        caller=caller,
        patient_id=patient_id,
        department_id=department_id,
        practitioner_id=practitioner_id,
        window=Interval(starts_at, ends_at) if starts_at and ends_at else None,
        after=page.after,
        limit=page.limit + 1,
    )
    return page_of([AppointmentResponse.of(a) for a in found], page, key=lambda a: a.appointment_id)


@router.get("/v1/appointments/{appointment_id}", permission="appointments.read", operation_id="getAppointment")
async def get_appointment(tx: Tx, caller: Caller, appointment_id: UUID) -> AppointmentResponse:
    """Return one appointment; the ETag is its version."""
    return AppointmentResponse.of(await booking.read_appointment(tx, appointment_id, caller=caller))


@router.post(
    "/v1/appointments/{appointment_id}/reschedule",
    permission="appointments.book",
    operation_id="rescheduleAppointment",
)
async def reschedule_appointment(
    tx: Tx, caller: Caller, appointment_id: UUID, body: RescheduleRequest, expected: IfMatch
) -> AppointmentResponse:
    """Move the appointment in one step; it keeps its id, and the old time if the new one is taken."""
    moved = await booking.reschedule_appointment(
        tx,
        appointment_id,
        starts_at=body.starts_at,
        practitioner_id=body.practitioner_id,
        room_id=body.room_id,
        caller=caller,
        expected_version=expected,
    )
    return AppointmentResponse.of(moved)


@router.post(
    "/v1/appointments/{appointment_id}/cancel", permission="appointments.book", operation_id="cancelAppointment"
)
async def cancel_appointment(
    tx: Tx, caller: Caller, appointment_id: UUID, body: CancelRequest, expected: IfMatch
) -> AppointmentResponse:
    """Give the time back. Pending reminders are dropped with it."""
    cancelled = await booking.cancel_appointment(
        tx, appointment_id, reason_code=body.reason_code, caller=caller, expected_version=expected
    )
    return AppointmentResponse.of(cancelled)


@router.post(
    "/v1/appointments/{appointment_id}/confirm", permission="appointments.book", operation_id="confirmAppointment"
)
async def confirm_appointment(
    tx: Tx, caller: Caller, appointment_id: UUID, expected: IfMatch
) -> AppointmentResponse:
    """The patient says they will come."""
    return await _advance(tx, caller, appointment_id, AppointmentStatus.CONFIRMED, expected)


@router.post(
    "/v1/appointments/{appointment_id}/arrive", permission="appointments.manage", operation_id="recordArrival"
)
async def record_arrival(
    tx: Tx, caller: Caller, appointment_id: UUID, expected: IfMatch
) -> AppointmentResponse:
    """The patient is here."""
    return await _advance(tx, caller, appointment_id, AppointmentStatus.ARRIVED, expected)


@router.post(
    "/v1/appointments/{appointment_id}/complete",
    permission="appointments.manage",
    operation_id="completeAppointment",
)
async def complete_appointment(
    tx: Tx, caller: Caller, appointment_id: UUID, expected: IfMatch
) -> AppointmentResponse:
    """The visit has taken place; billing invoices it from here."""
    return await _advance(tx, caller, appointment_id, AppointmentStatus.COMPLETED, expected)


@router.post(
    "/v1/appointments/{appointment_id}/miss", permission="appointments.manage", operation_id="recordNoShow"
)
async def record_no_show(
    tx: Tx, caller: Caller, appointment_id: UUID, expected: IfMatch
) -> AppointmentResponse:
    """The patient didn't come; the rest of the time is free again."""
    return await _advance(tx, caller, appointment_id, AppointmentStatus.MISSED, expected)


async def _advance(
    tx: Tx, caller: Caller, appointment_id: UUID, status: AppointmentStatus, expected: int | None
) -> AppointmentResponse:
    moved = await booking.advance_appointment(
        tx, appointment_id, status, caller=caller, expected_version=expected
    )
    return AppointmentResponse.of(moved)
