"""The runner itself, without a system: how long it waits, what it tries again, what it reports."""

import random
import re
from collections import Counter

from clinic_local.paths import CHECKOUT

from . import report
from .accounting import Violation
from .matrix import MOST_TRIES, Deck, turned_away
from .people import Patient, Sent
from .scene import NEMESES, RARE, Injection
from .serial import MOST_MESSAGES, some_of
from .traffic import BOOKINGS, PAYMENTS, Flow
from .traps import CRASH, CRASH_POINTS
from .waiting import Watch


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_it_waits_as_long_as_something_moves_and_not_for_ever() -> None:
    clock, told = Clock(), list[str]()
    watch = Watch(60, told.append, clock=clock)
    for left in (3, 2, 1):
        clock.now += 50
        assert not watch.is_over
        watch.note([f"outbox of billing: {left}"])
    assert told
    assert "outbox of billing" in told[-1]
    clock.now += 50
    assert watch.is_over


def test_what_does_not_move_is_not_waited_for_longer() -> None:
    clock = Clock()
    watch = Watch(60, clock=clock)
    watch.note(["queue: 1"])
    clock.now += 50
    watch.note(["queue: 1"])
    clock.now += 20
    assert watch.is_over
    watch.extend(30)
    clock.now += 80
    assert not watch.is_over


def test_every_nemesis_has_its_turn_and_what_cant_be_done_is_not_tried_for_ever() -> None:
    deck = Deck(random.Random(1), is_long=True)
    assert {deck.draw() for _ in NEMESES} == NEMESES.keys()
    rare = next(name for name, (_, weight) in NEMESES.items() if weight == RARE)
    for _ in range(2 * MOST_TRIES):
        deck.put_back(rare)
    drawn = Counter(deck.draw() for _ in range(10 * MOST_TRIES))
    assert drawn[rare] == MOST_TRIES


def test_who_was_turned_away_is_part_of_the_verdict() -> None:
    flow = Flow([BOOKINGS, PAYMENTS], at_most=1, hardy=True)
    assert list(turned_away(flow)) == []
    flow.errors.append((PAYMENTS, LookupError("refused")))
    [finding] = turned_away(flow)
    assert (finding.violation, finding.where) == (Violation.TURNED_AWAY, "traffic of payments")


def test_a_part_of_the_messages_tells_whole_results_from_first_to_last() -> None:
    patient = Patient("patient", "MR-1")
    told = [Sent(patient, f"filler-{n % 50}", f"{n}".encode()) for n in range(3 * MOST_MESSAGES)]
    chosen = some_of(told, random.Random(1))
    assert MOST_MESSAGES <= len(chosen) < len(told)
    fillers = {sent.filler for sent in chosen}
    assert chosen == [sent for sent in told if sent.filler in fillers]
    assert some_of(told[:10], random.Random(1)) == told[:10]


def test_a_run_of_some_faults_draws_no_other() -> None:
    rare = next(name for name, (_, weight) in NEMESES.items() if weight == RARE)
    chosen = {rare, "kill -9 a process"}
    deck = Deck(random.Random(1), is_long=True, only=chosen)
    assert {deck.draw() for _ in range(50)} == chosen


def test_every_labelled_step_is_one_to_die_at() -> None:
    sources = [
        path
        for folder in ("shared/clinic_shared", "services", "gateway")
        for path in CHECKOUT.glob(f"{folder}/**/*.py")
    ]
    labels = {
        label
        for path in sources
        if "tests" not in path.parts
        for label in re.findall(r'\bcrash_point\("([^"]+)"\)', path.read_text(encoding="utf-8"))
    }
    armed = {label for points in CRASH_POINTS.values() for label in points}
    assert labels == armed


def test_a_report_tells_which_crash_points_were_met_tried_in_vain_and_not_tried() -> None:
    (service, (first, second, *_)), *_ = CRASH_POINTS.items()
    injections = [
        Injection(CRASH, f"{service} {first}", hit=False),
        Injection(CRASH, f"{service} {first}", hit=True),
        Injection(CRASH, f"{service} {second}", hit=False),
        Injection("kill -9 a process", "gateway", hit=True),
    ]
    met, in_vain, not_tried = report.crash_points(injections).splitlines()
    known = sum(map(len, CRASH_POINTS.values()))
    assert met == f"crash points: 1 of {known} met: {service} {first}"
    assert in_vain == f"tried in vain: {service} {second}"
    assert not_tried.startswith("not tried: ")
    assert not_tried.count(", ") == known - 3
