"""Scheduling's queries, each on the open transaction it is given."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from clinic_shared.database import Transaction
from clinic_shared.errors import ReferenceNotYetKnownError
from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import Range

from clinic_scheduling.domain import (
    Appointment,
    AppointmentId,
    AppointmentStatus,
    Availability,
    AvailabilityException,
    CatalogueService,
    Interval,
    Resource,
    ResourceId,
    ResourceKind,
    ServiceId,
    WeeklyHours,
)
from clinic_scheduling.tables import (
    allocation,
    appointment,
    availability_exception,
    centre,
    department,
    patient,
    referral,
    resource,
    service,
    weekly_hours,
)

# -- catalogue and resources


async def find_service(tx: Transaction, service_id: UUID) -> CatalogueService | None:
    row = await tx.fetch_one(select(service).where(service.c.service_id == service_id))
    return None if row is None else _service(row)


async def lock_service(tx: Transaction, service_id: UUID) -> CatalogueService | None:
    row = await tx.fetch_one(select(service).where(service.c.service_id == service_id).with_for_update())
    return None if row is None else _service(row)


async def list_services(tx: Transaction, *, after: UUID | None, limit: int) -> list[CatalogueService]:
    statement = select(service).order_by(service.c.service_id).limit(limit)
    if after is not None:
        statement = statement.where(service.c.service_id > after)
    return [_service(row) for row in await tx.fetch_all(statement)]


async def add_service(tx: Transaction, new: CatalogueService) -> None:
    await tx.execute(insert(service).values(_service_values(new)))


async def save_service(tx: Transaction, changed: CatalogueService) -> None:
    await tx.execute(
        update(service).where(service.c.service_id == changed.service_id).values(_service_values(changed))
    )


async def add_resource(tx: Transaction, new: Resource) -> None:
    await tx.execute(
        insert(resource).values(
            resource_id=new.resource_id,
            version=1,
            kind=new.kind.value,
            name=new.name,
            centre_id=new.centre_id,
            department_ids=list(new.department_ids),
            active=new.active,
        )
    )


async def list_resources(
    tx: Transaction,
    *,
    kinds: Sequence[ResourceKind],
    department_id: UUID | None = None,
    centre_id: UUID | None = None,
) -> list[Resource]:
    statement = select(resource).where(resource.c.kind.in_(kinds), resource.c.active)
    if department_id is not None:
        statement = statement.where(resource.c.department_ids.contains([department_id]))
    if centre_id is not None:
        statement = statement.where(resource.c.centre_id == centre_id)
    return [
        _resource(row) for row in await tx.fetch_all(statement.order_by(resource.c.resource_id).limit(500))
    ]


async def lock_resources(tx: Transaction, resource_ids: Sequence[ResourceId]) -> list[Resource]:
    """Lock what an appointment takes, in the order of ids: in any other, two bookings deadlock."""
    statement = (
        select(resource)
        .where(resource.c.resource_id.in_(resource_ids), resource.c.active)
        .order_by(resource.c.resource_id)
        .with_for_update(key_share=True)
    )
    return [_resource(row) for row in await tx.fetch_all(statement)]


# -- availability


async def find_availability(
    tx: Transaction, practitioner_id: UUID, centre_id: UUID, window: Interval
) -> Availability | None:
    """Return the hours that touch the window; None when the centre isn't known here."""
    zone = await time_zone_of(tx, centre_id)
    if zone is None:
        return None
    weekly = await tx.fetch_all(
        select(weekly_hours).where(
            weekly_hours.c.practitioner_id == practitioner_id, weekly_hours.c.centre_id == centre_id
        )
    )
    exceptions = await tx.fetch_all(
        select(availability_exception).where(
            availability_exception.c.practitioner_id == practitioner_id,
            availability_exception.c.centre_id == centre_id,
            availability_exception.c.during.overlaps(_range(window)),
        )
    )
    return Availability(
        zone=zone,
        weekly=[_weekly(row) for row in weekly],
        exceptions=[AvailabilityException(time=_interval(row.during), opens=row.opens) for row in exceptions],
    )


async def time_zone_of(tx: Transaction, centre_id: UUID) -> ZoneInfo | None:
    row = await tx.fetch_one(select(centre.c.time_zone).where(centre.c.centre_id == centre_id))
    return None if row is None else ZoneInfo(row.time_zone)


async def replace_weekly_hours(
    tx: Transaction,
    practitioner_id: UUID,
    centre_id: UUID,
    hours: Sequence[tuple[UUID, WeeklyHours]],
) -> None:
    """Put these weekly hours in the place of all earlier ones of the practitioner at the centre."""
    await tx.execute(
        delete(weekly_hours).where(
            weekly_hours.c.practitioner_id == practitioner_id, weekly_hours.c.centre_id == centre_id
        )
    )
    if hours:
        await tx.execute(
            insert(weekly_hours),
            [
                {
                    "weekly_hours_id": hours_id,
                    "practitioner_id": practitioner_id,
                    "centre_id": centre_id,
                    "weekday": h.weekday,
                    "starts_local": h.starts_local,
                    "ends_local": h.ends_local,
                    "valid_from": h.valid_from,
                    "valid_until": h.valid_until,
                }
                for hours_id, h in hours
            ],
        )


async def list_weekly_hours(tx: Transaction, practitioner_id: UUID, centre_id: UUID) -> list[WeeklyHours]:
    rows = await tx.fetch_all(
        select(weekly_hours)
        .where(weekly_hours.c.practitioner_id == practitioner_id, weekly_hours.c.centre_id == centre_id)
        .order_by(weekly_hours.c.weekday, weekly_hours.c.starts_local)
    )
    return [_weekly(row) for row in rows]


async def add_exception(
    tx: Transaction,
    exception_id: UUID,
    *,
    practitioner_id: UUID,
    centre_id: UUID,
    exception: AvailabilityException,
    reason_code: str | None,
) -> None:
    await tx.execute(
        insert(availability_exception).values(
            exception_id=exception_id,
            practitioner_id=practitioner_id,
            centre_id=centre_id,
            opens=exception.opens,
            during=_range(exception.time),
            reason_code=reason_code,
        )
    )


# -- appointments


async def find_appointment(tx: Transaction, appointment_id: UUID) -> Appointment | None:
    row = await tx.fetch_one(select(appointment).where(appointment.c.appointment_id == appointment_id))
    return None if row is None else _appointment(row)


async def lock_appointment(tx: Transaction, appointment_id: UUID) -> Appointment | None:
    row = await tx.fetch_one(
        select(appointment).where(appointment.c.appointment_id == appointment_id).with_for_update()
    )
    return None if row is None else _appointment(row)


async def list_appointments(
    tx: Transaction,
    *,
    limit: int,
    after: UUID | None = None,
    person: Collection[UUID] = (),
    department_id: UUID | None = None,
    practitioner_id: UUID | None = None,
    window: Interval | None = None,
    visible: ColumnElement[bool],
) -> list[Appointment]:
    """Return the `visible` ones of the appointments, by id; `person`: of these records of a patient alone."""
    statement = select(appointment).where(visible).order_by(appointment.c.appointment_id).limit(limit)
    if after is not None:
        statement = statement.where(appointment.c.appointment_id > after)
    if person:
        statement = statement.where(appointment.c.patient_id.in_(person))
    if department_id is not None:
        statement = statement.where(appointment.c.department_id == department_id)
    if practitioner_id is not None:
        statement = statement.where(appointment.c.practitioner_id == practitioner_id)
    if window is not None:
        statement = statement.where(
            appointment.c.starts_at < window.ends_at, appointment.c.ends_at > window.starts_at
        )
    return [_appointment(row) for row in await tx.fetch_all(statement)]


async def add_appointment(tx: Transaction, new: Appointment) -> None:
    await tx.execute(insert(appointment).values(_appointment_values(new)))


async def save_appointment(tx: Transaction, changed: Appointment) -> None:
    await tx.execute(
        update(appointment)
        .where(appointment.c.appointment_id == changed.appointment_id)
        .values(_appointment_values(changed))
    )


async def allocate(tx: Transaction, booked: Appointment) -> None:
    """Take the appointment's resources for its time. Violates `allocation_no_overlap` when one is taken."""
    during = _range(booked.time)
    rows = [
        {"appointment_id": booked.appointment_id, "resource_id": r, "during": during}
        for r in booked.resource_ids
    ]
    if rows:
        await tx.execute(insert(allocation), rows)


async def release(tx: Transaction, appointment_id: AppointmentId) -> None:
    await tx.execute(delete(allocation).where(allocation.c.appointment_id == appointment_id))


async def list_allocations(
    tx: Transaction, resource_ids: Sequence[UUID], window: Interval
) -> list[tuple[ResourceId, Interval]]:
    """Return what is taken of these resources within the window."""
    rows = await tx.fetch_all(
        select(allocation.c.resource_id, allocation.c.during)
        .where(
            and_(
                allocation.c.resource_id.in_(resource_ids),
                allocation.c.during.overlaps(_range(window)),
            )
        )
        .order_by(func.lower(allocation.c.during))
    )
    return [(ResourceId(row.resource_id), _interval(row.during)) for row in rows]


async def is_department_of(tx: Transaction, department_id: UUID, centre_id: UUID) -> bool | None:
    """Return whether the open department belongs to the centre; None when it isn't known here."""
    row = await tx.fetch_one(select(department).where(department.c.department_id == department_id))
    return None if row is None else row.active and row.centre_id == centre_id


async def is_patient_known(tx: Transaction, patient_id: UUID) -> bool:
    row = await tx.fetch_one(
        select(patient.c.patient_id).where(patient.c.patient_id == patient_id, patient.c.active)
    )
    return row is not None


async def find_referral(tx: Transaction, referral_id: UUID) -> Row[Any] | None:
    return await tx.fetch_one(select(referral).where(referral.c.referral_id == referral_id))


@dataclass(frozen=True)
class Names:
    """What events tell besides the appointment itself, for messages to the patient."""

    time_zone: str
    service_name: str
    practitioner_name: str | None


async def names_for(tx: Transaction, booked: Appointment) -> Names:
    """Return the centre's zone and the names of service and practitioner, in one query."""
    row = await tx.fetch_one(
        select(centre.c.time_zone, service.c.name, resource.c.name.label("practitioner_name"))
        .select_from(
            service.join(centre, centre.c.centre_id == booked.centre_id).outerjoin(
                resource, resource.c.resource_id == booked.practitioner_id
            )
        )
        .where(service.c.service_id == booked.service_id)
    )
    if row is None:
        raise ReferenceNotYetKnownError("The centre is not known here yet.", reference="centre_id")
    return Names(row.time_zone, row.name, row.practitioner_name)


# -- rows to values and back


def _service(row: Row[Any]) -> CatalogueService:
    return CatalogueService(
        service_id=ServiceId(row.service_id),
        version=row.version,
        code=row.code,
        name=row.name,
        duration=row.duration,
        department_ids=tuple(row.department_ids),
        needs=tuple(ResourceKind(need) for need in row.needs),
        online_bookable=row.online_bookable,
        active=row.active,
        defined_at=row.defined_at,
    )


def _service_values(value: CatalogueService) -> dict[str, Any]:
    return {
        "service_id": value.service_id,
        "version": value.version,
        "code": value.code,
        "name": value.name,
        "duration": value.duration,
        "department_ids": list(value.department_ids),
        "needs": [need.value for need in value.needs],
        "online_bookable": value.online_bookable,
        "active": value.active,
        "defined_at": value.defined_at,
    }


def _resource(row: Row[Any]) -> Resource:
    return Resource(
        resource_id=ResourceId(row.resource_id),
        kind=ResourceKind(row.kind),
        name=row.name,
        centre_id=row.centre_id,
        department_ids=tuple(row.department_ids),
        active=row.active,
    )


def _weekly(row: Row[Any]) -> WeeklyHours:
    return WeeklyHours(
        weekday=row.weekday,
        starts_local=row.starts_local,
        ends_local=row.ends_local,
        valid_from=row.valid_from,
        valid_until=row.valid_until,
    )


def _appointment(row: Row[Any]) -> Appointment:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    starts_at: datetime = values.pop("starts_at")
    ends_at: datetime = values.pop("ends_at")
    status = AppointmentStatus(values.pop("status"))
    device_ids = tuple(values.pop("device_ids"))
    return Appointment(time=Interval(starts_at, ends_at), status=status, device_ids=device_ids, **values)


def _appointment_values(value: Appointment) -> dict[str, Any]:
    values = {column.name: getattr(value, column.name, None) for column in appointment.columns}
    return values | {
        "status": value.status.value,
        "device_ids": list(value.device_ids),
        "starts_at": value.time.starts_at,
        "ends_at": value.time.ends_at,
    }


def _range(interval: Interval) -> Range[datetime]:
    return Range(interval.starts_at, interval.ends_at, bounds="[)")


def _interval(during: Range[datetime]) -> Interval:
    # The columns hold bounded ranges only.
    return Interval(cast("datetime", during.lower), cast("datetime", during.upper))
