"""What stands before each service: its circuit breaker and its retry budgets, told and measured.

A service's intake (laboratories, webhooks) has a circuit of its own: it goes on accepting while its
database is down, when everything else of that service answers 503.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp
import structlog
from clinic_shared.problems import OUTAGE_HEADER
from clinic_shared.telemetry import allow_log_keys

from clinic_gateway.breaker import Circuit, CircuitBreaker
from clinic_gateway.errors import BadGatewayError, NotInstalledError, ServiceDownError, ServiceTimeoutError
from clinic_gateway.metrics import CIRCUIT_OPENED, CIRCUIT_STATE, RETRIES
from clinic_gateway.retries import RetryBudget
from clinic_gateway.routes import Route

log = structlog.get_logger()
allow_log_keys("upstream")

RETRY_RATIO, RETRY_RESERVE = 0.1, 20
# Waiting for an event that is under way is no failure, and happens to every second booking of a
# new patient; the bound is for the day when events don't flow and every request would wait.
WAIT_RATIO, WAIT_RESERVE = 1.0, 200
_LEVELS = {Circuit.CLOSED: 0, Circuit.HALF_OPEN: 1, Circuit.OPEN: 2}


class Guard:
    """One way into one service."""

    def __init__(self, upstream: str, breaker: CircuitBreaker | None = None) -> None:
        self.upstream = upstream
        self.breaker = breaker or CircuitBreaker()
        self.retries = RetryBudget(RETRY_RATIO, RETRY_RESERVE)
        self.waits = RetryBudget(WAIT_RATIO, WAIT_RESERVE)
        self._told = Circuit.CLOSED
        CIRCUIT_STATE.labels(upstream).set(0)

    def begin(self) -> None:
        """Count a request that is sent for the first time."""
        now = time.monotonic()
        self.retries.deposit(now)
        self.waits.deposit(now)

    def may_repeat(self, budget: RetryBudget, cause: str) -> bool:
        granted = budget.withdraw()
        RETRIES.labels(self.upstream, cause, "sent" if granted else "forbidden").inc()
        return granted

    def attempt(self, is_sent: Callable[[], bool]) -> "Attempt":
        """Begin to send once. Raises CircuitOpenError.

        What fails before `is_sent` may be the caller's fault, who is still sending: it says nothing.
        """
        ticket = self.breaker.admit(time.monotonic())
        self.tell()
        return Attempt(self, ticket, is_sent)

    def tell(self) -> None:
        """Say it once when the circuit's state has changed."""
        state = self.breaker.state
        if state is self._told:
            return
        self._told = state
        CIRCUIT_STATE.labels(self.upstream).set(_LEVELS[state])
        if state is Circuit.OPEN:
            CIRCUIT_OPENED.labels(self.upstream).inc()
            log.warning("circuit_opened", upstream=self.upstream)
        elif state is Circuit.CLOSED:
            log.info("circuit_closed", upstream=self.upstream)


class Attempt:
    """One request under way; the breaker learns how it went, once."""

    def __init__(self, guard: Guard, ticket: int, is_sent: Callable[[], bool]) -> None:
        self._guard = guard
        self._ticket = ticket
        self._is_sent = is_sent
        self._judged = False

    def __enter__(self) -> Self:
        return self

    def answered(self, answer: aiohttp.ClientResponse) -> None:
        self._judged = True
        if OUTAGE_HEADER in answer.headers:
            self._guard.breaker.failed(self._ticket, time.monotonic())
        else:
            self._guard.breaker.succeeded(self._ticket)
        self._guard.tell()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._judged:
            return
        breaker = self._guard.breaker
        unreachable = isinstance(error, ServiceDownError)
        broken = isinstance(error, ServiceTimeoutError | BadGatewayError) and self._is_sent()
        if unreachable or broken:
            breaker.failed(self._ticket, time.monotonic())
        else:
            breaker.abandoned(self._ticket)
        self._guard.tell()


class Guards:
    """One per installed service, and one more for the intake of those that have it."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._guards = {service: (Guard(service), Guard(f"{service} intake")) for service in services}

    def of(self, route: Route) -> Guard:
        """Raises NotInstalledError."""
        found = self._guards.get(route.service)
        if found is None:
            raise NotInstalledError(service=route.service)
        return found[route.intake]

    def circuits(self) -> dict[str, str]:
        """Return the circuits that aren't closed, by name."""
        every = (guard for pair in self._guards.values() for guard in pair)
        return {guard.upstream: guard.breaker.state for guard in every if guard.breaker.state != "closed"}
