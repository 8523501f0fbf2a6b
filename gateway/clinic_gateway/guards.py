"""What stands before each service: circuit breaker, retry budgets, admission; told and measured.

A service's intake (laboratories, webhooks) has a circuit of its own: it goes on accepting while its
database is down, when everything else of that service answers 503.
"""

import math
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp
import structlog
from clinic_shared.problems import OUTAGE_HEADER
from clinic_shared.telemetry import allow_log_keys

from clinic_gateway.admission import Admission, Place
from clinic_gateway.breaker import Circuit, CircuitBreaker
from clinic_gateway.concurrency import ConcurrencyLimit, Kind, LimitPolicy
from clinic_gateway.errors import (
    BadGatewayError,
    NotInstalledError,
    OverloadedError,
    ServiceDownError,
    ServiceTimeoutError,
)
from clinic_gateway.metrics import (
    CIRCUIT_OPENED,
    CIRCUIT_STATE,
    CONCURRENCY_LIMIT,
    IN_FLIGHT,
    RETRIES,
    SHED,
)
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
    """One way into one service. The places inside are the same for both ways."""

    def __init__(self, service: str, admission: Admission, *, intake: bool) -> None:
        self.upstream = f"{service} intake" if intake else service
        self.breaker = CircuitBreaker()
        self._service = service
        self._admission = admission
        self._intake = intake
        self.retries = RetryBudget(RETRY_RATIO, RETRY_RESERVE)
        self.waits = RetryBudget(WAIT_RATIO, WAIT_RESERVE)
        self._told = Circuit.CLOSED
        CIRCUIT_STATE.labels(self.upstream).set(0)

    def begin(self) -> None:
        """Count a request that is sent for the first time."""
        now = time.monotonic()
        self.retries.deposit(now)
        self.waits.deposit(now)

    def may_repeat(self, budget: RetryBudget, cause: str) -> bool:
        granted = budget.withdraw()
        RETRIES.labels(self.upstream, cause, "sent" if granted else "forbidden").inc()
        return granted

    def attempt(self, is_sent: Callable[[], bool] | None = None) -> "Attempt":
        """Begin to send once. Raises CircuitOpenError.

        What fails before `is_sent` may be the caller's fault, who is still sending: it says nothing. None
        means that everything is sent at once.
        """
        ticket = self.breaker.admit(time.monotonic())
        self.tell()
        return Attempt(self, ticket, is_sent)

    async def enter(self, kind: Kind, seconds_left: float) -> Place:
        """Wait for a place with the service. Raises OverloadedError."""
        try:
            return await self._admission.enter(kind, intake=self._intake, seconds_left=seconds_left)
        except OverloadedError:
            SHED.labels(self._service, "intake" if self._intake else "other").inc()
            raise

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

    __slots__ = ("_guard", "_is_sent", "_judged", "_place", "_ticket")

    def __init__(self, guard: Guard, ticket: int, is_sent: Callable[[], bool] | None) -> None:
        self._guard = guard
        self._ticket = ticket
        self._is_sent = is_sent
        self._judged = False
        self._place: Place | None = None

    async def take_place(self, kind: Kind, seconds_left: float) -> None:
        self._place = await self._guard.enter(kind, seconds_left)

    def __enter__(self) -> Self:
        return self

    def answered(self, answer: aiohttp.ClientResponse) -> None:
        self._judged = True
        self._leave(answered=answer.status < HTTPStatus.INTERNAL_SERVER_ERROR)
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
        self._leave(answered=False)
        breaker = self._guard.breaker
        unreachable = isinstance(error, ServiceDownError)
        is_sent = self._is_sent is None or self._is_sent()
        broken = isinstance(error, ServiceTimeoutError | BadGatewayError) and is_sent
        if unreachable or broken:
            breaker.failed(self._ticket, time.monotonic())
        else:
            breaker.abandoned(self._ticket)
        self._guard.tell()

    def _leave(self, *, answered: bool) -> None:
        if self._place is not None:
            self._place.leave(answered=answered)
            self._place = None


class Guards:
    """Two per installed service: one for its intake, one for everything else."""

    def __init__(self, services: Iterable[str], *, load_shedding: bool) -> None:
        policy = LimitPolicy() if load_shedding else LimitPolicy(initial=math.inf, highest=math.inf)
        self._guards = {service: _both_ways(service, ConcurrencyLimit(policy)) for service in services}

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


def _both_ways(service: str, limit: ConcurrencyLimit) -> tuple[Guard, Guard]:
    CONCURRENCY_LIMIT.labels(service).set_function(lambda: limit.limit)
    IN_FLIGHT.labels(service).set_function(lambda: limit.in_flight)
    admission = Admission(limit)
    return Guard(service, admission, intake=False), Guard(service, admission, intake=True)
