"""What was accepted takes effect in the order of acceptance, whoever accepted it, and by whatever clock."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import cycle
from typing import Any
from uuid import UUID

import pytest
from clinic_shared import intake, intake_marks, intake_store, intake_worker
from clinic_shared.context import Context
from clinic_shared.health import Health
from clinic_shared.ids import uuid7_at
from clinic_shared.inbound.decisions import reprocess
from clinic_shared.inbound.selection import Chosen
from clinic_shared.intake import Intake, intake_table
from clinic_shared.intake_marks import mark_table
from clinic_shared.intake_order import turn_of
from clinic_shared.intake_worker import IntakeWorker
from clinic_shared.service import Runtime, Service
from clinic_shared.testing import eventually
from pydantic import SecretStr
from sqlalchemy import delete, literal, text, update

from .conftest import Made, Wire
from .intakes import HOUR, LONG, Done, accept, audited, by_clock, marks_of, put_on_queue

pytestmark = pytest.mark.servers

Looping = Callable[..., AbstractAsyncContextManager[None]]
MESSAGES = [b"%d" % n for n in range(6)]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, too, only who is away is taken to be, and who comes back is waited for."""
    monkeypatch.setattr(intake_worker, "PATIENCE_SECONDS", LONG)
    for module, name in (
        (intake, "DATABASE_SECONDS"),
        (intake, "QUEUE_SECONDS"),
        (intake_store, "DATABASE_SECONDS"),
    ):
        monkeypatch.setattr(module, name, LONG)


@pytest.fixture
async def exposed(
    made: Made, consumer_service: Service, database_wire: Wire, wire: Wire
) -> AsyncIterator[Runtime]:
    """One whose way to the broker can be cut, too."""
    url = SecretStr(wire.url)
    async with made.start(consumer_service, database_url=database_wire.url, amqp_url=url) as runtime:
        yield runtime


async def work_off(runtime: Runtime) -> list[bytes]:
    done = Done()
    worker = IntakeWorker(runtime, {"hl7": done})
    while await worker.drain_batch():
        continue
    while await worker.process_waiting():
        continue
    return done.bodies


async def accepted_by_both(consumer: Runtime, other: Runtime) -> list[UUID]:
    """A laboratory sends each message after the answer to the one before, to whichever process takes it."""
    turns = zip(MESSAGES, cycle(((consumer, HOUR), (other, -HOUR))), strict=False)
    return [(await accept(runtime, off_by, body)).id for body, (runtime, off_by) in turns]


async def test_messages_take_effect_in_the_order_of_their_acceptance_whatever_the_clocks_say(
    consumer: Runtime, other: Runtime
) -> None:
    accepted = await accepted_by_both(consumer, other)
    assert accepted != sorted(accepted)
    assert await work_off(consumer) == MESSAGES


async def test_working_off_by_ids_would_be_noticed(
    consumer: Runtime, other: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_worker, "by_turn", lambda table: (literal(0), table.c.id))
    await accepted_by_both(consumer, other)
    assert await work_off(consumer) != MESSAGES


async def test_what_waited_on_the_queue_comes_behind_what_was_durable_before_and_before_what_is_newer(
    consumer: Runtime, other: Runtime, database_wire: Wire
) -> None:
    before, queued, newer = (
        [b"%s %d" % (name, n) for n in range(20)] for name in (b"before", b"queued", b"newer")
    )
    for body in before:
        await accept(other, HOUR, body)
    database_wire.go_down()
    for n, body in enumerate(queued):
        await put_on_queue(other, HOUR * (-1) ** n, body, since=consumer)
    for body in newer:
        await accept(consumer, -HOUR, body)
    assert await work_off(consumer) == [*before, *queued, *newer]
    database_wire.come_back()


async def test_what_one_process_put_on_the_queue_comes_before_what_another_stored_after_it(
    consumer: Runtime, other: Runtime, database_wire: Wire, looping: Looping
) -> None:
    done = Done()

    async def are_done(count: int) -> bool:
        return len(done.bodies) == count

    accepted = [b"first"]
    await accept(other, HOUR, b"first")
    async with looping(IntakeWorker(consumer, {"hl7": done}).run):
        await eventually(lambda: are_done(1), within_seconds=LONG)
        database_wire.go_down()
        for n in range(10):
            queued, stored = b"queued %d" % n, b"stored %d" % n
            await put_on_queue(other, HOUR, queued, since=consumer)
            await accept(consumer, -HOUR, stored)
            accepted += [queued, stored]
        await eventually(lambda: are_done(len(accepted)), within_seconds=LONG)
    assert done.bodies == accepted
    database_wire.come_back()


async def test_rows_wait_for_a_broker_that_is_away_for_a_moment(
    consumer: Runtime, exposed: Runtime, database_wire: Wire, wire: Wire, looping: Looping
) -> None:
    """Nobody knows then whether something older waits on the queue."""
    done = Done()

    async def are_done() -> bool:
        return len(done.bodies) == len(accepted)

    accepted = [b"first", b"queued", b"stored"]
    await accept(exposed, HOUR, b"first")
    database_wire.go_down()
    await put_on_queue(exposed, HOUR, b"queued", since=consumer)
    await accept(consumer, -HOUR, b"stored")
    database_wire.come_back()
    wire.go_down()
    worker = IntakeWorker(exposed, {"hl7": done})
    async with looping(worker.run):
        await eventually(lambda: worker._unreachable_since is not None, within_seconds=LONG)
        wire.come_back()
        await eventually(are_done, within_seconds=LONG)
    assert done.bodies == accepted


async def test_what_reached_both_stores_has_its_turn_from_the_one_that_answered(
    consumer: Runtime, other: Runtime, database_wire: Wire
) -> None:
    """The commit that came after the deadline, when others had been accepted already."""
    late = by_clock(HOUR, b"late")
    entry = audited(late)
    await accept(other, HOUR, b"first")
    database_wire.go_down()
    await Intake.of(other).accept_in_order([entry], context=Context())
    await put_on_queue(other, -HOUR, b"next", since=consumer)
    await Intake.of(consumer).accept_in_order([entry], context=Context())
    assert await work_off(consumer) == [b"first", b"late", b"next"]
    database_wire.come_back()


async def test_messages_that_came_together_keep_their_order_beside_others(consumer: Runtime) -> None:
    together = [audited(by_clock(HOUR * (-1) ** n, b"%d" % n)) for n in range(130)]
    others = [asyncio.create_task(accept(consumer, HOUR, b"alone %d" % n)) for n in range(130)]
    accepted = await Intake.of(consumer).accept_in_order(together, context=Context())
    await asyncio.gather(*others)
    assert not [one for one in accepted if isinstance(one, BaseException)]
    worked_off = [body for body in await work_off(consumer) if b"alone" not in body]
    assert worked_off == [item.body for item, _ in together]


async def test_what_is_processed_again_is_so_in_the_order_of_acceptance(
    consumer: Runtime, other: Runtime
) -> None:
    accepted = await accepted_by_both(consumer, other)
    async with consumer.database.transaction() as tx:
        await tx.execute(update(intake_table).values(state="parked"))
        await reprocess(tx, Chosen(ids=accepted), reason="mended")
    assert await work_off(consumer) == MESSAGES


async def test_rows_of_the_release_before_come_first_in_the_order_of_their_ids(consumer: Runtime) -> None:
    for n in (3, 1, 2):
        await accept(consumer, HOUR * n, b"%d" % n)
    async with consumer.database.transaction() as tx:
        await tx.execute(text("UPDATE intake SET place = NULL"))
    await accept(consumer, -HOUR, b"newer")
    assert await work_off(consumer) == [b"1", b"2", b"3", b"newer"]


async def test_a_row_of_the_release_before_takes_its_turn_by_the_database(consumer: Runtime) -> None:
    first = (await accept(consumer, HOUR, b"first")).id
    columns = "interface, sender, digest, content_type, body, attributes, received_at, via, data_key"
    copied = f"INSERT INTO intake (id, {columns}) SELECT :id, {columns} FROM intake"  # noqa: S608  # our own names
    async with consumer.database.transaction() as tx:
        await tx.execute(text(copied), {"id": uuid7_at(datetime.now(UTC) - HOUR)})
        rows: Sequence[Any] = await tx.fetch_all(text("SELECT id, place FROM intake"))
    assert min(rows, key=turn_of).id == first
    assert all(isinstance(row.place, Decimal) for row in rows)


class Outage:
    """First the database was away, so that a message is on the queue; now the database is back, and the broker away."""

    def __init__(self, exposed: Runtime, consumer: Runtime, database_wire: Wire, wire: Wire) -> None:
        self.done = Done()
        self.worker = IntakeWorker(exposed, {"hl7": self.done})
        self.health = Health.of(exposed)
        self.wire = wire
        self._exposed = exposed
        self._consumer = consumer
        self._database_wire = database_wire

    async def begin(self) -> None:
        await accept(self._exposed, HOUR, b"first")
        self._database_wire.go_down()
        await put_on_queue(self._exposed, HOUR, b"queued", since=self._consumer)
        self.wire.go_down()
        self._database_wire.come_back()

    def is_out_of_patience(self) -> bool:
        since = self.worker._unreachable_since
        return since is not None and time.monotonic() - since > 5 * intake_worker.PATIENCE_SECONDS


@pytest.fixture
def outage(
    consumer: Runtime, exposed: Runtime, database_wire: Wire, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> Outage:
    monkeypatch.setattr(intake_worker, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(intake, "AVOID_DATABASE_SECONDS", 0)
    return Outage(exposed, consumer, database_wire, wire)


@pytest.fixture
def no_mark_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks come with rows only."""
    monkeypatch.setattr(intake_marks, "RETRY_SECONDS", LONG)


async def _waits_and_goes_on_in_order(outage: Outage, consumer: Runtime, looping: Looping) -> None:
    async with looping(outage.worker.run):
        await eventually(outage.is_out_of_patience, within_seconds=LONG)
        await eventually(lambda: "reporting.intake" in outage.health.reasons.get("intake", ""))
        assert outage.done.bodies == []
        outage.wire.come_back()
        await outage.done.are(b"first", b"queued", b"stored")
        await eventually(lambda: "intake" not in outage.health.reasons, within_seconds=LONG)
    assert await marks_of(consumer) == 0


async def test_rows_wait_for_what_their_own_process_has_put_on_the_queue_however_long_the_broker_is_away(
    outage: Outage, exposed: Runtime, consumer: Runtime, looping: Looping, no_mark_alone: None
) -> None:
    await outage.begin()
    assert (await accept(exposed, -HOUR, b"stored")).via == "database"
    assert await marks_of(consumer) == 1
    await _waits_and_goes_on_in_order(outage, consumer, looping)


async def test_rows_wait_for_what_another_process_has_put_on_the_queue_however_long_the_broker_is_away(
    outage: Outage, consumer: Runtime, looping: Looping
) -> None:
    """That process stores nothing more: its mark comes alone."""
    await outage.begin()
    await eventually(lambda: marks_of(consumer), within_seconds=LONG)
    assert (await accept(consumer, -HOUR, b"stored")).via == "database"
    await _waits_and_goes_on_in_order(outage, consumer, looping)


async def test_going_on_without_a_mark_would_be_noticed(
    outage: Outage, exposed: Runtime, looping: Looping, mutation: Callable[[str], None]
) -> None:
    mutation("queue-unmarked")
    await outage.begin()
    await accept(exposed, -HOUR, b"stored")
    async with looping(outage.worker.run):
        await outage.done.are(b"first", b"stored")
        outage.wire.come_back()
        await outage.done.are(b"first", b"stored", b"queued")


async def test_a_mark_that_comes_after_the_look_holds_its_rows_back(
    outage: Outage, exposed: Runtime, consumer: Runtime, no_mark_alone: None
) -> None:
    """The worker had found no mark, and the broker away for too long."""
    await outage.begin()
    await accept(exposed, -HOUR, b"stored")
    outage.worker._unreachable_since = -LONG
    assert await outage.worker.process_waiting() == 0
    async with consumer.database.transaction() as tx:
        await tx.execute(delete(mark_table))
    assert await outage.worker.process_waiting()
