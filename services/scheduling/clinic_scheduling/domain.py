"""The rules of booking, pure: an appointment's life, and when a practitioner is free.

Intervals are half-open: an appointment that ends at 10:00 doesn't touch one that begins then.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from typing import Any, NewType
from uuid import UUID
from zoneinfo import ZoneInfo

from clinic_shared.errors import DomainError, InvalidRequestError

AppointmentId = NewType("AppointmentId", UUID)
ResourceId = NewType("ResourceId", UUID)
ServiceId = NewType("ServiceId", UUID)

SLOT_GRID = timedelta(minutes=15)


class AppointmentStatus(StrEnum):
    """contracts/taxonomy/appointment-status.yaml; FHIR R4 Appointment.status beside each."""

    BOOKED = "booked"  # booked
    CONFIRMED = "confirmed"  # booked, confirmed by the patient
    ARRIVED = "arrived"  # arrived
    COMPLETED = "completed"  # fulfilled
    CANCELLED = "cancelled"  # cancelled
    MISSED = "missed"  # noshow


EXPECTED = (AppointmentStatus.BOOKED, AppointmentStatus.CONFIRMED)
"""The patient is still expected: the time may be moved or given up."""

_MOVES = {
    AppointmentStatus.CONFIRMED: (AppointmentStatus.BOOKED,),
    AppointmentStatus.ARRIVED: EXPECTED,
    AppointmentStatus.COMPLETED: (AppointmentStatus.ARRIVED,),
    AppointmentStatus.CANCELLED: EXPECTED,
    AppointmentStatus.MISSED: EXPECTED,
}


class ResourceKind(StrEnum):
    PRACTITIONER = "practitioner"
    ROOM = "room"
    DEVICE = "device"


class IllegalMoveError(DomainError):
    """Booked or confirmed, it can be moved, cancelled or missed; once the patient arrived, only completed."""

    slug = "illegal-status-change"
    title = "The appointment's status doesn't allow this"
    fix = "Read the appointment again: its status says what has happened to it. For another visit, book anew."


class SlotTakenError(DomainError):
    """Another appointment overlaps and has the same practitioner, room or device."""

    slug = "slot-taken"
    title = "Someone or something that this appointment needs is taken at that time"
    fix = "Choose another time or resource; `conflicts` lists all that is taken, to make one try enough."


class OutsideAvailabilityError(DomainError):
    """The time isn't wholly within the practitioner's availability at this centre."""

    slug = "outside-availability"
    title = "The practitioner doesn't receive patients at that time"
    fix = "Choose a time from `GET /v1/slots`, or change the practitioner's availability first."


class AppointmentInThePastError(InvalidRequestError):
    """The requested time had passed when the request arrived."""

    slug = "appointment-in-the-past"
    title = "An appointment can't begin in the past"
    fix = "Choose a later time; check the UTC offset of `starts_at`."


class MissingResourceError(InvalidRequestError):
    """The catalogue says which kinds of resource a service takes; the booking names one of each."""

    slug = "missing-resource"
    title = "The service needs a resource that the request doesn't name"
    fix = "Name one of each kind that `missing` lists."


class NotOfferedError(InvalidRequestError):
    """The service is withdrawn or another department's, or a resource works elsewhere."""

    slug = "not-offered"
    title = "The department doesn't offer this service"
    fix = "Book what `GET /v1/slots` offers; `detail` says what didn't fit."


class ReferralMismatchError(DomainError):
    """The booking names a referral of another patient, or to another department."""

    slug = "referral-mismatch"
    title = "The referral is not an accepted one of this patient to this department"
    fix = "Name the right referral, or book without one."


@dataclass(frozen=True)
class Interval:
    """Half-open: from `starts_at`, up to but without `ends_at`. Both aware, in UTC."""

    starts_at: datetime
    ends_at: datetime

    def overlaps(self, other: "Interval") -> bool:
        return self.starts_at < other.ends_at and other.starts_at < self.ends_at

    def contains(self, other: "Interval") -> bool:
        return self.starts_at <= other.starts_at and other.ends_at <= self.ends_at


@dataclass(frozen=True, kw_only=True)
class CatalogueService:
    """Something the clinic offers: its length, who offers it, and the kinds of resource it takes."""

    service_id: ServiceId
    version: int
    code: str
    name: str
    duration: timedelta
    department_ids: tuple[UUID, ...]
    needs: tuple[ResourceKind, ...]
    online_bookable: bool
    active: bool
    defined_at: datetime


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A practitioner, room or device: what can be in only one appointment at a time."""

    resource_id: ResourceId
    kind: ResourceKind
    name: str | None
    centre_id: UUID | None
    department_ids: tuple[UUID, ...]
    active: bool


@dataclass(frozen=True, kw_only=True)
class Appointment:
    """An agreed time. `version` grows with every change; timers keyed by an older one are void."""

    appointment_id: AppointmentId
    version: int
    status: AppointmentStatus
    patient_id: UUID
    practitioner_id: ResourceId | None
    room_id: ResourceId | None
    device_ids: tuple[ResourceId, ...]
    service_id: ServiceId
    service_code: str
    centre_id: UUID
    department_id: UUID
    time: Interval
    referral_id: UUID | None
    booked_through: str
    booked_at: datetime
    reason: str | None = None
    confirmed_at: datetime | None = None
    arrived_at: datetime | None = None
    completed_at: datetime | None = None
    cancelled_at: datetime | None = None
    missed_at: datetime | None = None
    cancellation_reason_code: str | None = None

    @property
    def resource_ids(self) -> tuple[ResourceId, ...]:
        """Sorted: whoever takes several resources takes them in this order, so nobody deadlocks."""
        named = (self.practitioner_id, self.room_id, *self.device_ids)
        return tuple(sorted(r for r in named if r is not None))

    def moved_to(self, status: AppointmentStatus, *, now: datetime) -> "Appointment":
        """Return the appointment in its next status. Raises IllegalMoveError."""
        if self.status not in _MOVES.get(status, ()):
            raise IllegalMoveError(f"From {self.status} there is no way to {status}.", status=self.status)
        stamped: dict[str, Any] = {f"{status.value}_at": now}
        return replace(self, status=status, version=self.version + 1, **stamped)

    def cancelled(self, *, reason_code: str, now: datetime) -> "Appointment":
        moved = self.moved_to(AppointmentStatus.CANCELLED, now=now)
        return replace(moved, cancellation_reason_code=reason_code)

    def rescheduled(
        self, time: Interval, *, practitioner_id: ResourceId | None, room_id: ResourceId | None
    ) -> "Appointment":
        """Return the same appointment at another time; a confirmation of the old time is void."""
        if self.status not in EXPECTED:
            raise IllegalMoveError("Only an expected appointment can be moved.", status=self.status)
        return replace(
            self,
            time=time,
            practitioner_id=practitioner_id,
            room_id=room_id,
            status=AppointmentStatus.BOOKED,
            confirmed_at=None,
            version=self.version + 1,
        )


@dataclass(frozen=True, kw_only=True)
class WeeklyHours:
    """Hours in the centre's own wall-clock time, so that nine o'clock stays nine across DST."""

    weekday: int
    starts_local: time
    ends_local: time
    valid_from: date
    valid_until: date | None = None

    def applies_on(self, day: date) -> bool:
        return (
            day.weekday() == self.weekday
            and self.valid_from <= day
            and (self.valid_until is None or day < self.valid_until)
        )


@dataclass(frozen=True, kw_only=True)
class AvailabilityException:
    """A change to the weekly hours: closed (leave, illness) or open (an extra session)."""

    time: Interval
    opens: bool


@dataclass(frozen=True, kw_only=True)
class Availability:
    """When one practitioner receives patients at one centre."""

    zone: ZoneInfo
    weekly: Sequence[WeeklyHours]
    exceptions: Sequence[AvailabilityException] = field(default=())

    def open_intervals(self, window: Interval) -> list[Interval]:
        """Return the receiving hours that touch the window, merged, in order."""
        opened = [*self._weekly_intervals(window), *(e.time for e in self.exceptions if e.opens)]
        merged = merge(i for i in opened if i.overlaps(window))
        return subtract(merged, [e.time for e in self.exceptions if not e.opens])

    def covers(self, time: Interval) -> bool:
        return any(i.contains(time) for i in self.open_intervals(time))

    def _weekly_intervals(self, window: Interval) -> Iterator[Interval]:
        # A day either side: the window's UTC days are not the centre's days.
        day = window.starts_at.astimezone(self.zone).date() - timedelta(days=1)
        last = window.ends_at.astimezone(self.zone).date() + timedelta(days=1)
        while day <= last:
            for hours in self.weekly:
                if hours.applies_on(day):
                    yield Interval(
                        self._instant(day, hours.starts_local), self._instant(day, hours.ends_local)
                    )
            day += timedelta(days=1)

    def _instant(self, day: date, local: time) -> datetime:
        # Through UTC and back: a wall-clock time inside a DST gap becomes the instant the gap ends at.
        return datetime.combine(day, local, tzinfo=self.zone).astimezone(ZoneInfo("UTC"))


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """Join what overlaps or touches."""
    merged: list[Interval] = []
    for interval in sorted(intervals, key=lambda i: i.starts_at):
        if merged and interval.starts_at <= merged[-1].ends_at:
            merged[-1] = Interval(merged[-1].starts_at, max(merged[-1].ends_at, interval.ends_at))
        else:
            merged.append(interval)
    return merged


def subtract(intervals: Iterable[Interval], taken: Iterable[Interval]) -> list[Interval]:
    """Return what remains of the intervals when what is taken is cut out."""
    remaining = list(intervals)
    for cut in taken:
        remaining = [piece for interval in remaining for piece in _without(interval, cut)]
    return remaining


def _without(interval: Interval, cut: Interval) -> Iterator[Interval]:
    if not interval.overlaps(cut):
        yield interval
        return
    if interval.starts_at < cut.starts_at:
        yield Interval(interval.starts_at, cut.starts_at)
    if cut.ends_at < interval.ends_at:
        yield Interval(cut.ends_at, interval.ends_at)


def starts_within(
    free: Iterable[Interval], *, duration: timedelta, not_before: datetime
) -> Iterator[datetime]:
    """Yield each start on the grid at which an appointment of this length fits."""
    for interval in free:
        start = _on_grid(max(interval.starts_at, not_before), origin=interval.starts_at)
        while start + duration <= interval.ends_at:
            yield start
            start += SLOT_GRID


def _on_grid(moment: datetime, *, origin: datetime) -> datetime:
    steps = -((origin - moment) // SLOT_GRID)
    return origin + steps * SLOT_GRID


def check_offered(service: CatalogueService, *, department_id: UUID, kinds: Sequence[ResourceKind]) -> None:
    """Refuse a service that is withdrawn, not this department's, or lacks a resource it takes."""
    if not service.active or department_id not in service.department_ids:
        raise NotOfferedError
    missing = [need.value for need in service.needs if need not in kinds]
    if missing:
        raise MissingResourceError(f"Name a {' and a '.join(missing)}.", missing=missing)
