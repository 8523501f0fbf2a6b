"""What is suspicious about the acts of the log, one after the other. Pure: acts and what is known of people in, alarms out.

Each rule is one that a privacy officer can be told in a sentence. What it found is said once per occasion (a
person, a patient where it is about one, a day), however often it goes on.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

from clinic_shared.audit import Action

from clinic_audit.detection_rules import Rule, Rules, Severity
from clinic_audit.habits import Habits, Workday

LOGIN = "Login"
_AT_ONCE = timedelta(minutes=10)
_TWO_DAYS = timedelta(days=2)
_TIDY_AFTER = 20_000
_WRITES = frozenset({Action.CREATE, Action.UPDATE, Action.DELETE})
_MOST_RECORDS = 20
"""Of an alarm's records so many are named; the others are found by person and time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """One record of the log, as far as rules look at it. `account` is whose login it was about."""

    index: int
    at: datetime
    agent: UUID
    kind: str
    roles: frozenset[str] = frozenset()
    action: str = Action.READ.value
    denied: bool = False
    resource_type: str = "Patient"
    account: UUID | None = None
    patient: UUID | None = None
    relationship: str | None = None
    country: str | None = None
    request: UUID | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """A name by its blind indexes: equal where the names are, and telling nothing else."""

    family: str | None = None
    full: str | None = None


@dataclass(frozen=True, kw_only=True)
class People:
    """What is known of those whom some acts concern."""

    staff: Mapping[UUID, Name] = field(default_factory=dict)
    patients: Mapping[UUID, Name] = field(default_factory=dict)
    colleagues: frozenset[UUID] = frozenset()
    """Patients who have the full name of somebody who works here."""
    watched: frozenset[UUID] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """`figures` say what was counted against which threshold; `records` are indexes in the log."""

    rule: Rule
    severity: Severity
    person: UUID
    patient: UUID | None
    first_at: datetime
    last_at: datetime
    records: tuple[int, ...]
    figures: Mapping[str, int] = field(default_factory=dict)
    day: date

    @property
    def occasion(self) -> str:
        return f"{self.rule}/{self.person}/{self.patient or '-'}/{self.day}"


@dataclass(slots=True)
class _Window:
    """The latest acts of one kind, no older than `length` before the newest."""

    length: timedelta
    acts: deque[tuple[Act, UUID | str]] = field(default_factory=deque)

    def add(self, act: Act, what: UUID | str) -> None:
        self.acts.append((act, what))
        while act.at - self.acts[0][0].at > self.length:
            self.acts.popleft()

    def is_over(self, now: datetime) -> bool:
        return now - self.acts[-1][0].at > self.length

    def different(self) -> int:
        return len({what for _, what in self.acts})

    def seen(self) -> list[Act]:
        return [act for act, _ in self.acts]


class Detector:
    def __init__(self, rules: Rules, habits: Iterable[tuple[UUID, Workday]] = ()) -> None:
        self._rules = rules
        self._zone = rules.time_zone
        self._severity = rules.severities()
        self.habits = Habits(rules, habits)
        self._raised: dict[str, datetime] = {}
        self._open: dict[tuple[UUID, UUID], tuple[Act, Rule]] = {}
        self._worked: dict[tuple[UUID, UUID], datetime] = {}
        self._last: dict[UUID, tuple[UUID | None, UUID]] = {}
        self._shown = self._windows(_AT_ONCE)
        self._denials = self._windows(timedelta(minutes=rules.repeated_denials.minutes))
        self._exports = self._windows(timedelta(days=1))
        self._failures = self._windows(timedelta(minutes=rules.failed_logins.minutes))
        self._sprayed = _Window(timedelta(minutes=rules.failed_logins.minutes))
        self._logins = self._windows(timedelta(hours=rules.impossible_travel.hours))
        self._until_tidying = _TIDY_AFTER

    @staticmethod
    def _windows(length: timedelta) -> defaultdict[UUID, _Window]:
        return defaultdict(lambda: _Window(length))

    def observe(self, act: Act, people: People) -> list[Alarm]:
        """Take the next act of the log; returns what it makes suspicious, and what nothing has explained by now."""
        self._tidy_up(act.at)
        alarms = self._unexplained(act.at)
        if act.resource_type == LOGIN:
            alarms += self._login(act)
        elif act.denied:
            alarms += self._denied(act)
        elif act.kind == "staff" and act.patient is not None:
            alarms += self._access(act, act.patient, people)
        return self._new(alarms)

    def settle(self, now: datetime) -> list[Alarm]:
        """Return the look-ups that no work has followed by now, when the log has nothing more to tell."""
        return self._new(self._unexplained(now))

    def _unexplained(self, now: datetime) -> list[Alarm]:
        due = now - timedelta(minutes=self._rules.work_minutes)
        alarms = []
        while self._open:
            key, (act, rule) = next(iter(self._open.items()))
            if act.at > due:
                break
            del self._open[key]
            alarms.append(self._alarm(rule, act.agent, [act], patient=key[1]))
        return alarms

    def _new(self, alarms: Iterable[Alarm]) -> list[Alarm]:
        new = {alarm.occasion: alarm for alarm in alarms if alarm.occasion not in self._raised}
        self._raised |= {occasion: alarm.last_at for occasion, alarm in new.items()}
        return list(new.values())

    def _tidy_up(self, now: datetime) -> None:
        """Forget what no rule can need any more, so that memory follows who is active, not who ever was."""
        self._until_tidying -= 1
        if self._until_tidying > 0:
            return
        self._until_tidying = _TIDY_AFTER
        for windows in (self._shown, self._denials, self._exports, self._failures, self._logins):
            for person in [p for p, window in windows.items() if window.is_over(now)]:
                del windows[person]
        self._raised = {occasion: at for occasion, at in self._raised.items() if now - at < _TWO_DAYS}
        self._worked = {key: at for key, at in self._worked.items() if now - at < _TWO_DAYS}

    def _access(self, act: Act, patient: UUID, people: People) -> list[Alarm]:
        self._look_up(act, patient, people)
        local = act.at.astimezone(self._zone)
        today = self.habits.note(act.agent, act.roles, local, patient)
        return [
            *self._volume(act, today),
            *self._off_hours(act, today, local),
            *self._mass_export(act, patient),
        ]

    def _look_up(self, act: Act, patient: UUID, people: People) -> None:
        """Remember a look-up that wants an explanation, or that one has been given."""
        key = (act.agent, patient)
        if self._is_of_a_list(act, patient):
            return
        if act.action in _WRITES and act.resource_type not in self._rules.mass_export.resource_types:
            self._worked[key] = act.at
            self._open.pop(key, None)
        elif key not in self._open and act.relationship not in self._rules.explained_by:
            worked = self._worked.get(key)
            just_worked = worked is not None and act.at - worked <= timedelta(
                minutes=self._rules.work_minutes
            )
            rule = None if just_worked else self._concerning(act.agent, patient, people)
            if rule is not None:
                self._open[key] = (act, rule)

    def _is_of_a_list(self, act: Act, patient: UUID) -> bool:
        """Say whether one request showed several patients: nobody was looked up by that, the first neither."""
        before = self._last.get(act.agent)
        self._last[act.agent] = (act.request, patient)
        if act.request is None or before is None or before[0] != act.request or before[1] == patient:
            return False
        first = self._open.get((act.agent, before[1]))
        if first is not None and first[0].request == act.request:
            del self._open[act.agent, before[1]]
        return True

    def _concerning(self, agent: UUID, patient: UUID, people: People) -> Rule | None:
        if patient in people.watched:
            return Rule.WATCHED_PATIENT
        who, looked_up = people.staff.get(agent, Name()), people.patients.get(patient, Name())
        if looked_up.family is not None and looked_up.family == who.family:
            return Rule.OWN_NAME
        return Rule.COLLEAGUE if patient in people.colleagues else None

    def _volume(self, act: Act, today: Workday) -> list[Alarm]:
        rule = self._rules.unusual_volume
        usual = self.habits.usual(act.agent)
        hour, day = today.patients_in(act.at.astimezone(self._zone).hour), today.patients
        if hour > max(rule.per_hour, rule.times_usual * usual.per_hour):
            figures = {"patients": hour, "usual": usual.per_hour, "hours": 1}
        elif day > max(rule.per_day, rule.times_usual * usual.per_day):
            figures = {"patients": day, "usual": usual.per_day, "hours": 24}
        else:
            return []
        return [self._alarm(Rule.UNUSUAL_VOLUME, act.agent, [act], figures=figures)]

    def _off_hours(self, act: Act, today: Workday, local: datetime) -> list[Alarm]:
        rule = self._rules.off_hours
        if rule.from_hour <= local.hour < rule.until_hour or self.habits.works_at(act.agent, local.hour):
            return []
        patients = today.patients_in(local.hour)
        if patients < rule.patients:
            return []
        return [
            self._alarm(Rule.OFF_HOURS, act.agent, [act], figures={"patients": patients, "hour": local.hour})
        ]

    def _mass_export(self, act: Act, patient: UUID) -> list[Alarm]:
        rule = self._rules.mass_export
        if act.resource_type in rule.resource_types:
            exports = self._exports[act.agent]
            exports.add(act, patient)
            if exports.different() > rule.exports_per_day:
                return [self._of_window(Rule.MASS_EXPORT, act.agent, exports, "exports")]
        shown = self._shown[act.agent]
        shown.add(act, patient)
        if len(shown.acts) > rule.patients_at_once and shown.different() > rule.patients_at_once:
            return [self._of_window(Rule.MASS_EXPORT, act.agent, shown, "patients")]
        return []

    def _denied(self, act: Act) -> list[Alarm]:
        denials = self._denials[act.agent]
        denials.add(act, str(act.index))
        if len(denials.acts) < self._rules.repeated_denials.denials or act.agent.int == 0:
            return []
        return [self._of_window(Rule.REPEATED_DENIALS, act.agent, denials, "denials")]

    def _login(self, act: Act) -> list[Alarm]:
        if act.account is None:
            return []
        if not act.denied:
            return self._travel(act, act.account)
        rule = self._rules.failed_logins
        failures = self._failures[act.account]
        failures.add(act, str(act.index))
        self._sprayed.add(act, act.account)
        if len(failures.acts) >= rule.failures:
            return [self._of_window(Rule.FAILED_LOGINS, act.account, failures, "failures")]
        if self._sprayed.different() >= rule.accounts:
            # About nobody in particular: all of them were tried.
            return [self._of_window(Rule.FAILED_LOGINS, UUID(int=0), self._sprayed, "accounts")]
        return []

    def _travel(self, act: Act, account: UUID) -> list[Alarm]:
        if act.country is None:
            return []
        logins = self._logins[account]
        logins.add(act, act.country)
        if logins.different() == 1:
            return []
        return [self._of_window(Rule.IMPOSSIBLE_TRAVEL, account, logins, "countries")]

    def _of_window(self, rule: Rule, person: UUID, window: _Window, counted: str) -> Alarm:
        return self._alarm(rule, person, window.seen(), figures={counted: window.different()})

    def _alarm(
        self,
        rule: Rule,
        person: UUID,
        acts: Sequence[Act],
        *,
        patient: UUID | None = None,
        figures: Mapping[str, int] | None = None,
    ) -> Alarm:
        return Alarm(
            rule=rule,
            severity=self._severity[rule],
            person=person,
            patient=patient,
            first_at=acts[0].at,
            last_at=acts[-1].at,
            records=tuple(act.index for act in acts[-_MOST_RECORDS:]),
            figures=figures or {},
            day=acts[-1].at.astimezone(self._zone).date(),
        )
