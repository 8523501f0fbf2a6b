"""A run of the fault matrix: traffic, seeded faults, quiet, the verdict."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from clinic_local.api_client import ApiError, Caller
from clinic_local.commands_reporting import REBUILDS, UNDER_WAY

from . import planting
from .accounting import Finding, Verdict, Violation
from .nemeses import NEMESES, RARE, Injection, Scene, readers_of_poison
from .serial import differing_charts
from .stage import Stage
from .traffic import ALL_KINDS, Flow
from .waiting import NOT_NOW

QUIET_SECONDS = 300
LONG_SECONDS = 300
LOOK_EVERY_SECONDS = 3.0
MOST_UNDER_WAY = 300
MOST_TRIES = 3
_NOT_NOW = (*NOT_NOW, ApiError)
_PAUSE_SECONDS = (0.02, 0.15)
_AS_MANY_AS_THERE_IS_TIME_FOR = 1_000_000
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    injections: tuple[Injection, ...]
    verdict: Verdict

    @property
    def passed(self) -> bool:
        return self.verdict.sound


def run(stage: Stage, *, seed: int, seconds: float, faults: int | None = None, tell: Tell = print) -> Run:
    """Let traffic flow and things go wrong for so long, then wait for quiet and look at the books.

    With `faults`, no longer than until so many have been met.
    """
    rng = random.Random(seed)
    stage.books.settle(tell=tell)
    traffic = stage.traffic
    injections: list[Injection] = []
    with traffic.flowing(ALL_KINDS, at_most=_AS_MANY_AS_THERE_IS_TIME_FOR, hardy=True) as flow:
        flow.wait_for_more()
        scene = Scene(stage, rng, flow, traffic.patients)
        gate = Gate(stage, flow)
        deck = Deck(rng, is_long=seconds >= LONG_SECONDS)
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at and (faults is None or sum(i.hit for i in injections) < faults):
            injection = _inject(scene, deck.draw())
            tell(str(injection))
            if injection.injected:
                injections.append(injection)
            else:
                deck.put_back(injection.nemesis)
            gate.look()
            time.sleep(rng.uniform(*_PAUSE_SECONDS))
        tell("no more faults: what was begun is finished")
    tell("quiet: waiting until everything has come to rest")
    verdict = _verdict(scene, tell)
    return Run(tuple(injections), replace(verdict, findings=(*verdict.findings, *turned_away(flow))))


class Gate:
    """Lets callers in only as long as what was accepted is worked off: else quiet would be hours away."""

    def __init__(self, stage: Stage, flow: Flow) -> None:
        self._books = stage.books
        self._flow = flow
        self._looked_at = 0.0

    def look(self) -> None:
        if time.monotonic() - self._looked_at < LOOK_EVERY_SECONDS:
            return
        self._looked_at = time.monotonic()
        with suppress(*_NOT_NOW):
            if self._books.backlog() > MOST_UNDER_WAY:
                self._flow.is_open.clear()
            else:
                self._flow.is_open.set()


class Deck:
    """Which nemesis is next: first each of them once, in any order, then by weight."""

    def __init__(self, rng: random.Random, *, is_long: bool) -> None:
        self._rng = rng
        self._weights = {name: weight for name, (_, weight) in NEMESES.items()}
        self._once = [name for name, weight in self._weights.items() if weight > RARE or is_long]
        rng.shuffle(self._once)
        self._put_back: Counter[str] = Counter()

    def draw(self) -> str:
        if self._once:
            return self._once.pop()
        return self._rng.choices(list(self._weights), list(self._weights.values()))[0]

    def put_back(self, name: str) -> None:
        """It could not be done now; its turn comes again after the others, but not for ever."""
        self._put_back[name] += 1
        if self._put_back[name] <= MOST_TRIES:
            self._once.insert(0, name)


def _inject(scene: Scene, name: str) -> Injection:
    """Do it. What can't be done because of what was done before is not counted."""
    begun = time.monotonic()
    try:
        target, hit = NEMESES[name][0](scene)
    except _NOT_NOW as error:
        target, hit = f"{type(error).__name__}: {error}".partition("\n")[0], None
    seconds = time.monotonic() - begun
    return Injection(name, target, hit=bool(hit), injected=hit is not None, seconds=seconds)


def turned_away(flow: Flow) -> Iterator[Finding]:
    """Whoever asked for something that can be had gets it, however long that takes, and no refusal."""
    for kind in flow.done:
        told = tuple(repr(error) for errand, error in flow.errors if errand == kind)
        if told:
            yield Finding(Violation.TURNED_AWAY, f"traffic of {kind}", told)


def _verdict(scene: Scene, tell: Tell) -> Verdict:
    """Return the verdict once nothing waits but what was planted, and a person has discarded that."""
    stage = scene.stage
    books, operator = stage.books, stage.caller("admin")
    verdict = books.until(
        lambda verdict: not _unexpected(verdict, scene), within_seconds=QUIET_SECONDS, tell=tell
    )
    if _unexpected(verdict, scene):
        return verdict
    for consumer in readers_of_poison(scene) if scene.poisons else ():
        planting.discard_all(operator, consumer)
    verdict = books.settle(within_seconds=QUIET_SECONDS, tell=tell)
    if not verdict.sound:
        return verdict
    tell("at rest: charts and read models are made once more, and compared")
    more = (*differing_charts(stage, tell), *differing_read_models(operator))
    return replace(verdict, findings=(*verdict.findings, *more))


def _unexpected(verdict: Verdict, scene: Scene) -> list[Finding]:
    """Return findings beside planted messages that wait, parked, for a person.

    Not each of them must: they were published without a confirm, so the broker may have lost them.
    """
    planted = {f"{event_id} parked" for event_id in scene.poisons}
    places = {f"dead letters of {consumer}" for consumer in readers_of_poison(scene)}
    return [
        finding
        for finding in verdict.findings
        if finding.where not in places or not planted.issuperset(finding.what)
    ]


def differing_read_models(operator: Caller) -> Iterator[Finding]:
    """Make the reports' read models once more from the event logs, and compare."""
    begun = operator.post(REBUILDS, {"compare_only": True})["rebuild_id"]
    deadline = time.monotonic() + QUIET_SECONDS
    while (found := operator.get(f"{REBUILDS}/{begun}"))["state"] in UNDER_WAY:
        if time.monotonic() > deadline:
            yield Finding(Violation.LEFT_OVER, "the comparison of read models", (found["state"],))
            return
        time.sleep(0.2)
    if found["failure"] or found["difference_count"] is None:
        yield Finding(Violation.LEFT_OVER, "the comparison of read models", (str(found["failure"]),))
    rows = tuple(str(row) for row in found["differences"])
    if rows:
        yield Finding(Violation.DIFFERENT, "read models made again from the event logs", rows)
