"""Of several workers one empties the queue: nothing overtakes what another has in its hands, not even a dead one."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from hashlib import sha256

import pytest
from clinic_shared import intake_custody, intake_worker
from clinic_shared.intake_custody import Custody
from clinic_shared.intake_worker import IntakeWorker
from clinic_shared.service import Runtime
from clinic_shared.testing import eventually
from sqlalchemy import text

from .conftest import Queues, Wire
from .intakes import HOUR, LONG, Done, accept, marks_of, put_on_queue

pytestmark = pytest.mark.servers

Looping = Callable[..., AbstractAsyncContextManager[None]]
BUFFER = "reporting.intake"


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[Custody | None]:
    """Who asked whether it was to empty the queue, each time: None where it wasn't."""
    monkeypatch.setattr(intake_worker, "STANDBY_SECONDS", 0.05)
    asked: list[Custody | None] = []
    take = Custody.take

    async def noted(self: Custody) -> bool:
        is_taken = await take(self)
        asked.append(self if is_taken else None)
        return is_taken

    monkeypatch.setattr(Custody, "take", noted)
    return asked


@asynccontextmanager
async def not_to_be_stored(runtime: Runtime, body: bytes) -> AsyncIterator[None]:
    """Whoever stores this waits until the end of the block."""
    name = f"hl7|TESTLAB|{sha256(body).hexdigest()}"
    async with runtime.database.transaction() as tx:
        await tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
        yield


class Scene:
    """`first` is stored, then `queued` waits on the queue, then `stored` is; two workers are to work that off."""

    def __init__(self, consumer: Runtime, other: Runtime, wire: Wire, queues: Queues) -> None:
        self.done = Done()
        self.workers = [IntakeWorker(runtime, {"hl7": self.done}) for runtime in (consumer, other)]
        self.holding = AsyncExitStack()
        self._consumer = consumer
        self._other = other
        self._wire = wire
        self._queues = queues

    async def begin(self) -> None:
        await accept(self._other, HOUR, b"first")
        self._wire.go_down()
        await put_on_queue(self._other, HOUR, b"queued", since=self._consumer)
        self._wire.come_back()
        await eventually(lambda: marks_of(self._consumer), within_seconds=LONG)
        await accept(self._consumer, -HOUR, b"stored")
        await self.holding.enter_async_context(not_to_be_stored(self._consumer, b"queued"))

    async def queued_is_in_hands(self) -> None:
        async def is_empty() -> bool:
            return await self._queues.count(BUFFER) == 0

        await eventually(is_empty, within_seconds=LONG)

    async def queued_is_stored(self) -> bool:
        async with self._consumer.database.transaction() as tx:
            return bool(await tx.fetch_all(text("SELECT FROM intake WHERE via = 'queue'")))

    async def lose_lock(self) -> None:
        lost = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clinic-reporting-intake'"
        async with self._consumer.database.transaction() as tx:
            await tx.execute(text(f"{lost} AND datname = current_database()"))


@pytest.fixture
async def scene(
    consumer: Runtime, other: Runtime, database_wire: Wire, queues: Queues
) -> AsyncIterator[Scene]:
    scene = Scene(consumer, other, database_wire, queues)
    await scene.begin()
    async with scene.holding:
        yield scene


async def test_what_one_worker_has_in_its_hands_is_not_overtaken_by_another(
    scene: Scene, turns: list[Custody | None], looping: Looping
) -> None:
    async with looping(*(worker.run for worker in scene.workers)), scene.holding:
        await scene.queued_is_in_hands()
        await eventually(lambda: turns.count(None) >= 5, within_seconds=LONG)
        assert scene.done.bodies == []
        await scene.holding.aclose()
        await scene.done.are(b"first", b"queued", b"stored")


async def test_two_workers_that_both_empty_the_queue_would_be_noticed(
    scene: Scene, looping: Looping, mutation: Callable[[str], None]
) -> None:
    mutation("intake-custody-off")
    async with looping(*(worker.run for worker in scene.workers)), scene.holding:
        await scene.done.are(b"first", b"stored")


async def _take_over(scene: Scene, turns: list[Custody | None]) -> None:
    """The first worker loses the lock while it has something in its hands, and the second takes over."""
    await scene.queued_is_in_hands()
    await scene.lose_lock()
    successor = scene.workers[1]._custody
    await eventually(lambda: turns.count(successor) >= 5, within_seconds=LONG)


async def test_what_a_worker_still_has_in_its_hands_that_lost_the_lock_is_not_overtaken(
    scene: Scene, turns: list[Custody | None], looping: Looping
) -> None:
    former, successor = scene.workers
    async with looping(former.run), scene.holding:
        await scene.queued_is_in_hands()
        async with looping(successor.run), scene.holding:
            await _take_over(scene, turns)
            assert scene.done.bodies == []
            await scene.holding.aclose()
            await eventually(scene.queued_is_stored, within_seconds=LONG)
            assert scene.done.bodies == []
            successor._custody._doubtful_until = 0
            await scene.done.are(b"first", b"queued", b"stored")


async def test_believing_an_empty_queue_right_after_taking_over_would_be_noticed(
    scene: Scene, turns: list[Custody | None], looping: Looping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_custody, "PREDECESSOR_SECONDS", 0)
    former, successor = scene.workers
    async with looping(former.run), scene.holding:
        await scene.queued_is_in_hands()
        async with looping(successor.run), scene.holding:
            await _take_over(scene, turns)
            await scene.done.are(b"first", b"stored")


def _has_turns(turns: list[Custody | None], custody: Custody) -> bool:
    return turns.count(custody) >= 2


async def test_who_takes_over_from_a_worker_that_ended_in_order_has_nothing_to_doubt(
    scene: Scene, turns: list[Custody | None], looping: Looping
) -> None:
    await scene.holding.aclose()
    for custody, worker in [(worker._custody, worker) for worker in scene.workers]:
        async with looping(worker.run):
            await eventually(partial(_has_turns, turns, custody), within_seconds=LONG)
            assert not custody.is_doubtful
    await scene.done.are(b"first", b"queued", b"stored")
