"""What became of everything that got an answer: each disposition counted by itself, never as a remainder.

A service registers its interfaces at start-up; `/v1/ops/ledger` shows them with whether they add up.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, cast

from clinic_shared.database import Transaction

if TYPE_CHECKING:
    from clinic_shared.service import Runtime


@dataclass(frozen=True, kw_only=True)
class Dispositions:
    """Counts of one interface. `in_flight` includes what is held."""

    answered: int
    applied: int = 0
    parked: int = 0
    rejected: int = 0
    superseded: int = 0
    duplicate: int = 0
    discarded: int = 0
    in_flight: int = 0

    @property
    def balanced(self) -> bool:
        return self.unaccounted == 0

    @property
    def unaccounted(self) -> int:
        """How many were answered and have no disposition; below zero: have several."""
        parts: dict[str, int] = asdict(self)
        return parts.pop("answered") - sum(parts.values())


CountDispositions = Callable[[Transaction], Awaitable[Dispositions]]
SumMovements = Callable[[Transaction], Awaitable[int]]


@dataclass
class Ledger:
    """The interfaces of one service, and the sum of its money movements if it has any."""

    interfaces: dict[str, CountDispositions] = field(default_factory=dict)
    money: SumMovements | None = None

    @classmethod
    def of(cls, runtime: "Runtime") -> "Ledger":
        ledger = runtime.resources.get(cls)
        if ledger is None:
            ledger = cls()
            runtime.provide(ledger)
        return cast("Ledger", ledger)
