"""What nemeses work with, and the list of them: by name, with how often each is drawn.

A nemesis either tells whom it struck and whether the fault was met, or leaves a trap: a fault that waits for
somebody to pass by, while the run goes on.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from clinic_local.state import RunState

from .people import Patient
from .proxy import FaultProxy
from .stage import Stage
from .traffic import Flow

POSTGRES, RABBITMQ = "postgres", "rabbitmq"
LAB, SCHEDULING = "lab-integration", "scheduling"
RARE = 0
"""Takes a good part of a minute: only in runs that are long."""
MOST_SECONDS = 5.0
"""So long a fault lasts in order to be met."""


@dataclass(frozen=True)
class Injection:
    """What was done, to whom, and whether it was met: a fault may wait in vain."""

    nemesis: str
    target: str
    hit: bool
    injected: bool = True
    seconds: float = 0.0

    def __str__(self) -> str:
        outcome = "hit" if self.hit else "missed" if self.injected else "not possible now"
        return f"{self.seconds:5.1f} s  {self.nemesis}: {self.target}, {outcome}"


@dataclass(frozen=True)
class Trap:
    """Waits for somebody; one at a time in each `place`."""

    place: object
    target: str
    is_met: Callable[[], bool]
    take_away: Callable[[], None]


@dataclass
class Scene:
    stage: Stage
    rng: random.Random
    flow: Flow
    patients: list[Patient]
    longest_seconds: float = 2.0
    poisons: set[UUID] = field(default_factory=set)
    """What was planted, and every consumer has to park."""
    tried: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often somebody was to die at each crash point, by service and label."""
    traps: dict[object, Trap] = field(default_factory=dict)
    """Laid and not yet met, by place."""

    def service(self) -> str:
        return self.rng.choice(self.stage.books.services)

    def connected(self, server: str) -> str:
        """Return a service that is connected to a server. Raises LookupError."""
        found = self.wire(server).owners().intersection(self.stage.books.services)
        if not found:
            raise LookupError(f"nobody is connected to {server}")
        return self.rng.choice(sorted(found))

    def process(self) -> str:
        """Return a process that runs now: of a service, or the gateway. Raises LookupError."""
        running = RunState.read(self.stage.system.root)
        found = [
            p.name
            for p in (running.processes if running else ())
            if p.kind in {"service", "gateway"} and p.pid is not None and p.state == "running"
        ]
        if not found:
            raise LookupError("no process runs")
        return self.rng.choice(found)

    def last(self, is_met: Callable[[], bool] = lambda: True) -> bool:
        """Let a fault last for a while, and longer until it is met. Returns whether it was."""
        time.sleep(self.rng.uniform(0.2, self.longest_seconds))
        return wait_until(is_met, seconds=MOST_SECONDS)

    def wire(self, server: str) -> FaultProxy:
        return self.stage.wires[server]


Nemesis = Callable[[Scene], tuple[str, bool] | Trap]
NEMESES: dict[str, tuple[Nemesis, int]] = {}
"""By name: what it does, and how often it is drawn."""


def nemesis(name: str, weight: int = 4) -> Callable[[Nemesis], Nemesis]:
    def register(function: Nemesis) -> Nemesis:
        NEMESES[name] = function, weight
        return function

    return register


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Wait until it holds, or in vain. Returns whether it holds."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds
