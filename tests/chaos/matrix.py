"""A run of the fault matrix: traffic, seeded faults, quiet, the verdict."""

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from clinic_local.api_client import Caller
from clinic_local.commands_reporting import REBUILDS, UNDER_WAY

from . import planting
from .accounting import Finding, Verdict, Violation
from .nemeses import readers_of_poison
from .scene import NEMESES, RARE, Injection, Scene, Trap, wait_until
from .serial import differing_charts
from .stage import Stage
from .traffic import ALL_KINDS, Flow
from .traps import TRAP_SECONDS
from .waiting import NOT_NOW

QUIET_SECONDS = 300
LONG_SECONDS = 300
LOOK_EVERY_SECONDS = 3.0
LOOK_AGAIN_SECONDS = 0.1
MOST_UNDER_WAY = 300
MOST_TRIES = 3
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


def run(
    stage: Stage,
    *,
    seed: int,
    seconds: float,
    faults: int | None = None,
    only: Collection[str] = (),
    tell: Tell = print,
) -> Run:
    """Let traffic flow and things go wrong for so long, then wait for quiet and look at the books.

    With `faults`, no longer than until so many have been met. With `only`, faults of these names.
    """
    rng = random.Random(seed)
    stage.books.settle(tell=tell)
    traffic = stage.traffic
    with traffic.flowing(
        ALL_KINDS, at_most=_AS_MANY_AS_THERE_IS_TIME_FOR, hardy=True, errands=stage.errands
    ) as flow:
        flow.wait_for_more()
        scene = Scene(stage, rng, flow, traffic.patients)
        gate = Gate(stage, flow)
        tally = Tally(scene, tell)
        deck = Deck(rng, is_long=seconds >= LONG_SECONDS, only=only)
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at and (faults is None or tally.met < faults):
            name = deck.draw()
            if not tally.inject(name):
                deck.put_back(name)
            tally.look_into_traps()
            gate.look()
            time.sleep(rng.uniform(*_PAUSE_SECONDS))
        tell("no more faults: what was begun is finished")
        tally.clear_traps(meanwhile=gate.look)
    tell("quiet: waiting until everything has come to rest")
    verdict = _verdict(scene, tell)
    return Run(tuple(tally.injections), replace(verdict, findings=(*verdict.findings, *turned_away(flow))))


class Tally:
    """What was injected, and whether it was met: of a trap that is known only later."""

    def __init__(self, scene: Scene, tell: Tell) -> None:
        self.injections: list[Injection] = []
        self._scene = scene
        self._tell = tell
        self._laid: list[tuple[str, Trap, float]] = []

    @property
    def met(self) -> int:
        return sum(injection.hit for injection in self.injections)

    def inject(self, name: str) -> bool:
        """Do it. What can't be done because of what was done before is not counted, and False."""
        begun = time.monotonic()
        try:
            done = NEMESES[name][0](self._scene)
        except NOT_NOW as error:
            self._tell(str(Injection(name, _in_short(error), hit=False, injected=False)))
            return False
        if isinstance(done, Trap):
            self._scene.traps[done.place] = done
            self._laid.append((name, done, begun))
        else:
            target, hit = done
            self._note(Injection(name, target, hit=hit, seconds=time.monotonic() - begun))
        return True

    def _note(self, injection: Injection) -> None:
        self.injections.append(injection)
        self._tell(str(injection))

    def look_into_traps(self, *, patience_seconds: float = TRAP_SECONDS) -> None:
        for name, trap, begun in list(self._laid):
            waited = time.monotonic() - begun
            is_over = waited > patience_seconds
            if is_over:
                trap.take_away()
            if trap.is_met() or is_over:
                self._laid.remove((name, trap, begun))
                del self._scene.traps[trap.place]
                self._note(Injection(name, trap.target, hit=trap.is_met(), seconds=waited))

    def clear_traps(self, *, meanwhile: Callable[[], object]) -> None:
        """Wait for those that were laid last, as for the others, and take away what is left."""
        while self._laid:
            self.look_into_traps()
            meanwhile()
            time.sleep(LOOK_AGAIN_SECONDS)


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


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
        with suppress(*NOT_NOW):
            if self._books.backlog() > MOST_UNDER_WAY:
                self._flow.is_open.clear()
            else:
                self._flow.is_open.set()


class Deck:
    """Which nemesis is next: first each of them once, in any order, then by weight."""

    def __init__(self, rng: random.Random, *, is_long: bool, only: Collection[str] = ()) -> None:
        self._rng = rng
        # A rare one that is asked for by name has its turn again, too.
        weights = {name: max(weight, 1 if only else 0) for name, (_, weight) in NEMESES.items()}
        self._weights = {name: weight for name, weight in weights.items() if not only or name in only}
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
    for consumer in readers_of_poison(scene):
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
    planted = {f"{event_id} parked" for event_id in scene.poisons | scene.stage.history.planted}
    places = {f"dead letters of {consumer}" for consumer in readers_of_poison(scene)}
    return [
        finding
        for finding in verdict.findings
        if finding.where not in places or not planted.issuperset(finding.what)
    ]


def differing_read_models(operator: Caller) -> Iterator[Finding]:
    """Make the reports' read models once more from the event logs, and compare."""
    if not wait_until(lambda: not _rebuilding(operator), seconds=QUIET_SECONDS):
        yield Finding(Violation.LEFT_OVER, "rebuilds", tuple(_rebuilding(operator)))
        return
    begun = operator.post(REBUILDS, {"compare_only": True})["rebuild_id"]
    if not wait_until(lambda: not _rebuilding(operator), seconds=QUIET_SECONDS):
        yield Finding(Violation.LEFT_OVER, "the comparison of read models", tuple(_rebuilding(operator)))
        return
    found = operator.get(f"{REBUILDS}/{begun}")
    if found["failure"] or found["difference_count"] is None:
        yield Finding(Violation.LEFT_OVER, "the comparison of read models", (str(found["failure"]),))
    rows = tuple(str(row) for row in found["differences"])
    if rows:
        yield Finding(Violation.DIFFERENT, "read models made again from the event logs", rows)


def _rebuilding(operator: Caller) -> list[str]:
    """Return how far each rebuild is that isn't over."""
    states = (str(one["state"]) for one in operator.get(REBUILDS)["rebuilds"])
    return [state for state in states if state in UNDER_WAY]
