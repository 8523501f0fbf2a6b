"""Where and when reports count, pure: levels, places, days of a centre's calendar, a reader's scope."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from uuid import UUID
from zoneinfo import ZoneInfo

from clinic_shared.errors import InvalidRequestError
from clinic_shared.principal import Principal

MAX_PERIOD = timedelta(days=366)


class InvalidPeriodError(InvalidRequestError):
    """A report's period ends before it begins, is empty, or is longer than 366 days."""

    slug = "invalid-period"
    title = "The period of the report is not valid"
    fix = "Let `ends_on` be after `starts_on` (it is not part of the period), at most 366 days later."


class Level(StrEnum):
    DEPARTMENT = "department"
    CENTRE = "centre"


class Milestone(StrEnum):
    """What a lab result passes on its way to the chart, the first time."""

    RECEIVED = "received"
    FILED = "filed"


class AppointmentStatus(StrEnum):
    """contracts/taxonomy/statuses.yaml, `appointment`."""

    BOOKED = "booked"
    CONFIRMED = "confirmed"
    ARRIVED = "arrived"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    MISSED = "missed"


# -- period and scope


@dataclass(frozen=True)
class Window:
    """A half-open interval of instants."""

    from_at: datetime
    until_at: datetime


@dataclass(frozen=True)
class Period:
    """Days from `starts_on` up to but without `ends_on`, wherever they are lived through."""

    starts_on: date
    ends_on: date

    def __post_init__(self) -> None:
        if not timedelta(0) < self.ends_on - self.starts_on <= MAX_PERIOD:
            raise InvalidPeriodError

    def window(self, zone: ZoneInfo) -> Window:
        """Return the instants of these days in a zone; days with a clock change are longer or shorter."""
        return Window(_midnight(self.starts_on, zone), _midnight(self.ends_on, zone))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


@dataclass(frozen=True)
class Centre:
    centre_id: UUID
    name: str
    zone: ZoneInfo


@dataclass(frozen=True)
class Department:
    department_id: UUID
    centre_id: UUID
    name: str


@dataclass(frozen=True)
class Part:
    """What of one centre may be counted: all of it (None) or some of its departments."""

    centre: Centre
    department_ids: frozenset[UUID] | None = None


@dataclass(frozen=True)
class Scope:
    """What one report counts. `unplaced` adds what belongs to no centre, such as unordered results."""

    parts: tuple[Part, ...]
    unplaced: bool = False


def scope_of(
    caller: Principal,
    level: Level,
    *,
    centres: Iterable[Centre],
    departments: Sequence[Department],
    centre_id: UUID | None = None,
) -> Scope:
    """Narrow a report to where its reader works.

    Who works in some departments only sees those, and no centre: its figure would be that of others too.
    """
    asked = [c for c in centres if centre_id in (None, c.centre_id)]
    parts = [part for c in asked if (part := _part(caller, level, c, departments)) is not None]
    return Scope(tuple(parts), unplaced=caller.network and centre_id is None)


def _part(caller: Principal, level: Level, centre: Centre, departments: Sequence[Department]) -> Part | None:
    if caller.works_in(centre_id=centre.centre_id):
        return Part(centre)
    own = frozenset(
        d.department_id
        for d in departments
        if d.centre_id == centre.centre_id and d.department_id in caller.department_ids
    )
    return Part(centre, own) if own and level is Level.DEPARTMENT else None


# -- places


@dataclass(frozen=True)
class Place:
    """A department, a centre (without a department), or no place at all."""

    centre_id: UUID | None
    department_id: UUID | None = None

    @property
    def order(self) -> tuple[str, str]:
        """Return what lines are sorted by: ids, which is the order of opening; what is nowhere comes last."""
        return str(self.centre_id or "~"), str(self.department_id or "~")

    def at(self, level: Level) -> "Place":
        return self if level is Level.DEPARTMENT else Place(self.centre_id)
