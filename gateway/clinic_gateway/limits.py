"""Rate limits by GCRA: one number per caller, no timers, no windows that reset for everyone at once.

In memory and per replica; limits that must survive a restart (login attempts) are identity's business.
"""

import math
from typing import NamedTuple

from clinic_gateway.errors import TooManyRequestsError

MAX_CALLERS = 100_000


class Standing(NamedTuple):
    """Where a caller stands with one limit, in the words of draft-ietf-httpapi-ratelimit-headers."""

    policy: str
    remaining: int
    reset_seconds: int
    """Until the allowance is whole again; of a refused caller, until the next request is taken."""

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        name = self.policy.partition(";")[0]
        state = f"{name};r={self.remaining};t={self.reset_seconds}"
        return (b"ratelimit-policy", self.policy.encode()), (b"ratelimit", state.encode())


class RateLimit:
    """At most `per_second` on average and `burst` at once for each key; 0 per second means no limit.

    `_due` holds each key's theoretical arrival time: when its allowance will be whole again.
    """

    def __init__(self, name: str, per_second: float, burst: float, *, max_callers: int = MAX_CALLERS) -> None:
        self.name = name
        self._burst = burst
        self._policy = f'"{name}";q={int(burst)};w={math.ceil(burst / per_second)}' if per_second else ""
        self._interval = 1 / per_second if per_second else 0.0
        self._tolerance = self._interval * max(burst - 1, 0)
        self._max_callers = max_callers
        self._due: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def check(self, key: str, now: float) -> Standing | None:
        """Count one request at `now`, in seconds of any steady clock. None: there is no limit.

        Raises TooManyRequestsError.
        """
        if not self._interval:
            return None
        due = max(self._due.get(key, now), now)
        wait = due - self._tolerance - now
        if wait > 0:
            raise TooManyRequestsError(Standing(self._policy, 0, math.ceil(wait)), wait)
        self._due[key] = due + self._interval
        if len(self._due) > self._max_callers:
            self._forget(now)
        used = due + self._interval - now
        return Standing(self._policy, int(self._burst - used / self._interval + 1e-9), math.ceil(used))

    def _forget(self, now: float) -> None:
        """Drop callers whose allowance is whole; in a flood of new ones, also the oldest half."""
        self._due = {key: due for key, due in self._due.items() if due > now}
        if len(self._due) > self._max_callers // 2:
            self._due = dict(list(self._due.items())[self._max_callers // 2 :])
