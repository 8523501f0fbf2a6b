"""HTTP in: the catalogue, availability, free slots and appointments."""

from typing import Annotated
from uuid import UUID

from clinic_shared.routing import (
    Caller,
    ClinicRouter,
    Idempotency,
    IfMatch,
    Page,
    PageQuery,
    RequiredIfMatch,
    Tx,
    etag,
    page_of,
)
from fastapi import Query, Response
from pydantic import AwareDatetime

from clinic_scheduling import availability, booking, catalogue, store
from clinic_scheduling.domain import AppointmentStatus, AvailabilityException, Interval, ResourceKind
from clinic_scheduling.models import (
    AppointmentResponse,
    AvailabilityBody,
    BookRequest,
    CancelRequest,
    ExceptionRequest,
    ExceptionResponse,
    RescheduleRequest,
    ResourceResponse,
    RoomRequest,
    ServiceRequest,
    ServiceResponse,
    SlotResponse,
    WeeklyHoursBody,
)

router = ClinicRouter(tags=["scheduling"])


@router.post("/v1/services", permission="catalogue.manage", status_code=201, operation_id="defineService")
async def define_service(tx: Tx, body: ServiceRequest) -> ServiceResponse:
    """Offer a service. Its code is what prices and reports know it by, and never changes."""
    return ServiceResponse.of(await catalogue.define_service(tx, body.command()))


@router.get("/v1/services", permission="catalogue.read", operation_id="listServices")
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


@router.get("/v1/practitioners", permission="catalogue.read", operation_id="listPractitioners")
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


@router.get("/v1/rooms", permission="catalogue.read", operation_id="listRooms")
async def list_rooms(tx: Tx, centre_id: UUID) -> list[ResourceResponse]:
    """List a centre's rooms and devices; at most 500."""
    kinds = [ResourceKind.ROOM, ResourceKind.DEVICE]
    return [ResourceResponse.of(r) for r in await store.list_resources(tx, kinds=kinds, centre_id=centre_id)]


@router.put("/v1/availability", permission="availability.manage", operation_id="setAvailability")
async def set_availability(tx: Tx, caller: Caller, body: AvailabilityBody) -> AvailabilityBody:
    """Replace a practitioner's weekly hours at a centre, in the centre's wall-clock time."""
    hours = [h.hours() for h in body.weekly]
    await availability.set_weekly_hours(tx, body.practitioner_id, body.centre_id, hours, caller=caller)
    return body


@router.get("/v1/availability", permission="availability.read", operation_id="getAvailability")
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


@router.get(
    "/v1/appointments/{appointment_id}", permission="appointments.read", operation_id="getAppointment"
)
async def get_appointment(
    tx: Tx, caller: Caller, appointment_id: UUID, response: Response
) -> AppointmentResponse:
    """Return one appointment; the ETag is its version, for If-Match."""
    appointment = await booking.read_appointment(tx, appointment_id, caller=caller)
    response.headers["ETag"] = etag(appointment.version)
    return AppointmentResponse.of(appointment)


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
    "/v1/appointments/{appointment_id}/cancel",
    permission="appointments.book",
    operation_id="cancelAppointment",
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
    "/v1/appointments/{appointment_id}/confirm",
    permission="appointments.book",
    operation_id="confirmAppointment",
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
