"""`python -m clinic_audit.detection_quality [FILE]`: what the rules find of what was planted, and how often they are wrong."""

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from clinic_audit.detection import Detector
from clinic_audit.detection_rules import Rule, Rules
from clinic_audit.histories import CASES_FROM_DAY, Case, History, local_day, made_up

_A_DAY = timedelta(days=1)
SEEDS = (11, 23, 47, 83)


@dataclass
class Quality:
    """Counts over some histories, once habits are known. An alarm is right when its person did something that day."""

    planted: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    alarms: Counter[Rule] = field(default_factory=Counter)
    right: Counter[Rule] = field(default_factory=Counter)
    staff_days: int = 0

    @property
    def recall(self) -> float:
        return self.found.total() / self.planted.total()

    @property
    def precision(self) -> float:
        return self.right.total() / self.alarms.total()

    @property
    def false_alarms_per_thousand_staff_days(self) -> float:
        return 1000 * (self.alarms.total() - self.right.total()) / self.staff_days


def measure(rules: Rules, seeds: Sequence[int] = SEEDS) -> Quality:
    quality = Quality()
    for seed in seeds:
        _judge(quality, made_up(seed), rules)
    return quality


def _judge(quality: Quality, history: History, rules: Rules) -> None:
    detector = Detector(rules)
    alarms = [alarm for act in history.acts for alarm in detector.observe(act, history.people)]
    alarms += detector.settle(history.acts[-1].at + _A_DAY)
    cases: defaultdict[tuple[object, int], list[Case]] = defaultdict(list)
    for case in history.cases:
        cases[case.person, case.day].append(case)
    raised: defaultdict[tuple[object, int], set[Rule]] = defaultdict(set)
    for alarm in alarms:
        if local_day(alarm.last_at) < CASES_FROM_DAY:
            continue
        day = (alarm.person, local_day(alarm.last_at))
        raised[day].add(alarm.rule)
        quality.alarms[alarm.rule] += 1
        quality.right[alarm.rule] += day in cases
    for case in history.cases:
        quality.planted[case.kind] += 1
        quality.found[case.kind] += bool(case.rules & raised[case.person, case.day])
    worked = {(act.agent, local_day(act.at)) for act in history.acts if act.kind == "staff"}
    quality.staff_days += sum(1 for _, day in worked if day >= CASES_FROM_DAY)


def show(quality: Quality) -> None:
    print("planted                found")
    for kind, planted in sorted(quality.planted.items()):
        print(f"  {kind:<20} {quality.found[kind]:>3} of {planted}")
    print("rule                   right")
    for rule, alarms in sorted(quality.alarms.items()):
        print(f"  {rule:<20} {quality.right[rule]:>3} of {alarms}")
    print(
        f"recall {quality.recall:.3f}, precision {quality.precision:.3f}, false alarms per 1,000 staff-days "
        f"{quality.false_alarms_per_thousand_staff_days:.1f} ({quality.staff_days} staff-days)"
    )


def main() -> None:
    show(measure(Rules.load(Path(sys.argv[1]) if len(sys.argv) > 1 else None)))


if __name__ == "__main__":
    main()
