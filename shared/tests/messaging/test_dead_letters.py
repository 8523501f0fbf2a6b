"""Held messages are tried by the schedule and in order; parked ones block nothing and wait for a person."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_shared.app import create_app
from clinic_shared.auth import TokenSigner, claims_of
from clinic_shared.context import Context
from clinic_shared.dead_letters.workers import HeldWorker, ParkingDrain
from clinic_shared.deliveries import Consumer
from clinic_shared.errors import InvalidRequestError, ReferenceNotYetKnownError
from clinic_shared.held import SCHEDULE
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.service import Runtime
from clinic_shared.testing import FixedClock, eventually
from sqlalchemy import text

from .conftest import QUEUE, Behaviour, Journal, Queues
from .test_consumer import held_rows, put, versions_of

pytestmark = pytest.mark.servers

Looping = Callable[..., AbstractAsyncContextManager[None]]


async def consume(
    runtime: Runtime, queues: Queues, looping: Looping, *messages: tuple[UUID, int], held: int
) -> None:
    """Let the consumer meet these messages, until so many are held or parked."""

    async def kept() -> bool:
        return len(await held_rows(runtime)) == held

    for key, version in messages:
        await put(queues, key, version)
    async with looping(Consumer(runtime, QUEUE).run):
        await eventually(kept)


async def retry_all_due(runtime: Runtime) -> int:
    worker, count = HeldWorker(runtime), 0
    while await worker.retry_next():
        count += 1
    return count


def operator() -> Context:
    return Context(principal=Principal(subject=uuid7(), kind="staff", network=True))


async def audit_count(runtime: Runtime) -> int:
    async with runtime.database.transaction() as tx:
        return int((await tx.fetch_all(text("SELECT count(*) FROM audit_outbox")))[0][0])


async def test_a_held_message_is_tried_by_the_schedule_and_then_parked(
    consumer: Runtime, queues: Queues, looping: Looping, behaviour: Behaviour, clock: FixedClock
) -> None:
    key = uuid7()
    behaviour.fail(key, RuntimeError("still broken"))
    await consume(consumer, queues, looping, (key, 1), held=1)
    for number, delay in enumerate(SCHEDULE, start=1):
        (row,) = await held_rows(consumer)
        assert (row.state, row.attempt, row.next_attempt_at) == ("held", number, clock.now() + delay)
        clock.advance(seconds=delay.total_seconds() - 1)
        assert await retry_all_due(consumer) == 0
        clock.advance(seconds=1)
        assert await retry_all_due(consumer) == 1
    (row,) = await held_rows(consumer)
    assert (row.state, row.attempt, row.next_attempt_at) == ("parked", 6, None)
    clock.advance(days=30)
    assert await retry_all_due(consumer) == 0


async def test_after_recovery_a_key_is_applied_in_order(
    consumer: Runtime,
    journal: Journal,
    queues: Queues,
    looping: Looping,
    behaviour: Behaviour,
    clock: FixedClock,
) -> None:
    key = uuid7()
    behaviour.fail(key, RuntimeError("for now"), version=1)
    await consume(consumer, queues, looping, (key, 1), (key, 2), (key, 3), held=3)
    assert await retry_all_due(consumer) == 0  # the second and third wait for the first
    behaviour.recover()
    clock.advance(seconds=5)
    async with looping(Consumer(consumer, QUEUE).run, HeldWorker(consumer).run):
        await put(queues, key, 4)
        await eventually(lambda: _effects(journal, consumer, 4))
    assert versions_of(await journal.effects(consumer), key) == [1, 2, 3, 4]
    assert await held_rows(consumer) == []


async def _effects(journal: Journal, runtime: Runtime, count: int) -> bool:
    return len(await journal.effects(runtime)) == count


async def test_a_reference_that_may_still_come_is_waited_for(
    consumer: Runtime, queues: Queues, looping: Looping, behaviour: Behaviour
) -> None:
    key = uuid7()
    behaviour.fail(key, ReferenceNotYetKnownError())
    await consume(consumer, queues, looping, (key, 1), held=1)
    assert (await held_rows(consumer))[0].state == "held"


async def test_a_parked_message_no_longer_blocks_its_key(
    consumer: Runtime,
    journal: Journal,
    queues: Queues,
    looping: Looping,
    behaviour: Behaviour,
    clock: FixedClock,
) -> None:
    key = uuid7()
    behaviour.fail(key, InvalidRequestError("never"), version=1)
    await consume(consumer, queues, looping, (key, 1), (key, 2), held=1)
    await eventually(lambda: _effects_within(journal, consumer, queues, looping, 1))
    assert versions_of(await journal.effects(consumer), key) == [2]


async def _effects_within(
    journal: Journal, consumer: Runtime, queues: Queues, looping: Looping, count: int
) -> bool:
    async with looping(Consumer(consumer, QUEUE).run):
        return bool(await eventually(lambda: _effects(journal, consumer, count)))


async def test_what_the_broker_dead_lettered_is_kept_as_parked(
    consumer: Runtime, journal: Journal, queues: Queues, looping: Looping
) -> None:
    """From the queue, over the delivery limit, through the parking queue, into the table."""
    key = uuid7()
    event_id = await put(queues, key)
    rejections = 0
    async with queues.channel() as channel:
        queue = await channel.get_queue(QUEUE, ensure=False)

        async def die(message: Any) -> None:
            nonlocal rejections
            rejections += 1
            await message.reject(requeue=True)

        tag = await queue.consume(die)
        await eventually(lambda: rejections == 21)
        await queue.cancel(tag)
    async with looping(ParkingDrain(consumer).run):
        await eventually(lambda: held_rows(consumer))
    (row,) = await held_rows(consumer)
    assert (row.event_id, row.state, row.queue) == (event_id, "parked", QUEUE)
    assert row.error.startswith("DeliveryLimit")
    assert await queues.count("reporting.parking") == 0


async def test_the_event_log_of_a_subject_is_shown_without_payloads(
    producer: Runtime, journal: Journal, signer: TokenSigner, clock: FixedClock
) -> None:
    key = uuid7()
    for version in (1, 2, 3):
        await journal.emit(producer, key=key, version=version)
    await journal.emit(producer)
    caller = Principal(subject=uuid7(), kind="staff", network=True, scopes=frozenset({"ops.read"}))
    token = signer.sign(claims_of(caller, issued_at=clock.now(), lifetime_seconds=300))
    transport = httpx.ASGITransport(app=create_app(producer.service, producer))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://service.test", headers={"Authorization": f"Bearer {token}"}
    ) as http:
        answer = await http.get("/v1/ops/events", params={"subject": str(key), "limit": 2})
        page = answer.raise_for_status().json()
        assert [event["aggregate_version"] for event in page["items"]] == [1, 2]
        more = await http.get(
            "/v1/ops/events", params={"subject": str(key), "cursor": page["next_cursor"], "limit": 2}
        )
        assert [event["aggregate_version"] for event in more.json()["items"]] == [3]
        assert more.json()["next_cursor"] is None
        assert "Тестова" not in answer.text
