"""Waiting on a machine that may be slow: as long as something moves, and never without saying for what."""

import subprocess
import time
from collections.abc import Callable, Sequence

import httpx
import psycopg
from clinic_local.api_client import ApiError

UNDONE_SECONDS = 120
NOT_NOW = (psycopg.Error, httpx.HTTPError, ApiError, OSError, LookupError, subprocess.SubprocessError)
"""What trying to do something to a system that is getting over something else may raise."""
_MOST = 3
_SHOWN, _SHOWN_LENGTH = 6, 100
_TELL_EVERY_SECONDS = 15.0


class Watch:
    """A deadline that begins anew whenever what is open has changed, up to three times as long in all."""

    def __init__(
        self,
        seconds: float,
        tell: Callable[[str], None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._tell = tell
        self._clock = clock
        now = clock()
        self._deadline = now + seconds
        self._end = now + _MOST * seconds
        self._open: tuple[str, ...] = ()
        self._told_at = now

    @property
    def is_over(self) -> bool:
        return self._clock() > self._deadline

    def note(self, open_: Sequence[str]) -> None:
        """Hear what still keeps us waiting."""
        now = self._clock()
        if tuple(open_) != self._open:
            self._open = tuple(open_)
            self.extend(0)
        if self._tell is not None and now - self._told_at > _TELL_EVERY_SECONDS:
            self._told_at = now
            shown = [one[:_SHOWN_LENGTH] for one in self._open[:_SHOWN]]
            self._tell(f"waiting for {'; '.join(shown)}{' ...' if len(self._open) > _SHOWN else ''}")

    def extend(self, seconds: float) -> None:
        """Wait for something that will be tried again in so many seconds, and then as long as for anything."""
        self._deadline = min(self._end, self._clock() + seconds + self._seconds)


def undo(action: Callable[[], object], *, within_seconds: float = UNDONE_SECONDS) -> None:
    """Repair what was broken on purpose, trying until it can be done: a fault that stays would prove nothing."""
    deadline = time.monotonic() + within_seconds
    while True:
        try:
            action()
        except NOT_NOW:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
