"""A process whose clock is wrong delays nothing, hurries nothing, and changes no order."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from clinic_shared import contracts, held
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.clock import SystemClock
from clinic_shared.consumer import apply_together
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.ids import uuid7, uuid7_at
from clinic_shared.intake import Intake, Item
from clinic_shared.intake_worker import IntakeWorker
from clinic_shared.service import Runtime
from clinic_shared.timer_worker import TimerWorker
from clinic_shared.timers import Timer, Timers
from sqlalchemy import text

from .conftest import QUEUE, REGISTERED

pytestmark = pytest.mark.servers

HOUR = timedelta(hours=1)
KIND = "obligation-overdue"


class WrongClock(SystemClock):
    """A machine's clock that somebody has set wrong."""

    def __init__(self, off_by: timedelta) -> None:
        self._off_by = off_by

    def now(self) -> datetime:
        return super().now() + self._off_by


@pytest.fixture
def ahead(consumer: Runtime) -> Runtime:
    consumer.database.clock = WrongClock(HOUR)
    return consumer


def put_right(runtime: Runtime) -> None:
    runtime.database.clock = SystemClock()


async def test_what_a_process_ahead_has_accepted_is_worked_off_at_once(ahead: Runtime) -> None:
    done: list[UUID] = []

    async def process(_: Transaction, item: Item) -> None:
        done.append(item.id)

    one = Item(
        interface="hl7",
        sender="TESTLAB",
        content_type="application/hl7-v2",
        body=b"MSH|1",
        received_at=datetime.now(UTC),
        answer=b"MSA|AA|1",
        answer_type="application/hl7-v2",
    )
    audit = AuditEntry(action=Action.CREATE, resource_type="IntakeItem", resource_id=one.id)
    await Intake.of(ahead).accept(one, audit=audit, context=Context())
    put_right(ahead)
    await IntakeWorker(ahead, {"hl7": process}).process_waiting()
    assert done == [one.id]


async def test_what_a_process_ahead_holds_is_tried_again_when_it_should_be(ahead: Runtime) -> None:
    message = held.RawMessage(queue=QUEUE, headers={}, body=b"{}")
    async with ahead.database.transaction() as tx:
        await held.hold(tx, message, cause="cause", error="TimeoutError")
        waits = await tx.fetch_one(text("SELECT next_attempt_at - clock_timestamp() AS seconds FROM held"))
    assert waits is not None
    assert waits.seconds <= held.SCHEDULE[0]


async def test_a_process_ahead_fires_no_timer_early_and_lets_none_expire(ahead: Runtime) -> None:
    now = datetime.now(UTC)
    due, later = uuid7(), uuid7()
    fired: list[UUID] = []
    timers = Timers()

    @timers.on(KIND)
    async def remember(_: Transaction, timer: Timer) -> None:
        fired.append(timer.subject)

    async with ahead.database.transaction() as tx:
        for subject, due_at in ((due, now - HOUR / 60), (later, now + HOUR / 2)):
            await tx.schedule(
                Timer(
                    kind=KIND, subject=subject, subject_version=1, due_at=due_at, useful_until=now + HOUR / 2
                )
            )
    worker = TimerWorker(ahead)
    worker.handlers = timers.handlers
    assert await worker.fire_next()
    assert not await worker.fire_next()
    assert fired == [due]


async def test_the_inbox_knows_in_which_order_messages_took_effect_whenever_their_ids_were_made(
    consumer: Runtime,
) -> None:
    key, example = uuid7(), contracts.examples(REGISTERED)[0]
    body = encode_body(example["data"] | {"patient_id": str(key)}, example["private"])
    later, earlier = (uuid7_at(datetime.now(UTC) - HOUR * n) for n in (1, 2))
    now = datetime.now(UTC)
    messages = [
        Envelope(
            id=event_id,
            source="patients",
            type=REGISTERED,
            subject=key,
            time=now,
            aggregate_version=version,
            partition_key=key,
            recorded_at=now,
            correlation_id=uuid7(),
        )
        for version, event_id in ((1, later), (2, earlier))
    ]
    await apply_together(consumer, [(message, body) for message in messages])
    async with consumer.database.transaction() as tx:
        applied = await tx.fetch_all(text("SELECT event_id FROM inbox ORDER BY processed_at"))
    assert [row.event_id for row in applied] == [later, earlier]
