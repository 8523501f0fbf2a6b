"""Side by side, yet in order per key: what comes is handed out in batches, no key in two of them at once.

What comes is handed out at once while little comes. When much does, it waits until a batch is full or GATHER_SECONDS
after the last one began, and goes with all that has come meanwhile: the busier, the larger the batches.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from clinic_shared.gathering import Gathering

Item = TypeVar("Item")

GATHER_SECONDS = 0.1


class Lanes(Generic[Item]):
    """Calls `handle` with batches of up to `most`, as many as `lanes` at once. `handle` never raises."""

    def __init__(
        self, handle: Callable[[Sequence[Item]], Awaitable[None]], *, lanes: int, most: int = 1
    ) -> None:
        self._handle = handle
        self._most = most
        self._waiting: deque[tuple[str, Item]] = deque()
        self._keys_in_hand: set[str] = set()
        self._free = asyncio.Event()
        self._full = asyncio.Event()
        self._gathering = Gathering(GATHER_SECONDS)
        self._nothing_left = asyncio.Event()
        self._nothing_left.set()
        self._turn = asyncio.Lock()
        self._tasks = [asyncio.create_task(self._lane()) for _ in range(lanes)]

    def put(self, key: str, item: Item) -> None:
        self._waiting.append((key, item))
        self._nothing_left.clear()
        self._free.set()
        if len(self._waiting) >= self._most:
            self._full.set()

    async def join(self) -> None:
        """Wait until nothing waits and nothing is in hand."""
        await self._nothing_left.wait()

    async def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lane(self) -> None:
        while True:
            batch = await self._next()
            try:
                await self._handle([item for _, item in batch])
            finally:
                self._keys_in_hand.difference_update(key for key, _ in batch)
                self._free.set()
                if not self._waiting and not self._keys_in_hand:
                    self._nothing_left.set()

    async def _next(self) -> list[tuple[str, Item]]:
        async with self._turn:
            while all(key in self._keys_in_hand for key, _ in self._waiting):
                self._free.clear()
                await self._free.wait()
            wait = self._gathering.wait_seconds
            if wait and len(self._waiting) < self._most:
                self._full.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), wait)
            self._gathering.begin()
            return self._take()

    def _take(self) -> list[tuple[str, Item]]:
        taken: list[tuple[str, Item]] = []
        left: deque[tuple[str, Item]] = deque()
        for key, item in self._waiting:
            free = len(taken) < self._most and key not in self._keys_in_hand
            (taken if free else left).append((key, item))
        self._waiting = left
        self._keys_in_hand.update(key for key, _ in taken)
        return taken


class Settled:
    """Which deliveries of a channel we are done with: those without a gap take one acknowledgement together."""

    def __init__(self) -> None:
        self._upto = 0
        self._beyond: set[int] = set()

    def add(self, tags: Sequence[int]) -> tuple[int | None, list[int]]:
        """Return the tag to acknowledge with all before it, if there is one, and those to acknowledge singly."""
        self._beyond.update(tags)
        while self._upto + 1 in self._beyond:
            self._upto += 1
            self._beyond.discard(self._upto)
        # One of these: the broker refuses a tag that it has an acknowledgement of already.
        covered = max((tag for tag in tags if tag <= self._upto), default=None)
        return covered, [tag for tag in tags if tag > self._upto]
