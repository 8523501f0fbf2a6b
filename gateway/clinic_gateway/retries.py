"""How often a request may be sent again: a budget, so that retries never become the overload themselves."""

import random

from clinic_shared.errors import DomainError

from clinic_gateway.errors import BadGatewayError, ServiceDownError
from clinic_gateway.exchange import Exchange

RETRIES = 2
"""Of one request, at most."""
FIRST_PAUSE_SECONDS = 0.05
SAFE_METHODS = frozenset(("GET", "HEAD"))


class RetryBudget:
    """`ratio` retries per request, on top of a reserve that quiet hours live on.

    The reserve fills at `reserve` per minute by time alone, and never above `reserve`.
    """

    def __init__(self, ratio: float, reserve: float) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._balance = reserve
        self._seen_at = 0.0

    def deposit(self, now: float) -> None:
        """Count a request that is sent for the first time."""
        idle_seconds = now - self._seen_at
        self._seen_at = now
        earned = self._ratio + self._reserve * idle_seconds / 60
        self._balance = min(self._reserve, self._balance + earned)

    def withdraw(self) -> bool:
        """Take one retry out, if there is one."""
        if self._balance < 1:
            return False
        self._balance -= 1
        return True


def is_repeatable(exchange: Exchange, error: DomainError) -> bool:
    """Tell whether a failed request may be sent again without taking effect twice."""
    if isinstance(error, ServiceDownError):
        return True  # not a byte of it was sent
    keyed = b"idempotency-key" in exchange.headers
    return isinstance(error, BadGatewayError) and (exchange.method in SAFE_METHODS or keyed)


def pause_seconds(retry: int) -> float:
    """Return how long to wait before the retry with this number, counted from 0."""
    return FIRST_PAUSE_SECONDS * 2.0**retry * random.uniform(0.5, 1.5)  # noqa: S311  # jitter, not a secret
