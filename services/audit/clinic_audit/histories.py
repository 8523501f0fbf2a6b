"""Made-up weeks of a network's audit log, with cases of misuse planted: what detection is measured on. Pure.

Everything ordinary that looks odd is in there too: night duty, long desk lists, busy days, forgotten passwords, journeys,
colleagues and watched people who come as patients, patients who share their doctor's name.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from clinic_shared.audit import Action

from clinic_audit.detection import LOGIN, Act, Name, People
from clinic_audit.detection_rules import Rule

WEEKS = 5
_MONDAY = datetime(2026, 2, 2, tzinfo=UTC)
_FAMILIES = [f"вымышленный-{n}" for n in range(120)]
_NIGHT = 20
CASES_FROM_DAY = 15
"""Habits need their weeks first, as they do where detection is switched on."""


@dataclass(frozen=True)
class Case:
    """Something that was planted: who did it on which day, and the rules any of which finds it."""

    kind: str
    person: UUID
    day: int
    rules: frozenset[Rule]


@dataclass
class History:
    people: People
    acts: list[Act] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Member:
    who: UUID
    role: str
    from_hour: int
    hours: int
    per_hour: int
    family: str

    @property
    def roles(self) -> frozenset[str]:
        return frozenset({self.role})


def made_up(seed: int, *, weeks: int = WEEKS) -> History:
    """Return some weeks of about sixty members of staff, the same for the same seed."""
    return _Maker(Random(seed), weeks).history()


class _Maker:
    def __init__(self, chance: Random, weeks: int) -> None:
        self._chance = chance
        self._days = 7 * weeks
        self._members = [self._member(n) for n in range(60)]
        self._patients = [self._id() for _ in range(3000)]
        self._watched = frozenset(chance.sample(self._patients, 12))
        self._colleagues = frozenset(chance.sample(self._patients, 25)) - self._watched
        self._families = {patient: chance.choice(_FAMILIES) for patient in self._patients}
        self._acts: list[Act] = []
        self._cases: list[Case] = []

    def history(self) -> History:
        for day in range(self._days):
            for member in self._members:
                if day % 7 < 5 or (member.role == "doctor" and self._chance.random() < 0.15):
                    self._workday(member, day)
        by_day = [member for member in self._members if member.from_hour < _NIGHT]
        for plant in self._plants():
            for _ in range(5):
                plant(
                    self._chance.choice(by_day),
                    self._chance.randrange(CASES_FROM_DAY, self._days),
                )
        acts = sorted(self._acts, key=lambda act: act.at)
        return History(
            People(
                staff={
                    m.who: Name(family=m.family, full=f"{m.family} {n}") for n, m in enumerate(self._members)
                },
                patients={
                    p: Name(family=family, full=f"{family} {p}") for p, family in self._families.items()
                },
                colleagues=self._colleagues,
                watched=self._watched,
            ),
            [replace(act, index=index) for index, act in enumerate(acts)],
            self._cases,
        )

    # -- ordinary days

    def _member(self, n: int) -> _Member:
        role = "doctor" if n < 32 else "registrar" if n < 52 else "biller"
        night = role == "doctor" and n % 8 == 0
        return _Member(
            who=self._id(),
            role=role,
            from_hour=_NIGHT if night else self._chance.choice((7, 8, 9, 10)),
            hours=8,
            per_hour=self._chance.randint(3, 6) if role == "doctor" else self._chance.randint(8, 14),
            family=_FAMILIES[n % len(_FAMILIES)],
        )

    def _workday(self, member: _Member, day: int) -> None:
        chance = self._chance
        begins = self._at(day, member.from_hour, chance.randrange(20))
        self._mistyped(member, begins)
        self._login(member.who, begins, "RU")
        for hour in range(member.hours + (1 if chance.random() < 0.2 else 0)):
            busy = chance.choice((0.6, 1, 1, 1, 1.5))
            for _ in range(int(member.per_hour * busy)):
                at = begins + timedelta(
                    hours=hour, minutes=chance.randrange(59), seconds=chance.randrange(60)
                )
                self._serve(member, at, chance.choice(self._patients))
        if chance.random() < 0.02:
            # A congress abroad: the next login is hours later.
            self._login(member.who, begins + timedelta(hours=9), "DE")

    def _mistyped(self, member: _Member, begins: datetime) -> None:
        tries = self._chance.choice((0, 0, 0, 0, 1, 1, 2, 4))
        for n in range(tries):
            self._login(member.who, begins - timedelta(seconds=90 - 15 * n), None)

    def _serve(self, member: _Member, at: datetime, patient: UUID) -> None:
        """One patient as they are served: doctors within care, desks with something done for them most of the time."""
        chance = self._chance
        if member.role == "doctor":
            self._see(member, at, patient, relationship="appointment")
            if chance.random() < 0.004:
                self._see(member, at, chance.choice(self._patients), denied=True)
            return
        unusual = patient in self._watched | self._colleagues or self._families[patient] == member.family
        self._see(member, at, patient)
        if unusual or chance.random() < 0.7:
            # Now and then nothing comes of it even so: a question on the telephone.
            if unusual and chance.random() < 0.02:
                return
            self._see(member, at + timedelta(minutes=chance.randrange(1, 12)), patient, action=Action.UPDATE)

    # -- what is planted

    def _plants(self) -> list[Callable[[_Member, int], None]]:
        return [
            self._harvest,
            self._slow_harvest,
            self._curious_about_watched,
            self._curious_about_colleague,
            self._own_family,
            self._at_night,
            self._two_countries,
            self._exports,
            self._lists,
            self._probing,
            self._guessing,
        ]

    def _harvest(self, member: _Member, day: int) -> None:
        for patient in self._others(self._chance.randint(45, 90)):
            self._see(member, self._at(day, member.from_hour + 2, self._chance.randrange(59)), patient)
        self._planted("harvest", member, day, Rule.UNUSUAL_VOLUME, Rule.MASS_EXPORT)

    def _slow_harvest(self, member: _Member, day: int) -> None:
        """More than anybody does, though never much in one hour."""
        usual = 9 * member.per_hour
        for patient in self._others(max(140, int(usual * self._chance.uniform(2.6, 3.2)))):
            hour = member.from_hour + self._chance.randrange(9)
            self._see(member, self._at(day, hour, self._chance.randrange(59)), patient)
        self._planted("slow harvest", member, day, Rule.UNUSUAL_VOLUME, Rule.MASS_EXPORT)

    def _curious_about_watched(self, member: _Member, day: int) -> None:
        self._peek(member, day, self._chance.choice(sorted(self._watched)))
        self._planted("watched patient", member, day, Rule.WATCHED_PATIENT, Rule.OWN_NAME)

    def _curious_about_colleague(self, member: _Member, day: int) -> None:
        self._peek(member, day, self._chance.choice(sorted(self._colleagues)))
        self._planted("colleague", member, day, Rule.COLLEAGUE, Rule.OWN_NAME)

    def _own_family(self, member: _Member, day: int) -> None:
        relatives = [patient for patient, family in self._families.items() if family == member.family]
        self._peek(member, day, self._chance.choice(relatives))
        self._planted("own name", member, day, Rule.OWN_NAME, Rule.WATCHED_PATIENT)

    def _peek(self, member: _Member, day: int, patient: UUID) -> None:
        emergency = member.role == "doctor"
        at = self._at(day, member.from_hour + 3, self._chance.randrange(59))
        self._see(member, at, patient, relationship="break-glass" if emergency else None)

    def _at_night(self, member: _Member, day: int) -> None:
        for patient in self._others(self._chance.randint(4, 9)):
            self._see(member, self._at(day, 2, self._chance.randrange(59)), patient)
        self._planted("off hours", member, day, Rule.OFF_HOURS)

    def _two_countries(self, member: _Member, day: int) -> None:
        at = self._at(day, 12, 0)
        self._login(member.who, at, "RU")
        self._login(member.who, at + timedelta(minutes=self._chance.randint(5, 180)), "BR")
        self._planted("impossible travel", member, day, Rule.IMPOSSIBLE_TRAVEL)

    def _exports(self, member: _Member, day: int) -> None:
        for patient in self._others(self._chance.randint(5, 12)):
            at = self._at(day, member.from_hour + 1, self._chance.randrange(59))
            self._see(member, at, patient, action=Action.EXECUTE, resource_type="PatientExport")
        self._planted("exports", member, day, Rule.MASS_EXPORT)

    def _lists(self, member: _Member, day: int) -> None:
        at = self._at(day, member.from_hour + 4, 10)
        for n, patient in enumerate(self._others(self._chance.randint(180, 400))):
            self._see(member, at + timedelta(seconds=n), patient, request=UUID(int=n // 100 + 1))
        self._planted("long lists", member, day, Rule.MASS_EXPORT, Rule.UNUSUAL_VOLUME)

    def _probing(self, member: _Member, day: int) -> None:
        at = self._at(day, member.from_hour + 5, 10)
        for n, patient in enumerate(self._others(self._chance.randint(12, 60))):
            self._see(member, at + timedelta(seconds=3 * n), patient, denied=True)
        self._planted("probing", member, day, Rule.REPEATED_DENIALS)

    def _guessing(self, member: _Member, day: int) -> None:
        at = self._at(day, 4, 0)
        for n in range(self._chance.randint(12, 40)):
            self._login(member.who, at + timedelta(seconds=10 * n), None)
        self._planted("guessing", member, day, Rule.FAILED_LOGINS)

    # -- records

    def _planted(self, kind: str, member: _Member, day: int, *rules: Rule) -> None:
        self._cases.append(Case(kind, member.who, day, frozenset(rules)))

    def _see(
        self,
        member: _Member,
        at: datetime,
        patient: UUID,
        *,
        action: Action = Action.READ,
        relationship: str | None = None,
        resource_type: str = "Patient",
        denied: bool = False,
        request: UUID | None = None,
    ) -> None:
        self._acts.append(
            Act(
                index=0,
                at=at,
                agent=member.who,
                kind="staff",
                roles=member.roles,
                action=action.value,
                denied=denied,
                resource_type=resource_type,
                patient=patient,
                relationship=relationship,
                request=request,
            )
        )

    def _login(self, who: UUID, at: datetime, country: str | None) -> None:
        """Without a country a failed one."""
        nobody = UUID(int=0)
        failed = country is None
        self._acts.append(
            Act(
                index=0,
                at=at,
                agent=nobody,
                kind="anonymous",
                denied=failed,
                resource_type=LOGIN,
                account=who,
                country=country,
            )
        )

    def _others(self, how_many: int) -> Iterator[UUID]:
        """Yield patients whom no rule about people concerns: each case is of one kind."""
        ordinary = [p for p in self._patients if p not in self._watched | self._colleagues]
        yield from self._chance.sample(ordinary, how_many)

    def _at(self, day: int, local_hour: int, minute: int) -> datetime:
        moscow = timedelta(hours=3)
        return _MONDAY + timedelta(days=day, hours=local_hour, minutes=minute) - moscow

    def _id(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128), version=4)


def local_day(at: datetime) -> int:
    return (at + timedelta(hours=3) - _MONDAY).days
