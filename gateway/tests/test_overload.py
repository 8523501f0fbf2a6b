"""More is asked than can be done: who is let in is answered in time, and who isn't learns it at once."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from clinic_gateway.admission import BURST_SECONDS, IN_VAIN, MOST_WAITING, Admission
from clinic_gateway.concurrency import ConcurrencyLimit
from clinic_gateway.errors import OverloadedError

from .simulated_time import SimulatedLoop, simulate

if TYPE_CHECKING:
    from .conftest import Bearer, Reply, StartClinic

KIND = ("/v1/slots", "GET")


@dataclass
class Upstream:
    """`workers` at once, each busy for `seconds` on average; the rest stands in line, as in any server."""

    workers: int
    seconds: float
    spread: float
    rng: random.Random
    _free: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.workers)

    @property
    def capacity(self) -> float:
        return self.workers / self.seconds

    async def work(self) -> None:
        sigma = math.sqrt(math.log(1 + self.spread**2))
        duration = self.rng.lognormvariate(math.log(self.seconds) - sigma**2 / 2, sigma)
        async with self._free:
            await asyncio.sleep(duration)


@dataclass
class Seen:
    latencies: list[float] = field(default_factory=list)
    refused: int = 0

    @property
    def p99(self) -> float:
        return sorted(self.latencies)[int(0.99 * len(self.latencies))]

    @property
    def refused_share(self) -> float:
        return self.refused / (self.refused + len(self.latencies))


@dataclass
class Load:
    """Callers who come at random times, whatever became of those before them."""

    upstream: Upstream
    admission: Admission = field(default_factory=Admission)

    async def call(self, seen: Seen, *, intake: bool = False) -> None:
        loop = asyncio.get_running_loop()
        came_at = loop.time()
        try:
            place = await self.admission.enter(KIND, intake=intake, seconds_left=20)
        except OverloadedError:
            seen.refused += 1
            return
        await self.upstream.work()
        place.leave(answered=True)
        seen.latencies.append(loop.time() - came_at)

    async def run(self, times: float, seconds: float, *, intake_share: float = 0.0) -> tuple[Seen, Seen]:
        """Ask for `times` what the upstream can do; return what intake and the others saw."""
        intake, others = Seen(), Seen()
        loop, rng = asyncio.get_running_loop(), self.upstream.rng
        until = loop.time() + seconds
        async with asyncio.TaskGroup() as group:
            while loop.time() < until:
                await asyncio.sleep(rng.expovariate(times * self.upstream.capacity))
                first = rng.random() < intake_share
                group.create_task(self.call(intake if first else others, intake=first))
        return intake, others


def loaded(workers: int, seconds: float, spread: float) -> Load:
    return Load(Upstream(workers, seconds, spread, random.Random(7)))


SERVICES = pytest.mark.parametrize(
    ("workers", "seconds", "spread"),
    [(1, 0.02, 0.01), (2, 0.03, 0.5), (8, 0.1, 1.0)],
)


@SERVICES
def test_at_three_times_the_load_the_accepted_wait_less_than_twice_as_long(
    workers: int, seconds: float, spread: float
) -> None:
    """Once it is plain that it isn't a burst: for the first seconds, a queue is given the chance to pass."""

    async def measure() -> None:
        load = loaded(workers, seconds, spread)
        _, quiet = await load.run(0.3, 60)
        await load.run(3.0, 3)
        _, overloaded = await load.run(3.0, 40)
        assert quiet.refused == 0
        assert overloaded.p99 < 2 * quiet.p99
        assert len(overloaded.latencies) / 40 > 0.85 * load.upstream.capacity, "refusing is no goal"

    simulate(measure())


@SERVICES
def test_intake_is_never_refused_while_others_are(workers: int, seconds: float, spread: float) -> None:
    async def measure() -> None:
        load = loaded(workers, seconds, spread)
        _, quiet = await load.run(0.3, 40)
        intake, others = await load.run(3.0, 40, intake_share=0.1)
        assert intake.refused == 0
        assert others.refused_share > 0.5
        assert intake.p99 < 2 * quiet.p99

    simulate(measure())


@SERVICES
def test_after_an_overload_everybody_is_let_in_again(workers: int, seconds: float, spread: float) -> None:
    async def measure() -> None:
        load = loaded(workers, seconds, spread)
        await load.run(0.3, 30)
        await load.run(3.0, 30)
        _, still = await load.run(3.0, 1)
        assert still.refused_share > 0.3
        await load.run(0.5, 20)
        _, after = await load.run(0.5, 30)
        assert after.refused_share < 0.01

    simulate(measure())


@pytest.mark.parametrize("clients", [10, 30])
def test_clients_that_wait_for_their_answers_take_turns_and_are_never_refused(clients: int) -> None:
    """A page that asks for many things at once, an import with thirty connections."""

    async def measure() -> None:
        load = loaded(1, 0.01, 0.3)
        seen = Seen()

        async def client() -> None:
            while asyncio.get_running_loop().time() < 30:
                await load.call(seen)

        await asyncio.gather(*(client() for _ in range(clients)))
        assert seen.refused == 0
        assert len(seen.latencies) > 0.85 * 30 * load.upstream.capacity

    simulate(measure())


def test_a_service_that_became_slower_for_good_is_used_fully_again() -> None:
    async def measure() -> None:
        load = loaded(4, 0.02, 0.3)
        await load.run(0.3, 30)
        load.upstream.seconds = 0.08
        await load.run(3.0, 60)
        _, seen = await load.run(3.0, 30)
        assert len(seen.latencies) / 30 > 0.8 * load.upstream.capacity

    simulate(measure())


@pytest.mark.parametrize(("callers", "longest"), [(100, BURST_SECONDS), (MOST_WAITING + IN_VAIN, 0.0)])
def test_with_a_service_that_answers_nobody_few_wait_and_not_for_long(callers: int, longest: float) -> None:
    async def measure() -> None:
        admission, loop = Admission(), asyncio.get_running_loop()
        while admission.limit.has_room:
            await admission.enter(KIND, intake=False, seconds_left=20)

        async def refused() -> float:
            with pytest.raises(OverloadedError):
                await admission.enter(KIND, intake=False, seconds_left=20)
            return loop.time()

        waited = await asyncio.gather(*(refused() for _ in range(callers)))
        assert max(waited) == pytest.approx(longest, abs=0.01)

    simulate(measure())


def test_whose_patience_ends_when_overload_begins_occupies_no_place() -> None:
    """In the instant, that is, between being refused and taking notice of it."""

    async def refused(admission: Admission, patience: float) -> None:
        with pytest.raises(OverloadedError):
            await admission.enter(KIND, intake=False, seconds_left=patience)

    async def measure() -> None:
        loop, rng = asyncio.get_running_loop(), random.Random(7)
        assert isinstance(loop, SimulatedLoop)
        loop.tick = 1e-5
        for _ in range(50):
            admission, places = Admission(), []
            while admission.limit.has_room:
                places.append(await admission.enter(KIND, intake=False, seconds_left=20))
            await asyncio.gather(*(refused(admission, 0.5 + rng.random() * 2e-3) for _ in range(30)))
            for place in places:
                place.leave(answered=True)
            assert admission.limit.in_flight == 0

    simulate(measure())


def test_whoever_hangs_up_while_waiting_leaves_no_place_occupied() -> None:
    async def measure() -> None:
        admission = Admission(ConcurrencyLimit())
        places = []
        while admission.limit.has_room:
            places.append(await admission.enter(KIND, intake=False, seconds_left=20))
        waiting = [
            asyncio.create_task(admission.enter(KIND, intake=bool(number % 2), seconds_left=20))
            for number in range(10)
        ]
        await asyncio.sleep(0.1)
        places.pop().leave(answered=True)
        for task in waiting:
            task.cancel()  # the first of them in the instant in which its turn has come
        await asyncio.gather(*waiting, return_exceptions=True)
        for place in places:
            place.leave(answered=True)
        assert admission.limit.in_flight == 0

    simulate(measure())


async def test_an_overloaded_service_is_a_503_that_says_when_to_come_back(
    start_clinic: StartClinic, bearer: Bearer, reply: type[Reply]
) -> None:
    gate = asyncio.Event()
    async with start_clinic("billing") as clinic:
        clinic["billing"].replies = [reply(document={}, wait_for=gate) for _ in range(100)]
        headers = bearer()
        many = [asyncio.create_task(clinic.http.get("/v1/invoices", headers=headers)) for _ in range(30)]
        done, _ = await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED)
        answer = done.pop().result()
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        intake = asyncio.create_task(clinic.http.post("/v1/webhooks/payments/x", content=b"{}"))
        health = await clinic.http.get("/healthz")
        assert health.status_code == 200
        gate.set()
        assert (await intake).status_code == 200
        statuses = [(await task).status_code for task in many]
        assert set(statuses) == {200, 503}
        metrics = (await clinic.http.get("/metrics")).text
        assert 'clinic_gateway_shed_total{lane="other",upstream="billing"}' in metrics
