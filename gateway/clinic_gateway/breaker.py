"""A circuit breaker: who can't answer isn't asked for a while, and is then tried with one request at a time.

Pure: times come in as arguments, in seconds of any steady clock.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from clinic_gateway.errors import CircuitOpenError


class Circuit(StrEnum):
    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


@dataclass(frozen=True)
class BreakerPolicy:
    failures_in_a_row: int = 5
    """So many open a circuit that was well; mixed with successes it takes as many as make up half."""
    successes_to_close: int = 2
    open_seconds: float = 1
    """How long it stays open the first time; each failed trial doubles that."""
    longest_open_seconds: float = 15


class CircuitBreaker:
    """Every `admit` is followed by exactly one of `succeeded`, `failed` and `abandoned` with its ticket.

    A ticket is of the state in which it was given: what comes back later says nothing about now.
    """

    def __init__(
        self, policy: BreakerPolicy | None = None, *, jitter: Callable[[], float] = random.random
    ) -> None:
        self._policy = policy or BreakerPolicy()
        self._jitter = jitter
        self._weight = 1 - 0.5 ** (1 / self._policy.failures_in_a_row)
        self._state = Circuit.CLOSED
        self._ticket = 0
        self._failing = 0.0
        self._open_until = 0.0
        self._openings = 0
        self._trial_under_way = False
        self._trials_passed = 0

    @property
    def state(self) -> Circuit:
        return self._state

    def admit(self, now: float) -> int:
        """Return a ticket for one request. Raises CircuitOpenError."""
        if self._state is Circuit.CLOSED:
            return self._ticket
        if self._state is Circuit.OPEN:
            if now < self._open_until:
                raise CircuitOpenError(self._open_until - now)
            self._enter(Circuit.HALF_OPEN)
        if self._trial_under_way:
            raise CircuitOpenError(self._policy.open_seconds)
        self._trial_under_way = True
        return self._ticket

    def succeeded(self, ticket: int) -> None:
        if ticket != self._ticket:
            return
        self._failing -= self._failing * self._weight
        if self._state is Circuit.HALF_OPEN:
            self._trial_under_way = False
            self._trials_passed += 1
            if self._trials_passed == self._policy.successes_to_close:
                self._openings = 0
                self._enter(Circuit.CLOSED)

    def failed(self, ticket: int, now: float) -> None:
        if ticket != self._ticket:
            return
        self._failing += (1 - self._failing) * self._weight
        # Rounding must not make it one failure more.
        if self._state is Circuit.HALF_OPEN or self._failing > 0.5 - 1e-9:  # half
            self._open(now)

    def abandoned(self, ticket: int) -> None:
        """The request ended without saying anything about the upstream: its caller went away."""
        if ticket == self._ticket:
            self._trial_under_way = False

    def _open(self, now: float) -> None:
        policy = self._policy
        longest = min(policy.longest_open_seconds, policy.open_seconds * 2.0 ** min(self._openings, 16))
        # Replicas of the gateway must not all come back in the same instant.
        self._open_until = now + longest * (0.5 + self._jitter() / 2)
        self._openings += 1
        self._enter(Circuit.OPEN)

    def _enter(self, state: Circuit) -> None:
        self._state = state
        self._ticket += 1
        self._failing = 0.0
        self._trial_under_way = False
        self._trials_passed = 0
