"""A flood of logins: do others wait longer meanwhile?"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from clinic_local.testing import System

from .figures import Figure, needs_system
from .whole import registrar

ATTACKERS = 50
ADDRESS = "127.0.0.2"
"""Not that of the others, who would share its limits."""
REQUESTS = 400
PAUSE_SECONDS = 0.02
OK, OVERLOADED = 200, 503
TAKEN = {401, 429, 503}


@needs_system
def login_flood(system: System) -> list[Figure]:
    """What else identity answers, its own lists, while fifty strangers guess passwords as fast as they are answered."""
    with registrar(system) as caller:
        headers = caller.authorization()
        quiet, flooded, guesses = asyncio.run(_measured(system.url, headers))
    name = "other requests to identity under a flood of logins"
    return [
        Figure.ceiling(f"{name}: p99, that of quiet hours being 1", flooded.p99 / quiet.p99, "", target=2),
        Figure.ceiling(f"{name}: told to come again", 100 * flooded.refused / REQUESTS, "%", target=0),
        Figure.floor("guesses of the flood, answered or turned away", guesses, "/s", target=1),
    ]


@dataclass(frozen=True)
class Answers:
    p99: float
    refused: int


async def _measured(url: str, headers: dict[str, str]) -> tuple[Answers, Answers, float]:
    async with aiohttp.ClientSession(url, headers=headers) as http:
        await _ask(http)
        quiet = await _ask(http)
        guesses: list[int] = []
        async with _flood(url, guesses):
            begun = time.monotonic()
            flooded = await _ask(http)
            rate = len(guesses) / (time.monotonic() - begun)
    return quiet, flooded, rate


async def _ask(http: aiohttp.ClientSession) -> Answers:
    waits, refused = [], 0
    for _ in range(REQUESTS):
        begun = time.perf_counter()
        async with http.get("/v1/centres") as answer:
            told = await answer.text()
        assert answer.status in {OK, OVERLOADED}, told
        refused += answer.status == OVERLOADED
        waits += [time.perf_counter() - begun] if answer.ok else []
        await asyncio.sleep(PAUSE_SECONDS)
    return Answers(p99=sorted(waits)[int(len(waits) * 0.99)], refused=refused)


@asynccontextmanager
async def _flood(url: str, guesses: list[int]) -> AsyncIterator[None]:
    """Each guess is at another account, so that no account's own limit ends it."""

    async def guess(http: aiohttp.ClientSession, attacker: int) -> None:
        number = 0
        while True:
            number += 1
            credentials = {
                "login": f"nobody.{attacker}.{number}@example.org",
                "password": "a guess of twelve",
            }
            async with http.post("/v1/auth/login", json=credentials) as answer:
                await answer.read()
            assert answer.status in TAKEN, answer.status
            guesses.append(answer.status)

    elsewhere = aiohttp.TCPConnector(limit=0, local_addr=(ADDRESS, 0))
    async with aiohttp.ClientSession(url, connector=elsewhere) as http:
        guessing = [asyncio.create_task(guess(http, attacker)) for attacker in range(ATTACKERS)]
        try:
            yield
        finally:
            for task in guessing:
                task.cancel()
            ended = await asyncio.gather(*guessing, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended
