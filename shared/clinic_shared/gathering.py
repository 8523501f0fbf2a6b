"""When to begin the next round: at once while little comes, and with all that has gathered when much does.

Ten items in one transaction, or one look, cost hardly more than one: who begins whenever something is there is
busy with single items just when there is least time for it.
"""

import time
from math import inf


class Gathering:
    """Rounds begin `seconds` apart once `at_once` of them have begun in a row. Nobody is kept for longer."""

    def __init__(self, seconds: float, *, at_once: int = 4) -> None:
        self._seconds = seconds
        self._at_once = at_once
        self._paid_at = -inf
        """When all rounds begun so far will have had their time."""

    @property
    def wait_seconds(self) -> float:
        """How long to wait for more before the next round."""
        ahead = self._paid_at - time.monotonic()
        return max(0.0, ahead - (self._at_once - 1) * self._seconds)

    def begin(self) -> None:
        """A round begins, whether or not it has waited."""
        now = time.monotonic()
        self._paid_at = min(max(self._paid_at, now) + self._seconds, now + self._at_once * self._seconds)
