"""How much this replica knows of what was revoked: what it hears from the broker, and what it asks identity for.

Either is enough. Without both it goes on letting people read until their tokens expire, since care goes on;
what changes anything is refused.
"""

import asyncio
import time
from collections.abc import Callable

from clinic_shared.errors import DomainError, TemporarilyUnavailableError
from clinic_shared.health import Health
from clinic_shared.loops import pause
from clinic_shared.metrics import LOOP_FAILURES
from pydantic import BaseModel, ValidationError

from clinic_gateway.tokens import Revocation, Revocations
from clinic_gateway.upstream import Upstreams

FEED, PULL = "revocations", "revocation-pull"
PULL_SECONDS, RETRY_SECONDS, TIMEOUT_SECONDS = 10, 2, 2
STALE_SECONDS = 15
PATH = "/internal/revocations"
_OK = 200
_READING = frozenset(("GET", "HEAD", "OPTIONS"))


class RevocationsUnknownError(TemporarilyUnavailableError):
    """Neither the broker nor identity tells whose sessions have ended, so nobody may change anything."""

    slug = "revocations-unknown"
    title = "Nothing can be changed at this moment"
    fix = "Repeat it after `Retry-After` with the same Idempotency-Key; reading works meanwhile."


class _Told(BaseModel):
    revocations: list[Revocation]


class RevocationView:
    """Whether the revocations are up to date, and the loop that asks for them."""

    def __init__(
        self,
        upstreams: Upstreams,
        revocations: Revocations,
        health: Health,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstreams = upstreams
        self._revocations = revocations
        self._health = health
        self._monotonic = monotonic
        self._listens = False
        self._asked = asyncio.Event()
        self._known_at = monotonic()

    def begin_to_listen(self) -> None:
        """Ask at once whenever listening begins: what was said before is not heard any more."""
        self._listens = True
        self._asked.set()

    def require_current(self, method: str) -> None:
        """Raises RevocationsUnknownError for what changes something while nothing is heard or told."""
        if method not in _READING and self._is_stale():
            raise RevocationsUnknownError

    def _is_stale(self) -> bool:
        if "identity" not in self._upstreams or (self._listens and FEED not in self._health.reasons):
            return False
        return self._monotonic() - self._known_at > STALE_SECONDS

    async def run(self, stop: asyncio.Event) -> None:
        """Ask now, every ten seconds, and when listening begins, until told to stop."""
        while not stop.is_set():
            self._asked.clear()
            pulled = await self.pull()
            await self._wait(stop, PULL_SECONDS if pulled else RETRY_SECONDS)

    async def pull(self) -> bool:
        """Ask identity once. Failing is no error: readiness tells, and `require_current` judges."""
        if "identity" not in self._upstreams:
            return True
        try:
            told = await self._ask()
        except (DomainError, ValidationError) as error:
            LOOP_FAILURES.labels(loop=PULL).inc()
            self._health.report(PULL, f"failed with {type(error).__name__}")
            return False
        self._revocations.take(told.revocations)
        self._known_at = self._monotonic()
        self._health.report(PULL, None)
        return True

    async def _ask(self) -> _Told:
        asking = self._upstreams.request("identity", "GET", PATH, timeout_seconds=TIMEOUT_SECONDS)
        async with asking as answer:
            body = await answer.read()
            if answer.status != _OK:
                raise TemporarilyUnavailableError
        return _Told.model_validate_json(body)

    async def _wait(self, stop: asyncio.Event, seconds: float) -> None:
        asked = asyncio.create_task(self._asked.wait())
        waiting = asyncio.create_task(pause(stop, seconds))
        _, pending = await asyncio.wait({asked, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
