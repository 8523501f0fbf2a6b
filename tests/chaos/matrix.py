"""A run of the fault matrix: traffic, seeded faults, quiet, the verdict."""

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import httpx
import psycopg
from clinic_local.api_client import ApiError, Caller
from clinic_local.commands_reporting import REBUILDS, UNDER_WAY

from . import planting
from .accounting import Finding, Verdict, Violation
from .nemeses import NEMESES, RARE, Injection, Scene, readers_of_poison
from .serial import differing_charts
from .stage import Stage
from .traffic import ALL_KINDS

QUIET_SECONDS = 300
LONG_SECONDS = 300
_NOT_NOW = (psycopg.Error, httpx.HTTPError, OSError, LookupError, subprocess.SubprocessError, ApiError)
_PAUSE_SECONDS = (0.05, 0.6)
_AS_MANY_AS_THERE_IS_TIME_FOR = 1_000_000


@dataclass(frozen=True)
class Run:
    injections: tuple[Injection, ...]
    verdict: Verdict

    @property
    def passed(self) -> bool:
        return self.verdict.sound


def run(
    stage: Stage,
    *,
    seed: int,
    seconds: float,
    tell: Callable[[str], None] = print,
) -> Run:
    """Let traffic flow and things go wrong for so long, then wait for quiet and look at the books."""
    rng = random.Random(seed)
    stage.books.settle()
    traffic = stage.traffic
    scene = Scene(stage, rng, traffic.patients)
    injections = []
    with traffic.flowing(ALL_KINDS, at_most=_AS_MANY_AS_THERE_IS_TIME_FOR) as flow:
        flow.wait_for_more()
        deck = Deck(rng, is_long=seconds >= LONG_SECONDS)
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            injection = _inject(scene, deck.draw())
            tell(str(injection))
            if injection.injected:
                injections.append(injection)
            else:
                deck.put_back(injection.nemesis)
            assert not flow.errors, flow.errors
            time.sleep(rng.uniform(*_PAUSE_SECONDS))
    tell("quiet: waiting until everything has come to rest")
    return Run(tuple(injections), _verdict(scene))


class Deck:
    """Which nemesis is next: first each of them once, in any order, then by weight."""

    def __init__(self, rng: random.Random, *, is_long: bool) -> None:
        self._rng = rng
        self._weights = {name: weight for name, (_, weight) in NEMESES.items()}
        self._once = [name for name, weight in self._weights.items() if weight > RARE or is_long]
        rng.shuffle(self._once)

    def draw(self) -> str:
        if self._once:
            return self._once.pop()
        return self._rng.choices(list(self._weights), list(self._weights.values()))[0]

    def put_back(self, name: str) -> None:
        """It could not be done now; its turn comes again after the others."""
        self._once.insert(0, name)


def _inject(scene: Scene, name: str) -> Injection:
    """Do it. What can't be done because of what was done before is not counted."""
    begun = time.monotonic()
    try:
        target, hit = NEMESES[name][0](scene)
    except _NOT_NOW as error:
        return Injection(
            name, type(error).__name__, hit=False, injected=False, seconds=time.monotonic() - begun
        )
    return Injection(name, target, hit=hit, seconds=time.monotonic() - begun)


def _verdict(scene: Scene) -> Verdict:
    """Return the verdict once nothing waits but what was planted, and a person has discarded that."""
    books, operator = scene.stage.books, scene.stage.caller("admin")
    verdict = books.until(lambda verdict: not _unexpected(verdict, scene), within_seconds=QUIET_SECONDS)
    if _unexpected(verdict, scene):
        return verdict
    for consumer in readers_of_poison(scene) if scene.poisons else ():
        planting.discard_all(operator, consumer)
    verdict = books.settle(within_seconds=QUIET_SECONDS)
    more = (*differing_charts(scene.stage), *differing_read_models(operator)) if verdict.sound else ()
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
