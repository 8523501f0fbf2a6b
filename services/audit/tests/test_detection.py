"""What is taken for suspicious, and what isn't, rule by rule."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from clinic_audit.detection import Act, Detector, Name, People
from clinic_audit.detection_quality import measure
from clinic_audit.detection_rules import DEFAULT_FILE, Rule, Rules
from clinic_shared.ids import uuid7
from clinic_shared.testing import MONDAY
from pydantic import ValidationError

RULES = Rules.load()
SOMEBODY = UUID(int=7)


class Log:
    """Acts in their order, and what the detector says of them."""

    def __init__(self, people: People | None = None) -> None:
        self.detector = Detector(RULES)
        self.people = people or People()
        self.raised: list[Rule] = []
        self.alarms: list[Any] = []

    def add(self, minutes: float, **values: Any) -> None:
        defaults: dict[str, Any] = {"agent": SOMEBODY, "kind": "staff", "patient": uuid7()}
        act = Act(**{"index": 0, "at": MONDAY + timedelta(minutes=minutes), **defaults, **values})
        self._keep(self.detector.observe(act, self.people))

    def settle(self, minutes: float) -> None:
        self._keep(self.detector.settle(MONDAY + timedelta(minutes=minutes)))

    def _keep(self, alarms: list[Any]) -> None:
        self.alarms += alarms
        self.raised += [alarm.rule for alarm in alarms]

    def login(self, minutes: float, account: UUID, **values: Any) -> None:
        self.add(
            minutes,
            agent=UUID(int=0),
            kind="anonymous",
            resource_type="Login",
            account=account,
            patient=None,
            **values,
        )


def test_the_rules_find_what_is_planted_and_are_seldom_wrong() -> None:
    quality = measure(RULES, seeds=(5, 19))
    assert quality.planted.total() >= 100
    assert quality.recall >= 0.95
    assert quality.precision >= 0.75
    assert all(quality.found[kind] >= 0.8 * planted for kind, planted in quality.planted.items())


def test_a_rule_left_out_or_misspelt_is_refused(tmp_path: Any) -> None:
    file = tmp_path / "detection.yaml"
    file.write_text(
        DEFAULT_FILE.read_text(encoding="utf-8").replace("off_hours:", "off_hour:"), encoding="utf-8"
    )
    with pytest.raises(ValidationError):
        Rules.load(file)


@pytest.mark.parametrize(("patients", "expected"), [(25, []), (26, [Rule.UNUSUAL_VOLUME])])
def test_many_different_patients_in_an_hour(patients: int, expected: list[Rule]) -> None:
    log = Log()
    for n in range(patients):
        log.add(n, patient=UUID(int=n))
        log.add(n, patient=UUID(int=0))  # the same one again and again is one
    assert log.raised == expected


def test_an_alarm_is_raised_once_a_day_however_long_it_goes_on() -> None:
    log = Log()
    for n in range(59):
        log.add(n)
    assert log.raised == [Rule.UNUSUAL_VOLUME]


def test_what_somebody_does_every_day_is_usual() -> None:
    log = Log()
    for day in range(7):
        for n in range(40):
            log.add(day * 24 * 60 + n)
    # The first days nobody could know; from the sixth on this is how they work.
    assert len(log.raised) == 5


def test_a_newcomer_is_compared_with_their_peers() -> None:
    log = Log()
    desk = frozenset({"registrar"})
    for day in range(6):
        for n in range(40):
            log.add(day * 24 * 60 + n, roles=desk)
    before = len(log.raised)
    for n in range(40):
        log.add(6 * 24 * 60 + n, agent=UUID(int=8), roles=desk)
    assert len(log.raised) == before
    for n in range(40):
        log.add(6 * 24 * 60 + n, agent=UUID(int=9), roles=frozenset({"biller"}))
    assert len(log.raised) == before + 1


PATIENT = UUID(int=99)
CONCERNING = {
    Rule.WATCHED_PATIENT: People(watched=frozenset({PATIENT})),
    Rule.COLLEAGUE: People(colleagues=frozenset({PATIENT})),
    Rule.OWN_NAME: People(staff={SOMEBODY: Name(family="a")}, patients={PATIENT: Name(family="a")}),
}


@pytest.mark.parametrize("rule", CONCERNING)
def test_a_look_up_that_nothing_explains(rule: Rule) -> None:
    log = Log(CONCERNING[rule])
    log.add(0, patient=PATIENT)
    log.settle(29)
    assert log.raised == []
    log.settle(30)
    assert log.raised == [rule]
    assert log.alarms[0].patient == PATIENT


@pytest.mark.parametrize("rule", CONCERNING)
@pytest.mark.parametrize("explanation", ["care", "work before", "work after", "list"])
def test_a_look_up_with_an_explanation(rule: Rule, explanation: str) -> None:
    log = Log(CONCERNING[rule])
    if explanation == "work before":
        log.add(0, patient=PATIENT, action="U")
    values: dict[str, Any] = {"relationship": "appointment"} if explanation == "care" else {}
    log.add(1, patient=PATIENT, request=UUID(int=3), **values)
    if explanation == "work after":
        log.add(5, patient=PATIENT, action="C")
    if explanation == "list":
        log.add(1, request=UUID(int=3))
    log.settle(60)
    assert log.raised == []


@pytest.mark.parametrize("rule", CONCERNING)
def test_an_emergency_explains_no_look_up_of_somebody_one_knows(rule: Rule) -> None:
    log = Log(CONCERNING[rule])
    log.add(0, patient=PATIENT, relationship="break-glass")
    log.settle(60)
    assert log.raised == [rule]


def test_people_without_a_known_name_share_none() -> None:
    log = Log(People(staff={SOMEBODY: Name()}, patients={PATIENT: Name()}))
    log.add(0, patient=PATIENT)
    log.settle(60)
    assert log.raised == []


NIGHT = 17 * 60
"""Minutes from nine in the morning to two at night, in Moscow."""


def test_patients_at_an_hour_when_one_never_works() -> None:
    log = Log()
    for n in range(3):
        log.add(NIGHT + n)
    assert log.raised == [Rule.OFF_HOURS]


def test_night_duty_is_usual_for_who_has_had_it() -> None:
    log = Log()
    for night in range(4):
        for n in range(2 if night < 2 else 5):
            log.add(night * 24 * 60 + NIGHT + n)
    assert log.raised == []


@pytest.mark.parametrize(
    ("second", "minutes", "expected"),
    [("BR", 200, [Rule.IMPOSSIBLE_TRAVEL]), ("BR", 300, []), ("RU", 200, []), (None, 200, [])],
)
def test_logins_from_two_countries(second: str | None, minutes: int, expected: list[Rule]) -> None:
    log = Log()
    log.login(0, SOMEBODY, country="RU")
    log.login(minutes, SOMEBODY, country=second)
    assert log.raised == expected


def test_exports_of_whole_records() -> None:
    log = Log()
    for n in range(3):
        log.add(60 * n, action="E", resource_type="PatientExport")
    assert log.raised == []
    log.add(200, action="E", resource_type="PatientExport")
    assert log.raised == [Rule.MASS_EXPORT]


def test_lists_of_hundreds_of_patients() -> None:
    log = Log()
    for n in range(151):
        log.add(n / 60, request=UUID(int=n // 100))
    assert Rule.MASS_EXPORT in log.raised


@pytest.mark.parametrize(("apart", "expected"), [(0.4, [Rule.REPEATED_DENIALS]), (1.0, [])])
def test_one_refusal_after_the_other(apart: float, expected: list[Rule]) -> None:
    log = Log()
    for n in range(12):
        log.add(n * apart, denied=True)
    assert log.raised == expected


def test_guesses_at_one_password_and_one_guess_at_everybodys() -> None:
    log = Log()
    for n in range(10):
        log.login(n, SOMEBODY, denied=True)
    assert log.raised == [Rule.FAILED_LOGINS]
    for n in range(15):
        log.login(60 + n / 10, UUID(int=1000 + n), denied=True)
    assert [alarm.person for alarm in log.alarms] == [SOMEBODY, UUID(int=0)]


def test_patients_and_the_platform_itself_are_nobodys_suspects() -> None:
    log = Log(CONCERNING[Rule.WATCHED_PATIENT])
    for n in range(60):
        log.add(n, kind="patient")
        log.add(n, kind="system")
    log.add(60, kind="patient", patient=PATIENT)
    log.settle(120)
    assert log.raised == []
