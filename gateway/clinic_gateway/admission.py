"""Who is let through to a service now, who waits, and who is told to come back later.

Intake goes first. Others wait for a second or some answers' time, so that a page that asks for ten
things at once gets them, and thirty busy clients just take turns. When several have waited for that
long in vain, it is too much: from then on nobody waits for longer than a part of what the answer
takes, and the rest is refused at once.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from clinic_gateway.concurrency import ConcurrencyLimit, Kind
from clinic_gateway.errors import OverloadedError

BURST_SECONDS: Final = 1.0
BURST_ANSWERS: Final = 4
"""Where an answer takes long, a burst may last for the time of so many."""
INTAKE_SECONDS: Final = 5.0
IN_VAIN: Final = 5
"""So many must have waited for nothing within a burst's time: one that did may have met a hiccup."""
OVERLOADED_SHARE: Final = 0.5
"""Of its undisturbed latency, that a request may wait while the service is overloaded."""
MOST_WAITING: Final = 500
RECOVERY_SECONDS: Final = 2.0
ENOUGH_CAPACITY: Final = 0.9
"""Overload is over when so much of what the service can do was asked for, or less, for that long."""

Queue = dict["asyncio.Future[bool]", None]
"""In the order of arrival. A future's result is whether its request is alone with the service."""


@dataclass(slots=True)
class _Interval:
    """What was asked for and worked off, while overloaded, since `began_at`."""

    began_at: float
    arrivals: int = 0
    answers: int = 0
    seconds: float = 0.0


class Admission:
    """Of one service. Times are those of the running event loop."""

    def __init__(self, limit: ConcurrencyLimit | None = None) -> None:
        self.limit = limit or ConcurrencyLimit()
        self._intake: Queue = {}
        self._others: Queue = {}
        self._overload: _Interval | None = None
        self._in_vain: deque[float] = deque(maxlen=IN_VAIN)

    @property
    def overloaded(self) -> bool:
        return self._overload is not None

    async def enter(self, kind: Kind, *, intake: bool, seconds_left: float) -> "Place":
        """Wait for a place. Raises OverloadedError."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._overload is not None:
            self._count_arrival(self._overload, now)
        if self.limit.has_room and not self._intake and (intake or not self._others):
            return Place(self, kind, now, alone=self.limit.enter())
        if intake:
            alone = await self._wait(self._intake, min(INTAKE_SECONDS, seconds_left))
        else:
            alone = await self._wait_as_others(kind, seconds_left)
        return Place(self, kind, loop.time(), alone=alone)

    async def _wait_as_others(self, kind: Kind, seconds_left: float) -> bool:
        typical = self.limit.typical_seconds(kind)
        if self.overloaded:
            return await self._wait(self._others, min(typical * OVERLOADED_SHARE, seconds_left))
        patience = max(BURST_SECONDS, typical * BURST_ANSWERS)
        try:
            return await self._wait(self._others, min(patience, seconds_left))
        except OverloadedError:
            self._waited_in_vain(patience)
            raise

    async def _wait(self, queue: Queue, patience: float) -> bool:
        if len(queue) >= MOST_WAITING:
            raise OverloadedError
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        queue[place] = None
        try:
            async with asyncio.timeout(patience):
                return await place
        except TimeoutError:
            self._withdraw(queue, place)
            raise OverloadedError from None
        except asyncio.CancelledError:
            self._withdraw(queue, place)
            raise

    def _withdraw(self, queue: Queue, place: "asyncio.Future[bool]") -> None:
        """Take somebody out of the queue who went away, perhaps in the instant when the turn came."""
        queue.pop(place, None)
        if place.done() and not place.cancelled() and place.exception() is None:
            self.limit.leave()
            self._let_in()

    def leave(self, place: "Place", *, answered: bool) -> None:
        """Give a place back. What wasn't answered says nothing about how fast the service is."""
        seconds = asyncio.get_running_loop().time() - place.entered_at
        self.limit.leave()
        if answered:
            self.limit.learn(place.kind, seconds, alone=place.alone)
            if self._overload is not None:
                self._overload.answers += 1
                self._overload.seconds += seconds
        if self._intake or self._others:
            self._let_in()

    def _let_in(self) -> None:
        while self.limit.has_room and (self._intake or self._others):
            queue = self._intake or self._others
            place = next(iter(queue))
            del queue[place]
            if not place.done():  # else its request went away and hasn't noticed yet
                place.set_result(self.limit.enter())

    def _waited_in_vain(self, patience: float) -> None:
        now = asyncio.get_running_loop().time()
        self._in_vain.append(now)
        if self._overload is not None or len(self._in_vain) < IN_VAIN or now - self._in_vain[0] > patience:
            return
        self._overload = _Interval(now)
        self._in_vain.clear()
        for place in self._others:
            if not place.done():
                place.set_exception(OverloadedError())
        self._others.clear()

    def _count_arrival(self, overload: _Interval, now: float) -> None:
        overload.arrivals += 1
        if now - overload.began_at > RECOVERY_SECONDS:
            self._overload = None if self._has_recovered(overload, now) else _Interval(now)

    def _has_recovered(self, interval: _Interval, now: float) -> bool:
        """By Little's law: so many at once, each for so long, is what could be answered per second.

        One fewer than the limit, which tries out whether one more would do.
        """
        if not interval.answers:
            return not self.limit.in_flight
        possible = max(1.0, self.limit.limit - 1) * interval.answers / interval.seconds
        return interval.arrivals / (now - interval.began_at) < possible * ENOUGH_CAPACITY


@dataclass(slots=True)
class Place:
    """A request on its way through. It is left once: answered, or given up."""

    admission: Admission
    kind: Kind
    entered_at: float
    alone: bool

    def leave(self, *, answered: bool) -> None:
        self.admission.leave(self, answered=answered)
