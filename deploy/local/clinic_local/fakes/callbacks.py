"""Callbacks to the clinic: signed on every attempt, retried with back-off on anything but 2xx.

The order of first attempts is the order given; a retry doesn't hold up what comes after it, so receivers
see what real vendors do to them: late, repeated and reordered notifications.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass

import httpx

from clinic_local.fakes.settings import FakesSettings

RETRY_CAP_SECONDS = 30.0
ATTEMPT_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class SignedRequest:
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Callback:
    """`prepare` runs per attempt: Stripe's signature carries the time of the attempt."""

    vendor: str
    name: str
    url: str
    prepare: Callable[[], SignedRequest]


@dataclass(frozen=True)
class Attempt:
    vendor: str
    name: str
    number: int
    status: int | None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004


class CallbackSender:
    def __init__(self, settings: FakesSettings) -> None:
        self.delay_seconds = settings.fakes_callback_delay_seconds
        self._base_seconds = settings.fakes_retry_base_seconds
        self._attempts = settings.fakes_retry_attempts
        self._client = httpx.AsyncClient(timeout=ATTEMPT_TIMEOUT_SECONDS, trust_env=False)
        self._tasks: set[asyncio.Task[None]] = set()
        self.log: deque[Attempt] = deque(maxlen=10_000)

    @property
    def pending(self) -> int:
        """Return the number of series and retries still under way; 0 means the fakes are quiet."""
        return len(self._tasks)

    def send_series(self, callbacks: Sequence[Callback]) -> None:
        self._spawn(self._run_series(callbacks))

    def cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        self.cancel_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def describe(self) -> list[dict[str, object]]:
        return [asdict(attempt) | {"delivered": attempt.delivered} for attempt in self.log]

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_series(self, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            await asyncio.sleep(self.delay_seconds)
            if not await self._attempt(callback, 1):
                self._spawn(self._retry(callback))

    async def _retry(self, callback: Callback) -> None:
        for number in range(2, self._attempts + 1):
            await asyncio.sleep(min(self._base_seconds * 2 ** (number - 2), RETRY_CAP_SECONDS))
            if await self._attempt(callback, number):
                return

    async def _attempt(self, callback: Callback, number: int) -> bool:
        request = callback.prepare()
        try:
            answer = await self._client.post(callback.url, content=request.body, headers=request.headers)
            status: int | None = answer.status_code
        except httpx.TransportError:
            status = None
        attempt = Attempt(callback.vendor, callback.name, number, status)
        self.log.append(attempt)
        return attempt.delivered
