"""What events say of people lies sealed in the event log, and goes out as contracts say."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from clinic_shared import event_sealing
from clinic_shared.consumer import Handlers
from clinic_shared.encryption import old_events
from clinic_shared.encryption.backlog import count_by_key, encrypt_backlog, rewrap_all
from clinic_shared.encryption.ciphers import KEY_BYTES, KeyEncryptionKey, KeyId, SealBrokenError
from clinic_shared.encryption.keyring import KeysUnavailableError
from clinic_shared.envelope import PREFIX
from clinic_shared.events import event_log
from clinic_shared.ids import uuid7
from clinic_shared.relay import SEAL_BROKEN, Relay
from clinic_shared.relay_leases import Leases, session
from clinic_shared.replay import FIRST_ID, ReplayPurpose, job_table
from clinic_shared.replay_worker import ReplayWorker
from clinic_shared.sealing import MARKED
from clinic_shared.service import Runtime, Service
from sqlalchemy import text

from .conftest import QUEUE, REGISTERED, Journal, Made, Queues

pytestmark = pytest.mark.servers

CANARY = "Тестова"
NEVER = asyncio.Event()


async def execute(runtime: Runtime, statement: str, **values: Any) -> None:
    async with runtime.database.transaction() as tx:
        await tx.execute(text(statement), values)


async def rows(runtime: Runtime, statement: str) -> list[Any]:
    async with runtime.database.transaction() as tx:
        return list(await tx.fetch_all(text(statement)))


async def stored(runtime: Runtime) -> str:
    return str([tuple(row) for row in await rows(runtime, "SELECT event::text FROM event")])


async def families(runtime: Runtime) -> list[str]:
    """Return what the log says to whoever has the keys."""
    async with runtime.database.transaction() as tx:
        parts = [event_sealing.private_of(tx, row) for row in await event_sealing.read_log(tx)]
    return [part["name"]["family"] for part in parts if part]


@asynccontextmanager
async def relaying(runtime: Runtime) -> AsyncIterator[tuple[Relay, Leases]]:
    url = runtime.settings.database_url.get_secret_value()
    async with aclosing(Relay(runtime)) as relay, Leases.on(url, "test", seconds=60) as leases:
        await leases.balance()
        yield relay, leases


def new_key(name: bytes) -> KeyEncryptionKey:
    return KeyEncryptionKey(KeyId(name), os.urandom(KEY_BYTES))


async def test_the_log_shows_nothing_and_the_message_says_it(
    producer: Runtime, journal: Journal, queues: Queues
) -> None:
    await journal.emit(producer)
    assert CANARY not in await stored(producer)
    async with relaying(producer) as (relay, leases):
        assert await relay.relay_once(leases)
    [message] = await queues.take(QUEUE, 1)
    assert orjson.loads(message.body)["private"]["name"]["family"] == CANARY
    assert message.headers[PREFIX + "seal"] == MARKED


@pytest.mark.parametrize("encrypting", [True, False])
async def test_one_process_opens_what_another_sealed(
    made: Made, journal: Journal, queues: Queues, tmp_path: Path, encrypting: bool
) -> None:
    service = Service(
        name="patients", package_dir=tmp_path / "package", routers=(), handlers=Handlers("patients")
    )
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    url = made.database_of(service)
    async with (
        made.start(service, url, secrets_dir=tmp_path) as serving,
        made.start(service, url, secrets_dir=tmp_path, encrypt_at_rest=encrypting) as working,
    ):
        await journal.emit(serving)
        assert CANARY not in await stored(serving)
        async with relaying(working) as (relay, leases):
            assert await relay.relay_once(leases)
    [message] = await queues.take(QUEUE, 1)
    assert orjson.loads(message.body)["private"]["name"]["family"] == CANARY


async def test_without_keys_nothing_is_stored_in_clear_and_nothing_lost(
    producer: Runtime, journal: Journal, queues: Queues
) -> None:
    keyring, key = producer.database.keyring, new_key(b"key-0001")
    keyring.take([key])
    event_id = await journal.emit(producer)
    keyring.take([])
    with pytest.raises(KeysUnavailableError):
        await journal.emit(producer)
    async with relaying(producer) as (relay, leases):
        with pytest.raises(KeysUnavailableError):
            await relay.relay_once(leases)
        keyring.take([key])
        assert await relay.relay_once(leases)
    [message] = await queues.take(QUEUE, 1)
    assert message.message_id == str(event_id)


async def test_many_events_share_a_key_and_every_connection_makes_sure_of_it(
    producer: Runtime, journal: Journal
) -> None:
    for _ in range(3):
        await journal.emit(producer)
    assert len(await rows(producer, "SELECT 1 FROM event_key")) == 1
    # As in a database that was restored from a backup.
    await producer.database.dispose()
    await execute(producer, "DELETE FROM event; DELETE FROM event_key")
    await journal.emit(producer)
    assert await families(producer) == [CANARY]


async def test_a_key_of_a_transaction_that_failed_is_kept_by_the_next(
    producer: Runtime, journal: Journal
) -> None:
    async def fails() -> None:
        async with producer.database.transaction() as tx:
            tx.emit(journal.event(uuid7(), 1))
            await tx.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert await rows(producer, "SELECT 1 FROM event_key") == []
    await journal.emit(producer)
    assert await families(producer) == [CANARY]


async def test_no_transaction_waits_for_anothers_key(producer: Runtime, journal: Journal) -> None:
    async with producer.database.transaction() as late:
        late.emit(journal.event(uuid7(), 1))
        await late.flush()
        late._events.clear()  # they are written
        await journal.emit(producer)
    assert await families(producer) == [CANARY, CANARY]
    assert len(await rows(producer, "SELECT 1 FROM event_key")) == 2


async def test_an_event_with_anothers_part_waits_with_its_key_and_the_others_go(
    producer: Runtime, journal: Journal, queues: Queues
) -> None:
    victim, source = uuid7(), uuid7()
    ids = [await journal.emit(producer, key=key) for key in (victim, source)]
    await journal.emit(producer, key=victim, version=2)
    await execute(
        producer,
        "UPDATE event SET private = other.private FROM event other "
        "WHERE event.event_id = :victim AND other.event_id = :source",
        victim=ids[0],
        source=ids[1],
    )
    async with relaying(producer) as (relay, leases):
        assert await relay.relay_once(leases)
        assert not await relay.relay_once(leases)
    [message] = await queues.take(QUEUE, 1)
    assert message.message_id == str(ids[1])
    first, second = await rows(producer, "SELECT event_id, last_error FROM outbox ORDER BY id")
    assert (first.event_id, first.last_error, second.last_error) == (ids[0], SEAL_BROKEN, None)


@pytest.mark.parametrize(
    "private", ['{"key": "0", "sealed": "AA=="}', '{"key": 1}', "[]", '{"sealed": "AA=="}']
)
async def test_what_is_no_sealed_part_does_not_open(
    producer: Runtime, journal: Journal, private: str
) -> None:
    await journal.emit(producer)
    await execute(producer, "UPDATE event SET private = CAST(:private AS jsonb)", private=private)
    with pytest.raises(SealBrokenError):
        await families(producer)


async def resend(runtime: Runtime) -> None:
    """Answer a request for all events of a type."""
    async with runtime.database.transaction() as tx:
        asked = {"replay_id": uuid7(), "consumer": "reporting", "purpose": ReplayPurpose.RESEND.value}
        place = {"first_id": FIRST_ID, "keep_origin": True, "event_count": 0, "checksum": 0}
        more = {"state": "running", "requested_at": tx.now, "correlation_id": uuid7()}
        types = {"event_types": [REGISTERED]}
        await tx.execute(job_table.insert().values(**asked, **place, **more, **types))
    worker = ReplayWorker(runtime)
    async with session(runtime.settings.database_url.get_secret_value(), "test") as db:
        while await worker.step(db, NEVER):
            pass


async def carry_on(runtime: Runtime, event_id: UUID) -> None:
    """Put a state event in the place of an event whose month is dropped."""
    columns = ", ".join(c.name for c in event_log.columns if c.name not in {"event_id", "carries"})
    copy = f"INSERT INTO event (event_id, carries, {columns}) SELECT :new, event_id, {columns} FROM event "  # noqa: S608
    await execute(runtime, copy + "WHERE event_id = :old", new=uuid7(), old=event_id)
    await execute(runtime, "DELETE FROM event WHERE event_id = :id", id=event_id)


async def test_what_is_sent_again_says_it_and_so_does_what_was_carried_on(
    producer: Runtime, journal: Journal, queues: Queues
) -> None:
    event_id = await journal.emit(producer)
    await resend(producer)
    [again] = await queues.take(QUEUE, 1)
    assert orjson.loads(again.body)["private"]["name"]["family"] == CANARY
    assert (again.message_id, again.headers[PREFIX + "seal"]) == (str(event_id), MARKED)
    await carry_on(producer, event_id)
    assert await families(producer) == [CANARY]


async def test_what_the_release_before_stored_goes_out_and_is_then_sealed(
    producer: Runtime, journal: Journal, queues: Queues
) -> None:
    producer.database.keyring.encrypting = False
    first = await journal.emit(producer)
    assert CANARY in await stored(producer)
    producer.database.keyring.encrypting = True
    async with relaying(producer) as (relay, leases):
        assert await relay.relay_once(leases)
    [message] = await queues.take(QUEUE, 1)
    assert orjson.loads(message.body)["private"]["name"]["family"] == CANARY
    await carry_on(producer, first)
    assert (await count_by_key(producer.database))["event"] == {None: 1}
    assert await encrypt_backlog(producer.database, NEVER) == 1
    assert await encrypt_backlog(producer.database, NEVER) == 0
    assert CANARY not in await stored(producer)
    assert (await count_by_key(producer.database))["event"] == {None: 0}
    assert await families(producer) == [CANARY]


async def test_a_stretch_of_the_log_is_gone_through_once_it_is_old(
    producer: Runtime, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_events, "STRETCH", 2)
    producer.database.keyring.encrypting = False
    ids = [await journal.emit(producer) for _ in range(5)]
    # The clock of these tests stands still, long before the ids were made.
    monkeypatch.setattr(old_events, "uuid7_floor", lambda _: ids[2])
    producer.database.keyring.encrypting = True
    assert await old_events.seal_events(producer.database, NEVER) == 5
    [mark] = await rows(producer, "SELECT sealed_up_to FROM event_sealing")
    assert mark.sealed_up_to == ids[2]
    producer.database.keyring.encrypting = False
    await journal.emit(producer)
    assert await old_events.seal_events(producer.database, NEVER) == 1


async def test_while_the_release_before_runs_everything_is_stored_as_it_reads_it(
    producer: Runtime, journal: Journal
) -> None:
    producer.database.keyring.encrypting = False
    await journal.emit(producer)
    [row] = await rows(producer, "SELECT seal, private FROM event")
    assert (row.seal, row.private["name"]["family"]) == (MARKED, CANARY)
    assert await rows(producer, "SELECT 1 FROM event_key") == []


async def test_a_rotation_touches_the_keys_and_not_the_log(producer: Runtime, journal: Journal) -> None:
    keyring = producer.database.keyring
    old, new = new_key(b"key-0001"), new_key(b"key-0002")
    keyring.take([old])
    await journal.emit(producer)
    before = await stored(producer)
    keyring.take([old, new])
    assert await rewrap_all(producer.database, NEVER) == 1
    assert (await count_by_key(producer.database))["event_key"] == {b"key-0002".hex(): 1}
    assert await stored(producer) == before
    keyring.take([new])
    await journal.emit(producer)
    assert await families(producer) == [CANARY, CANARY]
    assert (await count_by_key(producer.database))["event_key"] == {b"key-0002".hex(): 2}


@pytest.mark.parametrize("sealed", [True, False])
async def test_fields_are_taken_out_and_the_others_stay(
    producer: Runtime, journal: Journal, sealed: bool
) -> None:
    producer.database.keyring.encrypting = sealed
    patient, other = uuid7(), uuid7()
    for key in (patient, other):
        await journal.emit(producer, key=key)
    producer.database.keyring.encrypting = True
    async with producer.database.transaction() as tx:
        await event_sealing.take_out(tx, patient, ("name",))
    async with producer.database.transaction() as tx:
        found = {
            row.subject: event_sealing.private_of(tx, row) or {} for row in await event_sealing.read_log(tx)
        }
    assert "name" not in found[patient]
    assert found[patient].keys() | {"name"} == found[other].keys()
