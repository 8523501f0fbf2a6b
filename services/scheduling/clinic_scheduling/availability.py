"""When practitioners receive patients, and the free slots that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import InvalidRequestError, NotFoundError, ReferenceNotYetKnownError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from clinic_scheduling import store
from clinic_scheduling.domain import (
    AvailabilityException,
    CatalogueService,
    Interval,
    Resource,
    ResourceId,
    ResourceKind,
    WeeklyHours,
    starts_within,
    subtract,
)

MAX_WINDOW = timedelta(days=31)


class WindowTooLongError(InvalidRequestError):
    """Free times are computed for each search, so what one search covers is limited."""

    slug = "window-too-long"
    title = "At most 31 days can be searched at once"
    fix = "Search in parts, each beginning where the last ended."


@dataclass(frozen=True, kw_only=True)
class FreeSlot:
    """A time at which the service can be booked as asked: with this practitioner and this room."""

    time: Interval
    practitioner_id: ResourceId
    room_id: ResourceId | None


async def set_weekly_hours(
    tx: Transaction,
    practitioner_id: UUID,
    centre_id: UUID,
    hours: Sequence[WeeklyHours],
    *,
    caller: Principal,
) -> None:
    """Replace the practitioner's weekly hours at a centre. Appointments already made stay as they are."""
    caller.require_place(centre_id=centre_id)
    await _check_practitioner(tx, practitioner_id, centre_id)
    await store.replace_weekly_hours(tx, practitioner_id, centre_id, [(uuid7(), h) for h in hours])
    tx.audit(AuditEntry(action=Action.UPDATE, resource_type="Schedule", resource_id=practitioner_id))


async def add_exception(
    tx: Transaction,
    practitioner_id: UUID,
    centre_id: UUID,
    exception: AvailabilityException,
    *,
    reason_code: str | None,
    caller: Principal,
) -> UUID:
    """Close or open hours that the weekly pattern doesn't know of."""
    caller.require_place(centre_id=centre_id)
    await _check_practitioner(tx, practitioner_id, centre_id)
    exception_id = uuid7()
    await store.add_exception(
        tx,
        exception_id,
        practitioner_id=practitioner_id,
        centre_id=centre_id,
        exception=exception,
        reason_code=reason_code,
    )
    tx.audit(AuditEntry(action=Action.CREATE, resource_type="Schedule", resource_id=exception_id))
    return exception_id


async def find_slots(
    tx: Transaction,
    *,
    service_id: UUID,
    centre_id: UUID,
    department_id: UUID,
    window: Interval,
    practitioner_id: UUID | None,
    limit: int,
) -> list[FreeSlot]:
    """Return the earliest free slots of the department's practitioners, at most `limit`."""
    service = await _offered(tx, service_id, department_id)
    _check_window(window.starts_at, window.ends_at)
    practitioners = await store.list_resources(
        tx, kinds=[ResourceKind.PRACTITIONER], department_id=department_id
    )
    rooms = await _rooms(tx, service, centre_id=centre_id, department_id=department_id)
    taken = await store.list_allocations(tx, [r.resource_id for r in (*practitioners, *rooms)], window)
    slots: list[FreeSlot] = []
    for practitioner in practitioners:
        if practitioner_id not in {None, practitioner.resource_id}:
            continue
        availability = await store.find_availability(tx, practitioner.resource_id, centre_id, window)
        if availability is None:
            raise ReferenceNotYetKnownError("The centre is not known here yet.", reference="centre_id")
        free = subtract(availability.open_intervals(window), _times(taken, practitioner.resource_id))
        for start in starts_within(free, duration=service.duration, not_before=max(tx.now, window.starts_at)):
            time = Interval(start, start + service.duration)
            if time.ends_at > window.ends_at:
                break
            room = _free_room(rooms, taken, time)
            if room is not None or ResourceKind.ROOM not in service.needs:
                slots.append(FreeSlot(time=time, practitioner_id=practitioner.resource_id, room_id=room))
    return sorted(slots, key=lambda s: (s.time.starts_at, s.practitioner_id))[:limit]


async def _offered(tx: Transaction, service_id: UUID, department_id: UUID) -> CatalogueService:
    service = await store.find_service(tx, service_id)
    if service is None or not service.active or department_id not in service.department_ids:
        raise NotFoundError("The department doesn't offer this service.")
    return service


def _check_window(starts_at: datetime, ends_at: datetime) -> None:
    if not starts_at < ends_at:
        raise InvalidRequestError("The window must end after it begins.")
    if ends_at - starts_at > MAX_WINDOW:
        raise WindowTooLongError


async def _rooms(
    tx: Transaction, service: CatalogueService, *, centre_id: UUID, department_id: UUID
) -> list[Resource]:
    """Return rooms of the department, or of the whole centre when they are nobody's own."""
    if ResourceKind.ROOM not in service.needs:
        return []
    rooms = await store.list_resources(tx, kinds=[ResourceKind.ROOM], centre_id=centre_id)
    return [room for room in rooms if not room.department_ids or department_id in room.department_ids]


def _times(taken: Sequence[tuple[ResourceId, Interval]], resource_id: ResourceId) -> list[Interval]:
    return [time for taken_id, time in taken if taken_id == resource_id]


def _free_room(
    rooms: Sequence[Resource], taken: Sequence[tuple[ResourceId, Interval]], time: Interval
) -> ResourceId | None:
    busy = {resource_id for resource_id, held in taken if held.overlaps(time)}
    return next((room.resource_id for room in rooms if room.resource_id not in busy), None)


async def _check_practitioner(tx: Transaction, practitioner_id: UUID, centre_id: UUID) -> None:
    if await store.time_zone_of(tx, centre_id) is None:
        raise ReferenceNotYetKnownError("The centre is not known here yet.", reference="centre_id")
    if not await store.lock_resources(tx, [ResourceId(practitioner_id)]):
        raise ReferenceNotYetKnownError(
            "The practitioner is not known here yet.", reference="practitioner_id"
        )
