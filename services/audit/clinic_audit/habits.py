"""How much somebody usually sees, and at which hours they work: by day, for as long as the rules remember. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from statistics import median
from uuid import UUID

from clinic_audit.detection_rules import Rules

_TIMES_SEEN = 2
"""Days on which somebody must have worked at an hour for it to be theirs."""


@dataclass(slots=True)
class Workday:
    """One person's day. A day that is remembered has counts only, today its patients."""

    day: date
    group: str
    patients: int = 0
    busiest_hour: int = 0
    hours: int = 0
    """A bit for each hour of the day in which something was looked at."""
    seen: dict[int, set[UUID]] = field(default_factory=dict)
    everybody: set[UUID] = field(default_factory=set)

    def add(self, hour: int, patient: UUID) -> None:
        in_this_hour = self.seen.setdefault(hour, set())
        in_this_hour.add(patient)
        self.everybody.add(patient)
        self.patients = max(self.patients, len(self.everybody))
        self.busiest_hour = max(self.busiest_hour, len(in_this_hour))
        self.hours |= 1 << hour

    def patients_in(self, hour: int) -> int:
        return len(self.seen.get(hour, ()))

    def forget_patients(self) -> None:
        self.seen, self.everybody = {}, set()


@dataclass(frozen=True, slots=True)
class Usual:
    per_hour: int = 0
    per_day: int = 0


class Habits:
    """Yesterdays by person; today is compared with them and becomes one of them at midnight."""

    def __init__(self, rules: Rules, known: Iterable[tuple[UUID, Workday]] = ()) -> None:
        self._rules = rules
        self._days: defaultdict[UUID, dict[date, Workday]] = defaultdict(dict)
        self._usual: dict[UUID, tuple[date, Usual]] = {}
        self._of_group: dict[str, tuple[date, Usual]] = {}
        self._changed: set[tuple[UUID, date]] = set()
        for person, workday in known:
            self._days[person][workday.day] = workday

    def note(self, person: UUID, roles: frozenset[str], local: datetime, patient: UUID) -> Workday:
        days, day = self._days[person], local.date()
        today = days.get(day)
        if today is None:
            today = days[day] = Workday(day, " ".join(sorted(roles)))
            self._turn_the_page(person, day)
        today.add(local.hour, patient)
        self._changed.add((person, day))
        return today

    def usual(self, person: UUID) -> Usual:
        """Return somebody's busiest hour and day so far; of who is new here, those of their peers."""
        today = max(self._days[person])
        cached = self._usual.get(person)
        if cached is None or cached[0] != today:
            cached = self._usual[person] = (today, self._reckon(person, today))
        return cached[1]

    def works_at(self, person: UUID, hour: int) -> bool:
        """Say whether somebody has worked at this hour, or the one before or after it, on several days."""
        days = self._days[person]
        today, near = max(days), sum(1 << (hour + step) % 24 for step in (-1, 0, 1))
        return sum(1 for day, work in days.items() if day != today and work.hours & near) >= _TIMES_SEEN

    def take_changed(self) -> Iterator[tuple[UUID, Workday]]:
        """Yield what is to be remembered of the days that have grown since it was asked last."""
        changed, self._changed = self._changed, set()
        for person, day in sorted(changed):
            if (workday := self._days[person].get(day)) is not None:
                yield person, workday

    def _turn_the_page(self, person: UUID, today: date) -> None:
        days = self._days[person]
        oldest = today - timedelta(days=self._rules.history_days)
        for day in [day for day in days if day < oldest]:
            del days[day]
        for day, workday in days.items():
            # A day's late records may still come; after two days its patients need no longer be told apart.
            if day < today - timedelta(days=2):
                workday.forget_patients()

    def _reckon(self, person: UUID, today: date) -> Usual:
        before = [workday for day, workday in self._days[person].items() if day < today]
        if len(before) < self._rules.settled_days:
            return self._usual_of_group(self._days[person][today].group, today)
        return _usual(before)

    def _usual_of_group(self, group: str, today: date) -> Usual:
        """The middle of what those with the same roles have as their busiest."""
        cached = self._of_group.get(group)
        if cached is not None and cached[0] == today:
            return cached[1]
        peers = [
            [work for day, work in days.items() if day < today and work.group == group]
            for days in self._days.values()
        ]
        settled = [days for days in peers if len(days) >= self._rules.settled_days]
        usual = Usual()
        if settled:
            each = [_usual(days) for days in settled]
            usual = Usual(int(median(u.per_hour for u in each)), int(median(u.per_day for u in each)))
        self._of_group[group] = (today, usual)
        return usual


def _usual(days: list[Workday]) -> Usual:
    """The second busiest: one day that nobody stopped must not become what is usual."""
    hours, patients = (sorted(v) for v in zip(*((d.busiest_hour, d.patients) for d in days), strict=True))
    return Usual(hours[-2], patients[-2]) if len(days) > 1 else Usual(hours[0], patients[0])
