"""Three times as many bookings as scheduling can take: how long the accepted ones wait, against a quiet hour."""

import asyncio
import random
import time
from dataclasses import dataclass, field

import aiohttp
from clinic_scheduling.app import service as scheduling
from clinic_shared.ids import uuid7

from .bookings import Calendar, fill_calendar, registrars_token
from .figures import Figure, needs_servers
from .servers import SECONDS, Bench, rate_of

QUIET, OVERLOAD = 0.25, 3.0
ONSET_SECONDS = 3
CREATED, REFUSED = 201, 503


@dataclass
class Callers:
    """Who comes at random times, whatever became of those before."""

    url: str
    calendar: Calendar
    token: str
    _numbers: int = 0
    statuses: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    async def book(self, http: aiohttp.ClientSession, _: int = 0) -> None:
        self._numbers += 1
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": str(uuid7())}
        begun = time.perf_counter()
        body = self.calendar.booking(self._numbers)
        async with http.post(f"{self.url}/v1/appointments", json=body, headers=headers) as answer:
            await answer.read()
        assert answer.status in {CREATED, REFUSED}, answer.status
        self.statuses.append(answer.status)
        if answer.status == CREATED:
            self.seconds.append(time.perf_counter() - begun)

    async def come(self, per_second: float, seconds: float) -> None:
        self.statuses.clear()
        self.seconds.clear()
        until, rng = time.monotonic() + seconds, random.Random(7)
        unlimited = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=unlimited) as http, asyncio.TaskGroup() as group:
            while time.monotonic() < until:
                await asyncio.sleep(rng.expovariate(per_second))
                group.create_task(self.book(http))

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(0.99 * len(self.seconds))]


@needs_servers
async def overload(bench: Bench) -> list[Figure]:
    bench.prepare(scheduling)
    async with bench.runtime(scheduling) as runtime:
        calendar = await fill_calendar(runtime)
    async with bench.api(scheduling) as service, bench.gateway(f"scheduling={service}") as url:
        callers = Callers(service, calendar, registrars_token(bench))
        # Without the gateway: it might refuse some, and a refusal is no booking.
        capacity = await rate_of(callers.book)
        callers.url = url
        await callers.come(QUIET * capacity, 2 * SECONDS)
        quiet = callers.p99
        await callers.come(OVERLOAD * capacity, ONSET_SECONDS)
        await callers.come(OVERLOAD * capacity, SECONDS)
        accepted = len(callers.seconds) / SECONDS
    return [
        Figure.ceiling(
            "p99 of accepted bookings at three times the load, quiet hours' p99 being 1",
            callers.p99 / quiet,
            "",
            target=2,
        ),
        Figure.ratio(
            "bookings accepted then, against all that can be", ours=accepted, limit=capacity, target=0.5
        ),
    ]
