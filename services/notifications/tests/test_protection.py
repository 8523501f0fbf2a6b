"""How people are reached and what they are told lies sealed; who has only the database finds nobody by it."""

import asyncio

import pytest
from clinic_notifications import tables
from clinic_notifications.app import service
from clinic_shared.encryption.backlog import KINDS, count_by_key, encrypt_backlog, rewrap_all
from clinic_shared.encryption.ciphers import KeyEncryptionKey, KeyId, SealBrokenError
from clinic_shared.ids import uuid7
from clinic_shared.testing_dumps import tables_that_show
from sqlalchemy import text

from .conftest import Clinic
from .test_staff import reach

PHONE, EMAIL = "+70000009911", "kanareika@example.org"
STAFF_PHONE, STAFF_EMAIL = "+70000009922", "vrach-kanareika@example.org"
SERVICE, REPLY = "Осмотр канарейки", "Канарейка просит перенести"
CANARIES = (PHONE, PHONE[1:], EMAIL, STAFF_PHONE, STAFF_EMAIL, SERVICE, REPLY)
EVERYTHING = (*KINDS, *service.encrypted)
NEVER = asyncio.Event()


async def say_everything(clinic: Clinic) -> None:
    """Write to a patient, hear from them, and know how a member of staff is reached."""
    patient_id = await clinic.register(phones=[PHONE], emails=[EMAIL])
    assert (await reach(clinic, uuid7(), phone=STAFF_PHONE, email=STAFF_EMAIL)).status_code == 200
    await clinic.book(patient_id=patient_id, service_name=SERVICE)
    await clinic.send_due()
    reply = {"sender": PHONE, "text": REPLY}
    assert (await clinic.fakes.post("/_control/whatsapp/replies", json=reply)).status_code == 202
    await clinic.callbacks_done()


async def shown(clinic: Clinic) -> set[str]:
    return set().union(*(await tables_that_show(clinic.notifications.runtime.database, *CANARIES)).values())


async def test_a_dump_shows_nobodys_address_and_nothing_they_were_told(clinic: Clinic) -> None:
    await say_everything(clinic)
    found = await tables_that_show(clinic.notifications.runtime.database, *CANARIES)
    # What is offered at what time stands with the appointment, under the patient's id alone.
    assert found == {"appointment": {SERVICE}}
    [letter] = await clinic.inbox(channel="whatsapp")
    assert (letter["to"], SERVICE in letter["text"]) == (PHONE, True)
    [message] = await clinic.rows(tables.message)
    assert (message["recipient"], SERVICE in message["text"]) == (PHONE, True)


async def test_what_the_release_before_stored_is_used_and_then_sealed(clinic: Clinic) -> None:
    database = clinic.notifications.runtime.database
    database.keyring.encrypting = False
    await say_everything(clinic)
    assert await shown(clinic) == set(CANARIES)
    database.keyring.encrypting = True
    assert await encrypt_backlog(database, NEVER, EVERYTHING) > 0
    assert await encrypt_backlog(database, NEVER, EVERYTHING) == 0
    assert await shown(clinic) == {SERVICE}
    [message] = await clinic.rows(tables.message)
    assert (message["recipient"], SERVICE in message["text"]) == (PHONE, True)
    [reply] = await clinic.rows(tables.reply)
    assert reply["content"]["text"] == {"body": REPLY}


async def test_an_address_of_another_patient_does_not_open(clinic: Clinic) -> None:
    await clinic.register(phones=[PHONE])
    async with clinic.notifications.runtime.database.transaction() as tx:
        swapped = "sealed = other.sealed, data_key = other.data_key FROM patient other"
        await tx.execute(
            text(f"UPDATE patient SET {swapped} WHERE other.patient_id <> patient.patient_id")  # noqa: S608
        )
    with pytest.raises(SealBrokenError):
        await clinic.rows(tables.patient)


async def test_a_rotation_reaches_every_row(clinic: Clinic) -> None:
    database = clinic.notifications.runtime.database
    old, new = [KeyEncryptionKey(KeyId(name), bytes(32)) for name in (b"key-0001", b"key-0002")]
    async with database.transaction() as tx:
        await tx.execute(text("DELETE FROM patient"))
    database.keyring.take([old])
    await say_everything(clinic)
    database.keyring.take([old, new])
    assert await rewrap_all(database, NEVER, service.encrypted) > 0
    counted = await count_by_key(database, service.encrypted)
    assert {key for by_key in counted.values() for key in by_key} == {b"key-0002".hex()}
    assert {row["recipient"] for row in await clinic.rows(tables.message)} == {PHONE}
