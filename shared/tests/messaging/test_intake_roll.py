"""What a process left on the queue that died before its mark is not overtaken, however long the broker is away."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import pytest
from clinic_shared import intake, intake_roll, intake_worker
from clinic_shared.intake import Intake
from clinic_shared.intake_roll import process_table
from clinic_shared.intake_worker import IntakeWorker
from clinic_shared.service import Runtime, Service
from clinic_shared.testing import Servers, eventually
from pydantic import SecretStr
from sqlalchemy import delete, select

from .conftest import Made, Wire
from .intakes import HOUR, LONG, Done, accept, marks_of, put_on_queue

pytestmark = pytest.mark.servers

Looping = Callable[..., AbstractAsyncContextManager[None]]


@pytest.fixture
async def mortal(
    made: Made, consumer_service: Service, database_wire: Wire, broker_urls: Servers
) -> AsyncIterator[Runtime]:
    """A process that accepts, and to which the database never comes back: as good as dead from then on."""
    url = SecretStr(broker_urls.amqp_url)
    async with made.start(consumer_service, database_url=database_wire.url, amqp_url=url) as runtime:
        yield runtime
        database_wire.come_back()


@pytest.fixture
async def without_broker(
    made: Made, consumer_service: Service, consumer_url: str, wire: Wire
) -> AsyncIterator[Runtime]:
    """The process of the worker, whose broker is away later."""
    async with made.start(consumer_service, consumer_url, amqp_url=SecretStr(wire.url)) as runtime:
        yield runtime


class Scene:
    def __init__(self, mortal: Runtime, consumer: Runtime, worker: Runtime) -> None:
        self.done = Done()
        self.worker = IntakeWorker(worker, {"hl7": self.done})
        self.mortal = Intake.of(mortal).roll
        self.other = Intake.of(consumer).roll
        self._mortal = mortal
        self._consumer = consumer

    async def begin(self, *rolls: intake_roll.Roll) -> None:
        """Accept something, and have these say that nothing unmarked is on the queue."""
        await accept(self._mortal, HOUR, b"first")
        for roll in rolls:
            await roll.tell()

    async def die_with_something_queued(self, database_wire: Wire) -> None:
        database_wire.go_down()
        await put_on_queue(self._mortal, HOUR, b"queued", since=self._consumer)

    async def go_on(self) -> None:
        """The other process accepts, and says that it put nothing on the queue."""
        await accept(self._consumer, -HOUR, b"stored")
        await self.other.tell()

    def is_out_of_patience(self) -> bool:
        since = self.worker._unreachable_since
        return since is not None and time.monotonic() - since > 5 * intake_worker.PATIENCE_SECONDS


@pytest.fixture
def scene(
    mortal: Runtime, consumer: Runtime, without_broker: Runtime, monkeypatch: pytest.MonkeyPatch
) -> Scene:
    monkeypatch.setattr(intake_worker, "PATIENCE_SECONDS", 0.3)
    for name in ("DATABASE_SECONDS", "QUEUE_SECONDS"):
        monkeypatch.setattr(intake, name, LONG)
    return Scene(mortal, consumer, without_broker)


async def on_the_roll(runtime: Runtime) -> int:
    async with runtime.database.transaction() as tx:
        return len(await tx.fetch_all(select(process_table.c.process_id)))


async def test_rows_wait_for_what_a_process_that_died_before_its_mark_may_have_left_on_the_queue(
    scene: Scene, consumer: Runtime, database_wire: Wire, wire: Wire, looping: Looping
) -> None:
    await scene.begin(scene.mortal, scene.other)
    await scene.die_with_something_queued(database_wire)
    wire.go_down()
    await scene.go_on()
    async with looping(scene.worker.run):
        await scene.done.are(b"first")
        await eventually(scene.is_out_of_patience, within_seconds=LONG)
        assert scene.done.bodies == [b"first"]
        assert await marks_of(consumer) == 0
        wire.come_back()
        await scene.done.are(b"first", b"queued", b"stored")


async def test_going_on_when_somebody_fell_silent_would_be_noticed(
    scene: Scene, consumer: Runtime, database_wire: Wire, wire: Wire, looping: Looping
) -> None:
    await scene.begin(scene.mortal, scene.other)
    await scene.die_with_something_queued(database_wire)
    wire.go_down()
    async with consumer.database.transaction() as tx:
        await tx.execute(delete(process_table))
    await scene.go_on()
    async with looping(scene.worker.run):
        await scene.done.are(b"first", b"stored")


async def test_with_the_broker_down_rows_go_on_as_everybody_says_that_nothing_unmarked_is_on_the_queue(
    scene: Scene, consumer: Runtime, wire: Wire, looping: Looping
) -> None:
    await scene.begin(scene.mortal, scene.other)
    wire.go_down()
    await scene.go_on()
    async with looping(scene.worker.run):
        await scene.done.are(b"first")
        await eventually(scene.is_out_of_patience, within_seconds=LONG)
        assert scene.done.bodies == [b"first"]
        await scene.mortal.tell()
        await scene.done.are(b"first", b"stored")
        assert await marks_of(consumer) == 0


async def test_who_owes_a_mark_leaves_it_with_what_it_says(
    scene: Scene, consumer: Runtime, database_wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.begin(scene.mortal)
    monkeypatch.setattr("clinic_shared.intake_marks.RETRY_SECONDS", LONG)
    await scene.die_with_something_queued(database_wire)
    database_wire.come_back()
    await scene.mortal.tell()
    assert await marks_of(consumer) == 1


async def test_who_fell_silent_is_no_longer_waited_for_once_the_queue_was_empty(
    scene: Scene, consumer: Runtime, looping: Looping, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.begin(scene.mortal)
    assert await on_the_roll(consumer) == 1
    async with looping(scene.worker.run):
        await scene.done.are(b"first")
        assert await on_the_roll(consumer) == 1
        monkeypatch.setattr(intake_roll, "SILENT", timedelta(0))

        async def is_empty() -> bool:
            return await on_the_roll(consumer) == 0

        await eventually(is_empty, within_seconds=LONG)


async def test_who_ends_in_order_leaves_the_roll(
    made: Made, consumer_service: Service, consumer_url: str, consumer: Runtime
) -> None:
    async with made.start(consumer_service, consumer_url) as runtime:
        await Intake.of(runtime).roll.tell()
        assert await on_the_roll(consumer) == 1
    assert await on_the_roll(consumer) == 0
