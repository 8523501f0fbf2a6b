"""What is measured: figures with their targets, and the registry that `make bench` runs.

A figure is a ratio against a limit of the same run wherever there is one: absolute numbers say more about
the machine. Times and memory stand against what the design asks for.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinic_local.testing import System

    from .servers import Bench


@dataclass(frozen=True, kw_only=True)
class Figure:
    """`limit`, where there is one, is what the same run reached without us; `target` is for the ratio then."""

    name: str
    ours: float
    target: float
    unit: str = ""
    limit: float | None = None
    at_most: bool = False

    @classmethod
    def ratio(cls, name: str, *, ours: float, limit: float, target: float) -> "Figure":
        """Return how ours compares with the limit of the same run; the more the better."""
        return cls(name=name, ours=round(ours, 1), limit=round(limit, 1), target=target, unit="/s")

    @classmethod
    def ceiling(cls, name: str, value: float, unit: str, *, target: float) -> "Figure":
        """Return a time or a size: the less the better."""
        return cls(name=name, ours=round(value, 1), unit=unit, target=target, at_most=True)

    @classmethod
    def floor(cls, name: str, value: float, unit: str, *, target: float) -> "Figure":
        """Return a rate that has no limit to be compared with: the more the better."""
        return cls(name=name, ours=round(value, 1), unit=unit, target=target)

    @property
    def compared(self) -> float:
        """What stands against the target."""
        return self.ours if self.limit is None else round(self.ours / self.limit, 3)

    @property
    def reached(self) -> bool:
        return self.compared <= self.target if self.at_most else self.compared >= self.target

    def row(self) -> dict[str, Any]:
        return {**asdict(self), "compared": self.compared, "reached": self.reached}


OnServers = Callable[["Bench"], Awaitable[list[Figure]]]
OnSystem = Callable[["System"], list[Figure]]
Alone = Callable[[], list[Figure]]

on_servers: dict[str, OnServers] = {}
on_system: dict[str, OnSystem] = {}
alone: dict[str, Alone] = {}
patient: dict[str, OnSystem] = {}


def needs_servers(measure: OnServers) -> OnServers:
    """Register a measurement of parts: it gets PostgreSQL and RabbitMQ, and starts what it needs of us."""
    on_servers[measure.__name__] = measure
    return measure


def needs_system(measure: OnSystem) -> OnSystem:
    """Register a measurement of the whole: it gets a running system, which the next one gets after it."""
    on_system[measure.__name__] = measure
    return measure


def needs_patience(measure: OnSystem) -> OnSystem:
    """Register a measurement of the whole that takes minutes: it is made only when it is asked for by name."""
    patient[measure.__name__] = measure
    return measure


def needs_nothing(measure: Alone) -> Alone:
    """Register a measurement that starts all it needs by itself."""
    alone[measure.__name__] = measure
    return measure
