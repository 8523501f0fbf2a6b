"""One event's trace: created, published, applied, and what that leads to; and never a word of the patient."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
from clinic_shared import held
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.consumer import apply
from clinic_shared.context import Context
from clinic_shared.dead_letters.workers import HeldWorker
from clinic_shared.deliveries import Consumer
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.events import Origin, event_log
from clinic_shared.ids import uuid7
from clinic_shared.intake import Intake
from clinic_shared.intake_store import Item
from clinic_shared.intake_worker import IntakeWorker
from clinic_shared.relay import Relay
from clinic_shared.service import Runtime, Service
from clinic_shared.testing import FixedClock, eventually
from clinic_shared.testing_spans import Spans
from clinic_shared.timer_worker import TimerWorker
from clinic_shared.timers import Timer
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import select

from .conftest import QUEUE, REGISTERED, Behaviour, Journal, Made

pytestmark = pytest.mark.servers

Looping = Callable[..., AbstractAsyncContextManager[None]]
CANARY = "Канарейкина"
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def is_below(child: ReadableSpan, parent: ReadableSpan) -> bool:
    return child.parent is not None and child.parent.span_id == parent.context.span_id


def is_linked(later: ReadableSpan, earlier: ReadableSpan) -> bool:
    return [link.context.span_id for link in later.links] == [earlier.context.span_id]


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_one_trace_leads_from_the_event_through_the_relay_to_the_effect(
    producer: Runtime, consumer: Runtime, journal: Journal, looping: Looping, spans: Spans
) -> None:
    event_id = await journal.emit(producer)
    async with looping(Relay(producer).run, Consumer(consumer, QUEUE).run):
        await eventually(lambda: spans.named("process "))
    creation = spans.one(f"create {REGISTERED}")
    publishing = spans.one(f"publish patients.events:{REGISTERED}")
    processing = spans.one(f"process patients.events:{REGISTERED}:{QUEUE}")
    effect = next(span for span in spans.named("transaction") if is_below(span, processing))
    assert (creation.kind, processing.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    for later in (publishing, processing):
        assert is_below(later, creation)
        assert is_linked(later, creation)
    assert any(is_below(span, effect) for span in spans.named("INSERT"))
    assert len({span.context.trace_id for span in spans.all}) == 1
    async with producer.database.transaction() as tx:
        row = await tx.fetch_one(select(event_log))
    assert row is not None
    assert told(processing) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": f"patients.events:{REGISTERED}:{QUEUE}",
        "messaging.message.id": str(event_id),
        "messaging.message.conversation_id": str(row.correlation_id),
        "clinic.disposition": "applied",
    }
    assert told(publishing)["messaging.operation.type"] == "send"
    assert told(publishing)["clinic.outcome"] == "confirmed"


@pytest.mark.parametrize("spans", [0.0], indirect=True)
async def test_what_is_not_sampled_at_the_beginning_is_sampled_nowhere(
    producer: Runtime, consumer: Runtime, journal: Journal, looping: Looping, spans: Spans
) -> None:
    await journal.emit(producer)
    async with looping(Relay(producer).run, Consumer(consumer, QUEUE).run):
        await eventually(lambda: journal.effects(consumer))
    assert spans.all == ()


def envelope(**changes: Any) -> Envelope:
    now = FixedClock().now()
    key = uuid7()
    made = Envelope(
        id=uuid7(),
        source="patients",
        type=REGISTERED,
        subject=key,
        time=now,
        recorded_at=now,
        aggregate_version=1,
        partition_key=key,
        correlation_id=uuid7(),
        traceparent=CALLER,
    )
    return replace(made, **changes)


def body(one: Envelope, journal: Journal) -> bytes:
    event = journal.event(one.subject, one.aggregate_version)
    return encode_body(event.data, event.private)


@pytest.mark.parametrize("origin", [Origin.REPLAY, Origin.IMPORT])
async def test_what_is_not_live_is_linked_to_its_creation_but_no_part_of_its_trace(
    consumer: Runtime, journal: Journal, spans: Spans, origin: Origin
) -> None:
    one = envelope(origin=origin)
    await apply(consumer, one, body(one, journal))
    processing = spans.one("process ")
    assert processing.parent is None
    assert [f"{link.context.span_id:016x}" for link in processing.links] == [CALLER[36:52]]
    assert f"{processing.context.trace_id:032x}" != CALLER[3:35]


async def test_what_a_consumer_emits_goes_on_in_the_trace(
    consumer: Runtime, journal: Journal, behaviour: Behaviour, spans: Spans
) -> None:
    async def emit(tx: Any, _: Envelope) -> None:
        tx.emit(journal.event(uuid7(), 1))

    behaviour.before = emit
    one = envelope()
    await apply(consumer, one, body(one, journal))
    creation = spans.one("create ")
    assert f"{creation.context.trace_id:032x}" == CALLER[3:35]
    assert any(is_below(span, spans.one("process ")) for span in spans.named("transaction"))
    async with consumer.database.transaction() as tx:
        row = await tx.fetch_one(select(event_log))
    assert row is not None
    assert row.traceparent == f"{CALLER[:36]}{creation.context.span_id:016x}-01"


async def test_a_message_that_fails_says_so_without_its_message(
    consumer: Runtime, journal: Journal, behaviour: Behaviour, spans: Spans
) -> None:
    one = envelope()
    behaviour.fail(one.subject, RuntimeError(f"no place for {CANARY}"))
    with pytest.raises(RuntimeError):
        await apply(consumer, one, body(one, journal))
    processing = spans.one("process ")
    assert processing.status.status_code is StatusCode.ERROR
    assert told(processing)["error.type"] == "RuntimeError"
    assert CANARY not in spans.text()
    example = journal.event(one.subject, 1)
    for value in (str(one.subject), *(example.private or {}).values()):
        assert str(value) not in spans.text()


async def test_a_timer_begins_a_trace_that_is_linked_to_what_set_it(
    made: Made, consumer_service: Service, journal: Journal, spans: Spans, clock: FixedClock
) -> None:
    correlation_id, cause = uuid7(), uuid7()

    @consumer_service.timers.on("reminder")
    async def remind(tx: Any, timer: Timer) -> None:
        tx.emit(journal.event(timer.subject, 1))

    async with made.start(consumer_service) as runtime:
        set_by = Context(correlation_id=correlation_id, causation_id=cause, traceparent=CALLER)
        async with runtime.database.transaction(set_by) as tx:
            await tx.schedule(Timer(kind="reminder", subject=uuid7(), subject_version=1, due_at=clock.now()))
        assert await TimerWorker(runtime).fire_next()
        async with runtime.database.transaction() as tx:
            row = await tx.fetch_one(select(event_log))
    assert row is not None
    assert (row.correlation_id, row.causation_id) == (correlation_id, cause)
    fired = spans.one("timer reminder")
    assert fired.parent is None
    assert [f"{link.context.span_id:016x}" for link in fired.links] == [CALLER[36:52]]
    assert is_below(spans.one("create "), fired)


async def test_what_was_accepted_is_worked_off_in_the_trace_of_its_acceptance(
    consumer: Runtime, journal: Journal, spans: Spans
) -> None:
    item = Item(
        interface="hl7",
        sender="TESTLAB",
        content_type="application/hl7-v2",
        body=f"PID|1||{CANARY}".encode(),
        received_at=FixedClock().now(),
    )
    audit = AuditEntry(action=Action.CREATE, resource_type="IntakeItem", resource_id=item.id)
    await Intake.of(consumer).accept(item, audit=audit, context=Context(traceparent=CALLER))

    async def file(tx: Any, taken: Item) -> None:
        assert dict(taken.attributes) == {}
        tx.emit(journal.event(uuid7(), 1))

    assert await IntakeWorker(consumer, {"hl7": file}).process_next()
    working = spans.one("process intake:hl7")
    assert working.parent is not None
    assert f"{working.parent.span_id:016x}" == CALLER[36:52]
    assert is_below(spans.one("create "), working)
    assert CANARY not in spans.text()


async def test_a_held_message_is_tried_again_in_its_trace(
    consumer: Runtime, journal: Journal, spans: Spans
) -> None:
    one = envelope()
    message = held.RawMessage(queue=QUEUE, headers=one.headers(), body=body(one, journal))
    async with consumer.database.transaction() as tx:
        await held.hold_behind(tx, message)
    assert await HeldWorker(consumer).retry_next()
    assert f"{spans.one('process ').context.trace_id:032x}" == CALLER[3:35]
