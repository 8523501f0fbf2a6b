"""What is accepted is durable first, with any one component down; with both stores down it is refused."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from clinic_shared import held, intake_worker
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.errors import InvalidRequestError, TemporarilyUnavailableError
from clinic_shared.held import SCHEDULE
from clinic_shared.intake import Accepted, Intake, Item, answer_of, body_of
from clinic_shared.intake_store import DATABASE_SECONDS
from clinic_shared.intake_worker import IntakeWorker, redrive_item, waiting
from clinic_shared.service import Runtime, Service
from clinic_shared.testing import FixedClock, Servers, eventually
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from .conftest import Made, Queues, Wire

pytestmark = pytest.mark.servers

Looping = Callable[..., AbstractAsyncContextManager[None]]
BUFFER = "reporting.intake"


@pytest.fixture
async def exposed(
    made: Made, consumer_service: Service, database_wire: Wire, wire: Wire
) -> AsyncIterator[Runtime]:
    """A runtime both of whose servers can be taken down."""
    down = made.start(consumer_service, database_url=database_wire.url, amqp_url=SecretStr(wire.url))
    async with down as runtime:
        yield runtime


def item(body: bytes = b"MSH|1", **changes: Any) -> Item:
    given: dict[str, Any] = {
        "interface": "hl7",
        "sender": "TESTLAB",
        "content_type": "application/hl7-v2",
        "body": body,
        "received_at": FixedClock().now(),
        "answer": b"MSA|AA|" + body,
        "answer_type": "application/hl7-v2",
    }
    return Item(**(given | changes))


async def accept(runtime: Runtime, one: Item) -> Accepted:
    audit = AuditEntry(action=Action.CREATE, resource_type="IntakeItem", resource_id=one.id)
    return await Intake.of(runtime).accept(one, audit=audit, context=Context())


async def opened(runtime: Runtime, row: Any) -> tuple[bytes, bytes | None]:
    async with runtime.database.transaction() as tx:
        return body_of(tx, row), answer_of(tx, row)


async def rows(runtime: Runtime, table: str = "intake") -> list[Any]:
    async with runtime.database.transaction() as tx:
        return list(await tx.fetch_all(text(f"SELECT * FROM {table} ORDER BY id")))  # noqa: S608  # our own names


class Processed:
    """Remembers what it processed, in a table, and fails when told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls = 0

    async def __call__(self, tx: Transaction, one: Item) -> None:
        self.calls += 1
        statement = text("INSERT INTO effect (event_id, subject, version) VALUES (:id, :id, :size)")
        await tx.execute(statement, {"id": one.id, "size": len(one.body)})
        if self.error is not None and one.body.startswith(b"bad"):
            raise self.error


async def processed_ids(runtime: Runtime) -> list[Any]:
    return [row.event_id for row in await rows(runtime, "effect")]


async def test_an_item_is_stored_with_its_audit_record(consumer: Runtime) -> None:
    one = item()
    accepted = await accept(consumer, one)
    assert (accepted.id, accepted.via, accepted.answer, accepted.duplicate) == (
        one.id,
        "database",
        one.answer,
        False,
    )
    (row,) = await rows(consumer)
    assert (row.id, row.state, row.via) == (one.id, "received", "database")
    assert await opened(consumer, row) == (one.body, one.answer)
    (record,) = await rows(consumer, "audit_outbox")
    assert str(one.id).encode() in bytes(record.record)


async def test_the_same_bytes_get_the_first_answer_and_no_second_row(consumer: Runtime) -> None:
    first = await accept(consumer, item(answer=b"first"))
    again = await accept(consumer, item(answer=b"second"))
    assert (again.id, again.answer, again.duplicate) == (first.id, b"first", True)
    other = await accept(consumer, item(sender="OTHERLAB"))
    assert not other.duplicate
    assert [row.duplicates for row in await rows(consumer)] == [1, 0]


async def test_the_same_bytes_at_the_same_time_are_one_item(consumer: Runtime) -> None:
    answers = await asyncio.gather(*(accept(consumer, item()) for _ in range(20)))
    assert len({answer.id for answer in answers}) == 1
    assert sum(not answer.duplicate for answer in answers) == 1
    assert len(await rows(consumer)) == 1


async def test_items_accepted_at_the_same_time_are_committed_together(consumer: Runtime) -> None:
    answers = await asyncio.gather(*(accept(consumer, item(b"%d" % n)) for n in range(40)))
    assert [answer.duplicate for answer in answers] == [False] * 40
    async with consumer.database.transaction() as tx:
        counts = "SELECT count(*), count(DISTINCT xmin::text) FROM intake"
        row = await tx.fetch_one(text(counts))
    assert row is not None
    stored, transactions = tuple(row)
    assert stored == 40
    assert transactions < 20
    assert len(await rows(consumer, "audit_outbox")) == 40


async def test_an_item_that_the_database_refuses_costs_its_neighbours_nothing(consumer: Runtime) -> None:
    unstorable = item(b"bad", attributes={"text": "\x00"})
    given = [*(item(b"%d" % n) for n in range(9)), unstorable, *(item(b"%d" % n) for n in range(9, 18))]
    answers = await asyncio.gather(*(accept(consumer, one) for one in given), return_exceptions=True)
    assert [isinstance(answer, DBAPIError) for answer in answers] == [one is unstorable for one in given]
    stored = {row.id for row in await rows(consumer)}
    assert stored == {one.id for one in given if one is not unstorable}
    assert len(await rows(consumer, "audit_outbox")) == 18


async def test_with_the_database_down_an_item_is_confirmed_onto_the_queue(
    exposed: Runtime, consumer: Runtime, database_wire: Wire, queues: Queues, looping: Looping
) -> None:
    database_wire.go_down()
    one = item()
    assert (await accept(exposed, one)).via == "queue"
    assert await queues.count(BUFFER) == 1
    database_wire.come_back()
    async with looping(IntakeWorker(exposed, {"hl7": Processed()}).run):
        await eventually(lambda: processed_ids(consumer))
    (row,) = await rows(consumer)
    assert (row.id, row.via, row.state) == (one.id, "queue", "processed")
    assert await opened(consumer, row) == (one.body, one.answer)
    assert len(await rows(consumer, "audit_outbox")) == 1
    assert await queues.count(BUFFER) == 0


async def test_with_the_database_hung_the_queue_takes_over_within_the_deadline(
    exposed: Runtime, database_wire: Wire, queues: Queues
) -> None:
    await accept(exposed, item(b"warm"))
    database_wire.swallow_answers()
    started = time.monotonic()
    assert (await accept(exposed, item())).via == "queue"
    assert time.monotonic() - started < 20  # as long as it hangs otherwise
    started = time.monotonic()
    assert (await accept(exposed, item(b"next"))).via == "queue"
    assert time.monotonic() - started < DATABASE_SECONDS  # the database is avoided for a while
    assert await queues.count(BUFFER) == 2
    database_wire.cut()


async def test_with_the_broker_down_an_item_is_stored(exposed: Runtime, wire: Wire) -> None:
    wire.go_down()
    assert (await accept(exposed, item())).via == "database"


async def test_with_both_down_an_item_is_refused_and_stored_nowhere(
    exposed: Runtime, consumer: Runtime, database_wire: Wire, wire: Wire, queues: Queues
) -> None:
    database_wire.go_down()
    wire.go_down()
    with pytest.raises(TemporarilyUnavailableError):
        await accept(exposed, item())
    assert await rows(consumer) == []
    assert await queues.count(BUFFER) == 0


async def test_a_duplicate_that_waited_on_the_queue_has_one_effect(
    exposed: Runtime, consumer: Runtime, database_wire: Wire, looping: Looping
) -> None:
    first = await accept(exposed, item())
    database_wire.go_down()
    assert (await accept(exposed, item())).via == "queue"
    database_wire.come_back()
    process = Processed()
    async with looping(IntakeWorker(consumer, {"hl7": process}).run):
        await eventually(lambda: _duplicates(consumer, 1))
    assert await processed_ids(consumer) == [first.id]


async def _duplicates(runtime: Runtime, count: int) -> bool:
    return bool(sum(row.duplicates for row in await rows(runtime)) == count)


async def test_an_item_that_reached_both_stores_is_one_item(
    exposed: Runtime, consumer: Runtime, database_wire: Wire, queues: Queues, looping: Looping
) -> None:
    """The commit that came after the deadline, and the copy on the queue."""
    one = item()
    database_wire.go_down()
    await accept(exposed, one)
    database_wire.come_back()
    await accept(consumer, one)
    async with looping(IntakeWorker(consumer, {"hl7": Processed()}).run):
        await eventually(lambda: _queue_empty(queues))
        await eventually(lambda: processed_ids(consumer))
    assert await processed_ids(consumer) == [one.id]
    assert await _duplicates(consumer, 0)


async def _queue_empty(queues: Queues) -> bool:
    return await queues.count(BUFFER) == 0


async def test_what_waited_on_the_queue_is_processed_before_newer_rows(
    exposed: Runtime, consumer: Runtime, database_wire: Wire, looping: Looping
) -> None:
    database_wire.go_down()
    older = [await accept(exposed, item(b"older %d" % n)) for n in range(70)]
    database_wire.come_back()
    newer = [await accept(consumer, item(b"newer %d" % n)) for n in range(5)]
    async with looping(IntakeWorker(consumer, {"hl7": Processed()}).run):
        await eventually(lambda: _processed(consumer, 75))
    assert await processed_ids(consumer) == [one.id for one in (*older, *newer)]


async def _processed(runtime: Runtime, count: int) -> bool:
    return len(await processed_ids(runtime)) == count


async def test_a_failing_item_steps_aside_is_retried_by_the_schedule_and_parked(
    consumer: Runtime, clock: FixedClock
) -> None:
    process = Processed()
    process.error = RuntimeError("still broken")
    worker = IntakeWorker(consumer, {"hl7": process})
    bad = await accept(consumer, item(b"bad"))
    good = await accept(consumer, item(b"good"))
    assert await worker.process_next()
    assert await worker.process_next()
    assert await processed_ids(consumer) == [good.id]
    for delay in SCHEDULE:
        assert not await worker.process_next()
        clock.advance(seconds=delay.total_seconds())
        assert await worker.process_next()
    clock.advance(days=1)
    assert not await worker.process_next()
    async with consumer.database.transaction() as tx:
        assert await waiting(tx) == {"parked": 1}
        await redrive_item(tx, bad.id)
    process.error = None
    assert await worker.process_next()
    assert await processed_ids(consumer) == [good.id, bad.id]


async def test_items_that_wait_are_processed_together_and_a_bad_one_fails_alone(consumer: Runtime) -> None:
    process = Processed()
    process.error = InvalidRequestError("never")
    worker = IntakeWorker(consumer, {"hl7": process})
    good = [await accept(consumer, item(b"good %d" % n)) for n in range(14)]
    assert await worker.process_waiting()
    assert await processed_ids(consumer) == [one.id for one in good]
    assert process.calls == 14
    async with consumer.database.transaction() as tx:
        transactions = await tx.fetch_all(text("SELECT DISTINCT xmin::text FROM effect"))
    assert len(transactions) == 1
    more = [await accept(consumer, item(body)) for body in (b"good a", b"bad", b"good b")]
    assert await worker.process_waiting()
    assert not await worker.process_waiting()
    assert await processed_ids(consumer) == [one.id for one in (*good, more[0], more[2])]
    assert [row.state for row in await rows(consumer) if row.state != "processed"] == ["parked"]


async def test_an_item_that_can_never_be_processed_is_parked_at_once(consumer: Runtime) -> None:
    process = Processed()
    process.error = InvalidRequestError("never")
    worker = IntakeWorker(consumer, {"hl7": process})
    await accept(consumer, item(b"bad"))
    assert await worker.process_next()
    assert not await worker.process_next()
    assert [row.state for row in await rows(consumer)] == ["parked"]
    assert await processed_ids(consumer) == []


async def test_with_the_broker_down_stored_items_are_processed(
    exposed: Runtime, consumer: Runtime, wire: Wire, looping: Looping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_worker, "PATIENCE_SECONDS", 1.0)
    wire.go_down()
    await accept(exposed, item())
    async with looping(IntakeWorker(exposed, {"hl7": Processed()}).run):
        await eventually(lambda: _processed(consumer, 1))


async def test_the_queue_is_not_acknowledged_before_the_table_has_the_item(
    exposed: Runtime, consumer: Runtime, database_wire: Wire, queues: Queues, looping: Looping
) -> None:
    """The database goes away again while the buffer is being emptied: everything is still there after."""
    database_wire.go_down()
    accepted = [await accept(exposed, item(b"%d" % n)) for n in range(120)]
    worker = IntakeWorker(exposed, {"hl7": Processed()})
    with pytest.raises(Exception, match=r"(?i)connect|closed|server"):
        await worker.drain_batch()
    database_wire.come_back()
    async with looping(worker.run):
        await eventually(lambda: _processed(consumer, 120), within_seconds=60)
    assert await processed_ids(consumer) == [one.id for one in accepted]


async def test_something_else_on_the_queue_is_parked_not_lost(
    consumer: Runtime, queues: Queues, servers: Servers
) -> None:
    await queues.put(BUFFER, b"not an item")
    worker = IntakeWorker(consumer, {})
    assert await worker.drain_batch() == 1
    (row,) = await rows(consumer, "held")
    assert (row.state, row.queue) == ("parked", BUFFER)
    async with consumer.database.transaction() as tx:
        assert held.body_of(tx, row) == b"not an item"


async def test_acknowledging_before_storing_would_be_noticed(
    exposed: Runtime, consumer: Runtime, database_wire: Wire, wire: Wire, mutation: Callable[[str], None]
) -> None:
    """With the safeguard off, an item is answered that is stored nowhere."""
    mutation("ack-before-durable")
    database_wire.go_down()
    wire.go_down()
    assert (await accept(exposed, item())).via == "database"
    assert await rows(consumer) == []
