"""The lookout calls a loop when there is something for it; without it, or when it is wrong, loops look for themselves."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from clinic_shared.clock import SystemClock
from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7
from clinic_shared.lookout import Duty, Lookout
from clinic_shared.service import Runtime, Service
from clinic_shared.testing import eventually
from clinic_shared.timer_worker import TimerWorker
from clinic_shared.timers import Timer
from sqlalchemy import text

from .conftest import Made, Wire

pytestmark = pytest.mark.servers

Looping = Callable[..., AbstractAsyncContextManager[None]]

NEVER = "SELECT 1 WHERE false"
OFTEN, HOUR = 0.05, 3600.0


@pytest.fixture
def lookout(consumer: Runtime) -> Lookout:
    return of_machine(consumer)


def of_machine(runtime: Runtime) -> Lookout:
    """Return the lookout of a process with a real clock; it looks often, and for nothing."""
    runtime.clock = runtime.database.clock = SystemClock()
    lookout = Lookout.of(runtime)
    lookout.duty("nothing", NEVER, every_seconds=OFTEN)
    return lookout


async def watched(duty: Duty) -> bool:
    return duty.is_watched


async def leave_something(runtime: Runtime) -> None:
    async with runtime.database.transaction() as tx:
        await tx.execute(
            text("INSERT INTO effect (event_id, subject, version) VALUES (:id, :id, 1)"), {"id": uuid7()}
        )


async def test_a_loop_is_called_as_soon_as_there_is_something_for_it(
    consumer: Runtime, lookout: Lookout, looping: Looping
) -> None:
    duty = lookout.duty("effects", "SELECT 1 FROM effect", every_seconds=HOUR)
    async with looping(lookout.run):
        await eventually(lambda: watched(duty))
        waiting = asyncio.create_task(duty.wait(asyncio.Event()))
        await leave_something(consumer)
        await asyncio.wait_for(waiting, 60)


async def test_a_loop_that_the_lookout_overlooks_looks_for_itself(
    consumer: Runtime, lookout: Lookout, looping: Looping
) -> None:
    fired: list[Timer] = []

    async def fire(_: Transaction, timer: Timer) -> None:
        fired.append(timer)

    async def has_fired() -> bool:
        return bool(fired)

    worker = TimerWorker(consumer)
    worker.handlers = {"reminder": fire}
    duty = lookout.duty("timers", NEVER, every_seconds=HOUR)
    duty.query = NEVER
    async with looping(lookout.run, worker.run):
        await eventually(lambda: watched(duty))
        async with consumer.database.transaction() as tx:
            await tx.schedule(Timer(kind="reminder", subject=uuid7(), subject_version=1, due_at=tx.now))
        await eventually(has_fired, within_seconds=60)


async def test_without_a_lookout_a_loop_looks_as_often_as_it_always_did(lookout: Lookout) -> None:
    duty = lookout.duty("effects", "SELECT 1 FROM effect", every_seconds=OFTEN)
    await asyncio.wait_for(duty.wait(asyncio.Event()), 60)
    assert not duty.is_watched


async def test_a_lookout_that_loses_its_database_lets_every_loop_look_for_itself(
    made: Made, consumer_service: Service, database_wire: Wire, looping: Looping
) -> None:
    async with made.start(consumer_service, database_url=database_wire.url) as runtime:
        lookout = of_machine(runtime)
        duty = lookout.duty("effects", NEVER, every_seconds=HOUR)
        async with looping(lookout.run):
            await eventually(lambda: watched(duty))
            waiting = asyncio.create_task(duty.wait(asyncio.Event()))
            database_wire.go_down()
            await asyncio.wait_for(waiting, 60)
            assert not duty.is_watched
            database_wire.come_back()
            await eventually(lambda: watched(duty), within_seconds=60)


async def test_a_loop_that_is_told_to_stop_waits_no_longer(lookout: Lookout, looping: Looping) -> None:
    stop, duty = asyncio.Event(), lookout.duty("effects", NEVER, every_seconds=HOUR)
    async with looping(lookout.run):
        await eventually(lambda: watched(duty))
        waiting = asyncio.create_task(duty.wait(stop))
        stop.set()
        await asyncio.wait_for(waiting, 60)
