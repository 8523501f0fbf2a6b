"""Rate limits by GCRA: one number per caller, no timers, no windows that reset for everyone at once.

In memory and per replica; limits that must survive a restart (login attempts) are identity's business.
"""

from clinic_gateway.errors import TooManyRequestsError

MAX_CALLERS = 100_000


class RateLimit:
    """At most `per_second` on average and `burst` at once for each key; 0 per second means no limit.

    `_due` holds each key's theoretical arrival time: when its allowance will be whole again.
    """

    def __init__(self, per_second: float, burst: float, *, max_callers: int = MAX_CALLERS) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._tolerance = self._interval * max(burst - 1, 0)
        self._max_callers = max_callers
        self._due: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def check(self, key: str, now: float) -> None:
        """Count one request at `now`, in seconds of any steady clock. Raises TooManyRequestsError."""
        if not self._interval:
            return
        due = max(self._due.get(key, now), now)
        wait = due - self._tolerance - now
        if wait > 0:
            raise TooManyRequestsError(wait)
        self._due[key] = due + self._interval
        if len(self._due) > self._max_callers:
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop callers whose allowance is whole; in a flood of new ones, also the oldest half."""
        self._due = {key: due for key, due in self._due.items() if due > now}
        if len(self._due) > self._max_callers // 2:
            self._due = dict(list(self._due.items())[self._max_callers // 2 :])
