"""How many requests a service works on at once before it only gets slower: found out by watching it.

Pure: no clock, no waiting (that is `admission.py`).
"""

from dataclasses import dataclass

Kind = tuple[str, str]
"""Route prefix and method: what has a latency of its own."""


@dataclass(frozen=True)
class LimitPolicy:
    initial: float = 8
    highest: float = 100
    tolerated_slowdown: float = 1.5
    """Mean latency against that of requests which had the service to themselves."""
    window: int = 20
    """Answers between two adjustments."""
    step: float = 0.5
    largest_cut: float = 0.5


LEARNING, LEARNING_AT_THE_FLOOR = 0.05, 0.25
"""With a limit below two, requests are slow for another reason than each other, and that is quickly learned."""
ENOUGH_SAMPLES = 10
"""Of undisturbed requests, before others are compared with them."""
LARGEST_SLOWDOWN = 5.0
"""One request that hung says less than twenty that were slow."""


@dataclass(slots=True)
class _Undisturbed:
    """What requests of one kind take that have the service to themselves: first their mean, then a moving one."""

    seconds: float = 0.0
    samples: int = 0

    def learn(self, seconds: float, *, weight: float) -> None:
        self.samples += 1
        self.seconds += (seconds - self.seconds) * max(weight, 1 / self.samples)


class ConcurrencyLimit:
    """Additive increase, multiplicative decrease, by slowdown and not by latency: routes differ.

    What a route takes undisturbed is learned only from requests that found nobody else there; under
    steady overload there are none, so that being slow never becomes normal. If it *has* become normal
    (the database is larger now), the limit falls until requests are alone again and teach it.
    """

    def __init__(self, policy: LimitPolicy | None = None) -> None:
        self._policy = policy or LimitPolicy()
        self.limit = self._policy.initial
        self.in_flight = 0
        self._undisturbed: dict[Kind, _Undisturbed] = {}
        self._slowdowns: list[float] = []
        self._answers = 0
        self._peak = 0

    @property
    def has_room(self) -> bool:
        return self.in_flight + 1 <= self.limit

    def typical_seconds(self, kind: Kind) -> float:
        """Return what such a request takes undisturbed; 0 while that is unknown."""
        known = self._undisturbed.get(kind)
        return known.seconds if known else 0.0

    def enter(self) -> bool:
        """Count a request in, and tell whether it is alone."""
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)
        return self.in_flight == 1

    def leave(self) -> None:
        self.in_flight -= 1

    def learn(self, kind: Kind, seconds: float, *, alone: bool) -> None:
        """Take in how long a request took that was answered."""
        known = self._undisturbed.setdefault(kind, _Undisturbed())
        if alone:
            known.learn(seconds, weight=LEARNING_AT_THE_FLOOR if self.limit < 2 else LEARNING)  # noqa: PLR2004
        if known.samples >= ENOUGH_SAMPLES:
            self._slowdowns.append(min(seconds / max(known.seconds, 1e-6), LARGEST_SLOWDOWN))
        self._answers += 1
        if self._answers >= self._policy.window:
            self._adjust()

    def _adjust(self) -> None:
        # With fewer at once than half of what is allowed, the limit isn't what makes them slow or fast.
        if self._peak >= self.limit / 2:
            self.limit = min(self._policy.highest, max(1.0, self._adjusted()))
        self._slowdowns.clear()
        self._answers = 0
        self._peak = self.in_flight

    def _adjusted(self) -> float:
        policy, is_full = self._policy, self._peak + 1 > self.limit
        if len(self._slowdowns) < self._answers / 2:
            # Overloaded before anything was learned: fewer, until some are alone.
            return self.limit * policy.largest_cut if is_full else self.limit
        slowdown = sum(self._slowdowns) / len(self._slowdowns)
        if slowdown > policy.tolerated_slowdown:
            return self.limit * max(policy.largest_cut, policy.tolerated_slowdown / slowdown)
        return self.limit + policy.step if is_full else self.limit
