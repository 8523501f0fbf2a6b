"""A message takes effect once, in order per key; what can't is held or parked; nothing is lost."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Any
from urllib.parse import quote
from uuid import UUID

import aiormq
import httpx
import pytest
from aiormq import spec
from clinic_shared import contracts, deliveries, metrics
from clinic_shared.consumer import Handlers, apply, context_of
from clinic_shared.database import Transaction
from clinic_shared.deliveries import PREFETCH, Consumer
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.errors import InvalidRequestError
from clinic_shared.events import Origin
from clinic_shared.health import Health
from clinic_shared.ids import uuid7
from clinic_shared.management import vhost_of
from clinic_shared.relay import Relay
from clinic_shared.service import Runtime, Service
from clinic_shared.testing import FixedClock, Servers, eventually
from clinic_shared.topology import declare_all
from pydantic import BaseModel, ConfigDict, SecretStr
from sqlalchemy import text

from .conftest import INSTALLED, QUEUE, REGISTERED, Behaviour, Journal, Made, Queues, Wire

pytestmark = pytest.mark.servers

Looping = Callable[..., AbstractAsyncContextManager[None]]


class Watched(Consumer):
    """A consumer that remembers which deliveries the broker called repeated ones."""

    def __init__(self, runtime: Runtime, queue: str = QUEUE) -> None:
        super().__init__(runtime, queue)
        self.deliveries: list[bool] = []

    async def _settle(self, delivery: Any, over: asyncio.Event) -> None:
        self.deliveries.append(bool(delivery.delivery.redelivered))
        await super()._settle(delivery, over)

    async def _apply_together(self, deliveries: Any) -> bool:
        applied = await super()._apply_together(deliveries)
        if applied:
            self.deliveries += [bool(delivery.delivery.redelivered) for delivery in deliveries]
        return applied


def envelope(event_id: UUID, key: UUID, version: int = 1, event_type: str = REGISTERED) -> Envelope:
    now = FixedClock().now()
    return Envelope(
        id=event_id,
        source="patients",
        type=event_type,
        subject=key,
        time=now,
        recorded_at=now,
        aggregate_version=version,
        partition_key=key,
        correlation_id=uuid7(),
    )


def body(key: UUID, version: int = 1) -> bytes:
    return encode_body({"patient_id": str(key), "version": version}, None)


async def put(queues: Queues, key: UUID, *versions: int, event_id: UUID | None = None) -> UUID:
    """Put a patient's events into the queue; returns the id of the first."""
    ids = [event_id or uuid7(), *(uuid7() for _ in versions[1:])]
    numbered = list(zip(ids, versions or (1,), strict=True))
    await queues.put(
        QUEUE,
        *(body(key, version) for _, version in numbered),
        headers=[dict(envelope(one, key, version).headers()) for one, version in numbered],
    )
    return ids[0]


async def put_each(queues: Queues, *keys: UUID) -> None:
    """Put one event of each patient into the queue."""
    headers = [dict(envelope(uuid7(), key).headers()) for key in keys]
    await queues.put(QUEUE, *(body(key) for key in keys), headers=headers)


async def held_rows(runtime: Runtime) -> list[Any]:
    async with runtime.database.transaction() as tx:
        return list(await tx.fetch_all(text("SELECT * FROM held ORDER BY id")))


async def effects_reach(
    journal: Journal, runtime: Runtime, count: int, *, within_seconds: float = 60
) -> list[tuple[UUID, UUID, int]]:
    async def reached() -> Any:
        found = await journal.effects(runtime)
        return found if len(found) >= count else None

    found: list[tuple[UUID, UUID, int]] = await eventually(reached, within_seconds=within_seconds)
    assert len(found) == count
    return found


def versions_of(effects: list[tuple[UUID, UUID, int]], key: UUID) -> list[int]:
    return [version for _, subject, version in effects if subject == key]


async def test_committed_events_take_effect_at_the_consumer(
    producer: Runtime, consumer: Runtime, journal: Journal, looping: Looping
) -> None:
    async with looping(Relay(producer).run, Consumer(consumer, QUEUE).run):
        await journal.emit_many(producer, 300, keys=5)
        effects = await effects_reach(journal, consumer, 300)
    assert {event_id for event_id, _, _ in effects} == set(journal.emitted)
    for key in {subject for _, subject, _ in effects}:
        assert versions_of(effects, key) == list(range(1, 61))


async def test_what_waits_for_a_lane_takes_effect_in_one_transaction_in_order_per_key(
    producer: Runtime, consumer: Runtime, journal: Journal, behaviour: Behaviour, looping: Looping
) -> None:
    held_up: list[UUID] = []

    async def hold_up_the_first(_: Transaction, envelope: Envelope) -> None:
        """Whoever could overtake has done so by then: others' third events are there."""
        if not held_up:
            held_up.append(envelope.partition_key)
            await eventually(lambda: _has_version(journal, consumer, 3))

    behaviour.before = hold_up_the_first
    await journal.emit_many(producer, 400, keys=20)
    async with looping(Relay(producer).run):
        await eventually(lambda: _relayed(journal, producer))
    async with looping(Consumer(consumer, QUEUE).run):
        effects = await eventually(lambda: _all_effects(journal, consumer, 400))
    assert len({event_id for event_id, _, _ in effects}) == 400
    for key in {key for _, key, _ in effects}:
        assert [version for _, k, version in effects if k == key] == list(range(1, 21))
    async with consumer.database.transaction() as tx:
        transactions = (await tx.fetch_all(text("SELECT count(DISTINCT xmin::text) FROM effect")))[0][0]
    # How many come together is the broker's business.
    assert transactions < 400


async def _has_version(journal: Journal, consumer: Runtime, wanted: int) -> bool:
    return any(version >= wanted for _, _, version in await journal.effects(consumer))


async def test_one_that_fails_among_many_fails_by_itself(
    producer: Runtime, consumer: Runtime, journal: Journal, behaviour: Behaviour, looping: Looping
) -> None:
    await journal.emit_many(producer, 300, keys=10)
    poison = uuid7()
    for version in range(1, 4):
        await journal.emit(producer, key=poison, version=version)
    await journal.emit_many(producer, 100, keys=10)
    behaviour.fail(poison, RuntimeError("not now"), version=2)
    async with looping(Relay(producer).run):
        await eventually(lambda: _relayed(journal, producer))
    async with looping(Consumer(consumer, QUEUE).run):
        effects = await eventually(lambda: _all_effects(journal, consumer, 401))
        await eventually(lambda: _held_versions(consumer, 2))
    assert len(effects) == len({event_id for event_id, _, _ in effects}) == 401
    assert [version for _, key, version in effects if key == poison] == [1]


async def test_two_copies_in_one_transaction_have_one_effect(
    consumer: Runtime, journal: Journal, queues: Queues, looping: Looping
) -> None:
    key, example = uuid7(), contracts.examples(REGISTERED)[0]
    body = encode_body(example["data"] | {"patient_id": str(key)}, example["private"])
    headers = [envelope(event_id, key).headers() for event_id in (uuid7(), uuid7())]
    await queues.put(QUEUE, *[body] * 6, headers=headers * 3)
    async with looping(Consumer(consumer, QUEUE).run):
        await eventually(lambda: _empty(queues))
    assert len(await journal.effects(consumer)) == 2


async def _relayed(journal: Journal, producer: Runtime) -> bool:
    return await journal.pending(producer) == 0


async def _all_effects(journal: Journal, consumer: Runtime, count: int) -> Any:
    effects = await journal.effects(consumer)
    return effects if len(effects) >= count else None


async def _held_versions(consumer: Runtime, count: int) -> bool:
    async with consumer.database.transaction() as tx:
        return len(await tx.fetch_all(text("SELECT 1 FROM held WHERE state = 'held'"))) == count


async def _empty(queues: Queues) -> bool:
    return await queues.count(QUEUE) == 0


async def test_a_duplicate_has_one_effect(
    consumer: Runtime, journal: Journal, queues: Queues, looping: Looping
) -> None:
    counted = metrics.INBOX_DUPLICATES._value.get()
    key, event_id = uuid7(), uuid7()
    for _ in range(3):
        await put(queues, key, event_id=event_id)
    async with looping(Consumer(consumer, QUEUE).run):
        await put(queues, key, 2)
        await effects_reach(journal, consumer, 2)
    await eventually(lambda: metrics.INBOX_DUPLICATES._value.get() - counted == 2)
    assert len(await journal.effects(consumer)) == 2


async def test_without_the_inbox_a_duplicate_would_have_two_effects(
    consumer: Runtime, journal: Journal, queues: Queues, looping: Looping, mutation: Callable[[str], None]
) -> None:
    """The check above notices when the safeguard is gone."""
    mutation("inbox-off")
    key, event_id = uuid7(), uuid7()
    for _ in range(2):
        await put(queues, key, event_id=event_id)
    async with looping(Consumer(consumer, QUEUE).run):
        await effects_reach(journal, consumer, 2)


async def test_a_slow_key_does_not_stop_the_others(
    consumer: Runtime, journal: Journal, queues: Queues, looping: Looping, behaviour: Behaviour
) -> None:
    slow, gate = uuid7(), asyncio.Event()

    async def wait(_: Transaction, envelope: Envelope) -> None:
        if envelope.partition_key == slow:
            await gate.wait()

    behaviour.before = wait
    await put(queues, slow)
    others = [uuid7() for _ in range(30)]
    await put_each(queues, *others)
    async with looping(Consumer(consumer, QUEUE).run):
        # What came into one transaction with the slow one waits with it; the rest flows on.
        await eventually(lambda: _at_least(journal, consumer, 15))
        gate.set()
        await effects_reach(journal, consumer, 31)


async def _at_least(journal: Journal, runtime: Runtime, count: int) -> bool:
    return len(await journal.effects(runtime)) >= count


async def test_what_can_never_be_handled_is_parked_at_once_and_the_rest_flows(
    consumer: Runtime, journal: Journal, queues: Queues, looping: Looping, behaviour: Behaviour
) -> None:
    refused, broken = uuid7(), uuid7()
    behaviour.fail(refused, InvalidRequestError("never"))
    await queues.put(QUEUE, b"not an event", headers=[{"some": "header"}])
    await queues.put(QUEUE, b"\xff\x00{", headers=[dict(envelope(uuid7(), broken).headers())])
    await queues.put(
        QUEUE,
        encode_body({"patient_id": "Testova"}, None),
        headers=[dict(envelope(uuid7(), broken).headers())],
    )
    await put(queues, refused)
    await put(queues, uuid7())
    async with looping(Consumer(consumer, QUEUE).run):
        await effects_reach(journal, consumer, 1)
        await eventually(lambda: _held_count(consumer, 4))
    rows = await held_rows(consumer)
    assert {row.state for row in rows} == {"parked"}
    assert sorted(row.error.split()[0] for row in rows) == [
        "InvalidRequestError",
        "MalformedMessageError",
        "MalformedMessageError",
        "ValidationError",
    ]
    assert not any("Testova" in row.error for row in rows)
    assert await queues.count(QUEUE) == 0


async def test_what_only_the_next_release_knows_is_held_for_it_with_all_behind_it(
    consumer: Runtime, journal: Journal, queues: Queues, looping: Looping
) -> None:
    subject = uuid7()
    newer = envelope(uuid7(), subject, event_type="patients.patient-registered.v9")
    await queues.put(QUEUE, body(subject), headers=[dict(newer.headers())])
    await put(queues, subject)
    async with looping(Consumer(consumer, QUEUE).run):
        await eventually(lambda: _held_count(consumer, 2))
    assert {row.state for row in await held_rows(consumer)} == {"held"}
    assert await journal.effects(consumer) == []


async def _held_count(runtime: Runtime, count: int) -> bool:
    return len(await held_rows(runtime)) == count


async def test_a_transient_error_is_tried_again_at_once(
    consumer: Runtime, journal: Journal, queues: Queues, looping: Looping, behaviour: Behaviour
) -> None:
    tries = 0

    async def deadlock_twice(tx: Transaction, _: Envelope) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            await tx.execute(text("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$"))

    behaviour.before = deadlock_twice
    await put(queues, uuid7())
    async with looping(Consumer(consumer, QUEUE).run):
        await effects_reach(journal, consumer, 1)
    assert tries == 3
    assert await held_rows(consumer) == []


async def test_a_handler_whose_connection_is_killed_is_tried_again(
    consumer: Runtime, journal: Journal, queues: Queues, looping: Looping, behaviour: Behaviour
) -> None:
    tries = 0

    async def die_once(tx: Transaction, _: Envelope) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            await tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    behaviour.before = die_once
    await put(queues, uuid7())
    async with looping(Consumer(consumer, QUEUE).run):
        await effects_reach(journal, consumer, 1)
    assert tries == 2


async def test_messages_of_a_held_key_queue_up_behind_it(
    consumer: Runtime, journal: Journal, queues: Queues, looping: Looping, behaviour: Behaviour
) -> None:
    failing, other = uuid7(), uuid7()
    behaviour.fail(failing, RuntimeError("not today"), version=1)
    await put(queues, failing, 1, 2, 3)
    await put(queues, other)
    async with looping(Consumer(consumer, QUEUE).run):
        await effects_reach(journal, consumer, 1)
        await eventually(lambda: _held_count(consumer, 3))
    rows = await held_rows(consumer)
    assert [(row.state, row.attempt) for row in rows] == [("held", 1), ("held", 0), ("held", 0)]
    assert [row.headers["cloudEvents_aggregateversion"] for row in rows] == [1, 2, 3]
    assert versions_of(await journal.effects(consumer), failing) == []


async def test_with_the_database_down_messages_wait_and_no_delivery_is_spent(
    made: Made,
    consumer_service: Service,
    database_wire: Wire,
    journal: Journal,
    consumer: Runtime,
    queues: Queues,
    looping: Looping,
) -> None:
    down = made.start(consumer_service, database_url=database_wire.url)
    async with down as runtime:
        watched = Watched(runtime)
        async with looping(watched.run):
            await put(queues, uuid7())
            await effects_reach(journal, consumer, 1)
            database_wire.go_down()
            await put_each(queues, *(uuid7() for _ in range(20)))
            await eventually(lambda: len(watched.deliveries) >= 4)  # the lanes are stuck with one each
            database_wire.come_back()
            await effects_reach(journal, consumer, 21)
    assert watched.deliveries == [False] * 21
    assert await held_rows(consumer) == []


async def test_a_consumer_that_starts_without_its_database_waits_for_it(
    made: Made,
    consumer_service: Service,
    database_wire: Wire,
    journal: Journal,
    consumer: Runtime,
    queues: Queues,
    looping: Looping,
) -> None:
    database_wire.go_down()
    await put(queues, uuid7())
    async with (
        made.start(consumer_service, database_url=database_wire.url) as runtime,
        looping(Consumer(runtime, QUEUE).run),
    ):
        await eventually(lambda: "database" in Health.of(runtime).reasons.get(f"consumer:{QUEUE}", ""))
        assert await queues.count(QUEUE) == 1
        database_wire.come_back()
        await effects_reach(journal, consumer, 1)
        assert Health.of(runtime).reasons == {}


async def test_a_message_is_the_brokers_until_its_effect_is_committed(
    consumer: Runtime,
    broker_urls: Servers,
    journal: Journal,
    queues: Queues,
    looping: Looping,
    behaviour: Behaviour,
) -> None:
    """Whoever dies in the middle of a handler leaves the message to the next."""
    working = asyncio.Event()

    async def work(_: Transaction, __: Envelope) -> None:
        await working.wait()

    behaviour.before = work
    await put(queues, uuid7())
    async with looping(Consumer(consumer, QUEUE).run):
        try:
            await eventually(lambda: _unacknowledged(broker_urls, 1))
        finally:
            working.set()
        await effects_reach(journal, consumer, 1)
        await eventually(lambda: _unacknowledged(broker_urls, 0))


async def _unacknowledged(broker: Servers, expected: int) -> bool:
    async with httpx.AsyncClient(base_url=broker.management_url, trust_env=False) as management:
        vhost = quote(vhost_of(broker.amqp_url), safe="")
        answer = await management.get(f"/api/queues/{vhost}/{QUEUE}")
    counted: dict[str, Any] = answer.raise_for_status().json()
    return counted.get("messages_unacknowledged") == expected


async def test_a_lost_acknowledgement_leaves_one_effect(
    made: Made,
    consumer: Runtime,
    wire: Wire,
    journal: Journal,
    queues: Queues,
    looping: Looping,
    behaviour: Behaviour,
) -> None:
    cut = False

    async def cut_once(_: Transaction, __: Envelope) -> None:
        nonlocal cut
        if not cut:
            cut = True
            wire.cut()

    behaviour.before = cut_once
    await put_each(queues, *(uuid7() for _ in range(10)))
    url = consumer.settings.database_url.get_secret_value()
    async with made.start(consumer.service, url, amqp_url=SecretStr(wire.url)) as runtime:
        watched = Watched(runtime)
        async with looping(watched.run):
            await eventually(lambda: _queue_is_empty_and(queues, any(watched.deliveries)))
            await effects_reach(journal, consumer, 10)
    assert len(watched.deliveries) > 10


async def test_acknowledgements_leave_in_the_order_in_which_they_were_decided(
    consumer: Runtime,
    journal: Journal,
    queues: Queues,
    looping: Looping,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each may wait for room on the connection; one that another has covered meanwhile would end the channel."""
    send, chance = aiormq.Channel.basic_ack, Random(7)  # a test's dice

    async def send_when_there_is_room(*arguments: Any, **options: Any) -> None:
        for _ in range(chance.randrange(50)):
            await asyncio.sleep(0)
        await send(*arguments, **options)

    monkeypatch.setattr(aiormq.Channel, "basic_ack", send_when_there_is_room)
    await put_each(queues, *(uuid7() for _ in range(400)))
    watched = Watched(consumer)
    async with looping(watched.run):
        await effects_reach(journal, consumer, 400)
        await eventually(lambda: _queue_is_empty_and(queues, True))
    assert watched.deliveries == [False] * 400


async def _queue_is_empty_and(queues: Queues, condition: bool) -> bool:
    return condition and await queues.count(QUEUE) == 0


async def test_stopping_finishes_what_was_delivered_and_touches_nothing_else(
    consumer: Runtime, journal: Journal, queues: Queues, looping: Looping, behaviour: Behaviour
) -> None:
    """Messages left in the queue have never been delivered as far as the broker counts."""
    started = asyncio.Event()

    async def announce(_: Transaction, __: Envelope) -> None:
        started.set()
        await asyncio.sleep(0)

    behaviour.before = announce
    await put_each(queues, *(uuid7() for _ in range(150)))
    async with looping(Consumer(consumer, QUEUE).run):
        await started.wait()
    done = len(await journal.effects(consumer))
    assert done < 150
    left = await queues.take(QUEUE, 150 - done)
    touched = [m for m in left if m.redelivered or m.headers.get("x-delivery-count")]
    # Closing instead of draining would count against the whole prefetch; a few may be on the wire.
    assert len(touched) <= PREFETCH // 8


# RabbitMQ may take half a minute to answer a consumer that asks for a queue that is just being deleted.
@pytest.mark.timeout(240)
async def test_a_consumer_that_the_broker_cancelled_comes_back(
    consumer: Runtime,
    journal: Journal,
    queues: Queues,
    looping: Looping,
    broker_urls: Servers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The queue that is declared at once may take the old consumer for its own, and deliver into nothing.
    monkeypatch.setattr(deliveries, "RENEW_SECONDS", 1)
    async with looping(Consumer(consumer, QUEUE).run):
        await put(queues, uuid7())
        await effects_reach(journal, consumer, 1)
        await queues.delete(QUEUE)
        await declare_all(broker_urls.amqp_url, broker_urls.management_url, INSTALLED.split(","))
        await put(queues, uuid7())
        await effects_reach(journal, consumer, 2, within_seconds=150)


async def test_a_consumer_that_the_broker_forgot_without_a_word_begins_anew(
    consumer: Runtime,
    journal: Journal,
    queues: Queues,
    looping: Looping,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consume, begun = aiormq.Channel.basic_consume, list[str | None]()

    async def forgotten_once(channel: aiormq.Channel, queue: str, *args: Any, **options: Any) -> Any:
        answer = await consume(channel, queue, *args, **options)
        begun.append(answer.consumer_tag)
        if len(begun) == 1:
            await channel.rpc(spec.Basic.Cancel(consumer_tag=answer.consumer_tag, nowait=True))
        return answer

    monkeypatch.setattr(aiormq.Channel, "basic_consume", forgotten_once)
    monkeypatch.setattr(deliveries, "SILENCE_SECONDS", 0.5)
    async with looping(Consumer(consumer, QUEUE).run):
        await eventually(lambda: begun)
        await put(queues, uuid7())
        await effects_reach(journal, consumer, 1)
    assert len(begun) > 1


async def test_a_consumer_whose_question_the_broker_leaves_unanswered_asks_again_with_more_patience(
    consumer: Runtime,
    journal: Journal,
    queues: Queues,
    looping: Looping,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consume, patience = aiormq.Channel.basic_consume, list[float]()

    async def unanswered_twice(channel: aiormq.Channel, queue: str, *args: Any, **options: Any) -> Any:
        patience.append(options["timeout"])
        if len(patience) <= 2:
            raise TimeoutError
        return await consume(channel, queue, *args, **options)

    monkeypatch.setattr(aiormq.Channel, "basic_consume", unanswered_twice)
    async with looping(Consumer(consumer, QUEUE).run):
        await put(queues, uuid7())
        await effects_reach(journal, consumer, 1)
    assert patience == [5, 10, 20]


async def test_of_two_consumers_one_is_active_and_the_other_takes_over(
    made: Made, consumer: Runtime, journal: Journal, queues: Queues, looping: Looping
) -> None:
    url, key = consumer.settings.database_url.get_secret_value(), uuid7()
    async with made.start(consumer.service, url) as second, looping(Consumer(second, QUEUE).run):
        async with looping(Consumer(consumer, QUEUE).run):
            await put(queues, key, *range(1, 31))
            await eventually(lambda: _at_least(journal, consumer, 5))
        await put(queues, key, *range(31, 41))
        effects = await effects_reach(journal, consumer, 40)
    assert versions_of(effects, key) == list(range(1, 41))


async def test_the_payload_model_is_read_from_data_and_private_together(consumer: Runtime) -> None:
    seen: list[Any] = []

    class Patient(BaseModel):
        patient_id: UUID
        family: str | None = None

    handlers = Handlers("reporting")

    @handlers.on(REGISTERED)
    async def see(tx: Transaction, envelope: Envelope, payload: Patient) -> None:
        seen.append((payload.family, tx.context.causation_id == envelope.id, tx.context.origin))

    object.__setattr__(consumer.service, "handlers", handlers)
    key = uuid7()
    for private in ({"family": "Testova"}, None):
        await apply(consumer, envelope(uuid7(), key), encode_body({"patient_id": str(key)}, private))
    assert seen == [("Testova", True, Origin.LIVE), (None, True, Origin.LIVE)]


def test_the_context_of_an_effect_names_its_cause() -> None:
    one = envelope(uuid7(), uuid7())
    context = context_of(one)
    assert (context.correlation_id, context.causation_id) == (one.correlation_id, one.id)


def test_an_envelope_survives_its_headers() -> None:
    one = envelope(uuid7(), uuid7(), 7)
    assert Envelope.from_headers(one.headers()) == one


def test_a_handler_must_name_its_payload() -> None:
    handlers = Handlers("reporting")

    async def careless(tx: Transaction, envelope: Envelope, payload: dict[str, Any]) -> None:
        raise NotImplementedError

    with pytest.raises(TypeError, match="pydantic model"):
        handlers.on(REGISTERED)(careless)


def test_a_payload_that_forbids_additions_is_refused() -> None:
    """Events grow within a version; a consumer that chokes on a new field would stop."""

    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")

    async def handle(tx: Transaction, envelope: Envelope, payload: Strict) -> None:
        raise NotImplementedError

    with pytest.raises(TypeError, match="forbids fields"):
        Handlers("reporting").on(REGISTERED)(handle)


def test_two_handlers_for_one_type_are_refused(handlers: Handlers) -> None:
    with pytest.raises(ValueError, match="two handlers"):

        @handlers.on(REGISTERED)
        async def again(tx: Transaction, envelope: Envelope, payload: BaseModel) -> None:
            raise NotImplementedError
