"""What was received and what could not take effect lies encrypted in the database, and everything goes on with it."""

import asyncio
import os
from typing import Any

import pytest
from clinic_shared.encryption.backlog import NAME, count_by_key, encrypt_backlog, encrypt_stored, rewrap_all
from clinic_shared.encryption.ciphers import KEY_BYTES, KeyEncryptionKey, KeyId, SealBrokenError
from clinic_shared.health import Health
from clinic_shared.intake_store import body_of, item_of
from clinic_shared.testing import eventually
from sqlalchemy import text

from .conftest import CANARY, Office, Person
from .test_inbound import BAD, Lab, get, lab, post

__all__ = ["lab"]
pytestmark = pytest.mark.servers

NEVER = asyncio.Event()


async def stored(office: Office) -> list[Any]:
    return await office.query("SELECT * FROM intake ORDER BY id")


async def execute(office: Office, statement: str) -> None:
    async with office.runtime.database.transaction() as tx:
        await tx.execute(text(statement))


def new_key(name: bytes) -> KeyEncryptionKey:
    return KeyEncryptionKey(KeyId(name), os.urandom(KEY_BYTES))


async def test_a_dump_of_the_database_shows_nothing_of_a_message(lab: Lab, office: Office) -> None:
    await lab.takes(BAD)
    await office.park()
    for [row] in (await stored(office), await office.rows()):
        cells = [bytes(v) for v in row._mapping.values() if isinstance(v, bytes)]
        assert not [cell for cell in cells if CANARY.encode() in cell or b"MSH" in cell]
    [row] = await stored(office)
    assert "before" not in row.attributes


async def test_what_is_opened_is_what_came(lab: Lab, office: Office) -> None:
    [item_id] = await lab.takes(BAD)
    [row] = await stored(office)
    async with office.runtime.database.transaction() as tx:
        opened = item_of(tx, row)
    assert (opened.id, opened.body, opened.answer) == (item_id, BAD, b"MSA|AA")
    assert opened.attributes == {"control_id": BAD.decode()[4:], "before": "Zg=="}


async def test_the_console_tells_the_size_of_what_came(lab: Lab, admin: Person) -> None:
    await lab.takes(BAD)
    [listed] = (await get(admin))["items"]
    assert listed["size_bytes"] == len(BAD)


async def test_a_message_with_another_ones_bytes_is_parked(lab: Lab, office: Office) -> None:
    await lab.takes(b"MSH|one", b"MSH|two")
    await execute(office, "UPDATE intake SET body = other.body FROM intake other WHERE other.id <> intake.id")
    await lab.works()
    assert await lab.states() == ["parked", "parked"]
    assert {row.last_error for row in await stored(office)} == {SealBrokenError.__name__}


async def test_what_the_release_before_stored_is_read_and_then_encrypted(lab: Lab, office: Office) -> None:
    keyring = office.runtime.database.keyring
    keyring.encrypting = False
    await lab.takes(BAD, b"MSH|good")
    await office.park()
    before = await stored(office)
    assert [bytes(row.body) for row in before] == [BAD, b"MSH|good"]
    keyring.encrypting = True
    assert await encrypt_backlog(office.runtime.database, NEVER) == 3
    assert await encrypt_backlog(office.runtime.database, NEVER) == 0
    after = await stored(office)
    async with office.runtime.database.transaction() as tx:
        assert [body_of(tx, row) for row in after] == [BAD, b"MSH|good"]
    assert all(row.data_key and CANARY.encode() not in bytes(row.body) for row in after)
    assert [row.digest for row in after] == [row.digest for row in before]
    await lab.works()
    assert await lab.states() == ["parked", "processed"]


async def test_a_copy_of_a_stored_message_is_still_a_duplicate(lab: Lab, office: Office) -> None:
    first = await lab.takes(BAD)
    office.runtime.database.keyring.encrypting = False
    assert await lab.takes(BAD) == first


async def test_a_rotation_changes_the_wrapping_and_not_what_is_wrapped(lab: Lab, office: Office) -> None:
    database = office.runtime.database
    old, new = new_key(b"key-0001"), new_key(b"key-0002")
    database.keyring.take([old])
    await lab.takes(BAD, b"MSH|good")
    await office.park()
    before = [bytes(row.body) for row in await stored(office)]
    database.keyring.take([old, new])
    assert await rewrap_all(database, NEVER) == 3
    assert await count_by_key(database) == {
        "intake": {b"key-0002".hex(): 2},
        "held": {b"key-0002".hex(): 1},
        "event_key": {},
        "event": {None: 0},
    }
    assert [bytes(row.body) for row in await stored(office)] == before
    database.keyring.take([new])
    await lab.works()
    assert await lab.states() == ["parked", "processed"]


async def test_a_corrected_copy_is_encrypted_under_its_own_name(
    lab: Lab, office: Office, steward: Person
) -> None:
    [original] = await lab.takes(BAD)
    await lab.works()
    lab.is_mended = True
    await post(steward, f"/{original}/correct", {"body": "TVNIfGdvb2Q=", "reason": "test"}, expected=201)
    rows = await stored(office)
    assert len({bytes(row.data_key) for row in rows}) == 2
    async with office.runtime.database.transaction() as tx:
        assert body_of(tx, rows[1]) == b"MSH|good"
    await lab.works()
    assert await lab.states() == ["superseded", "processed"]


async def test_a_failure_that_is_over_keeps_nobody_from_being_ready(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    async def fails_once(database: object, *_: object) -> int:
        calls.append(database)
        if len(calls) == 1:
            raise TimeoutError
        return 0

    monkeypatch.setattr("clinic_shared.encryption.backlog.encrypt_backlog", fails_once)
    health, stop = Health.of(office.runtime), asyncio.Event()
    working = asyncio.create_task(encrypt_stored(office.runtime, stop))
    await eventually(lambda: len(calls) == 2 and NAME not in health.reasons)
    stop.set()
    await working
