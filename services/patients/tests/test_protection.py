"""Contacts and identifiers lie sealed in the database; who has only that finds nobody by them."""

import asyncio
from typing import Any

import pytest
from clinic_patients import tables
from clinic_patients.protection import PATIENT_KEYS, place_of_key
from clinic_patients.sealing_old import NAME, seal_all, seal_patients
from clinic_shared.encryption.backlog import count_by_key, rewrap_all
from clinic_shared.encryption.ciphers import KeyEncryptionKey, KeyId, SealBrokenError
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.health import Health
from clinic_shared.testing import eventually
from sqlalchemy import text

from .conftest import Clinic

CARD = {"authority": "TEST-INSURANCE", "type": "NI", "value": "T-КАНАРЕЙКА-1"}
PHONE, EMAIL = "+70000009911", "kanareika@example.org"
NEVER = asyncio.Event()


async def execute(clinic: Clinic, statement: str, **values: Any) -> None:
    async with clinic.patients.runtime.database.transaction() as tx:
        await tx.execute(text(statement), values)


def keyring(clinic: Clinic) -> Keyring:
    return clinic.patients.runtime.database.keyring


async def canary(clinic: Clinic) -> dict[str, Any]:
    return await clinic.register(phones=[PHONE], emails=[EMAIL], identifiers=[CARD])


async def dump(clinic: Clinic) -> str:
    """Everything that the registry's tables hold, as text."""
    found = [
        row
        for table in (tables.patient, tables.patient_identifier, tables.search_term, tables.patient_key)
        for row in await clinic.rows(table)
    ]
    cells = [value for row in found for value in row.values()]
    return "|".join(c.decode("utf-8", "replace") if isinstance(c, bytes) else str(c) for c in cells)


async def test_a_dump_shows_no_phone_mail_address_or_identifier(clinic: Clinic) -> None:
    registered = await canary(clinic)
    shown = await dump(clinic)
    own_number = registered["identifiers"][0]["value"]
    for value in (PHONE, PHONE[1:], EMAIL, CARD["value"], own_number):
        assert value not in shown


async def test_what_is_sealed_is_read_found_and_kept_apart(clinic: Clinic) -> None:
    registered = await canary(clinic)
    other = await clinic.register(phones=["+70000009912"])
    again = await clinic.read(f"/v1/patients/{registered['patient_id']}", "registrar")
    assert (again["phones"], again["emails"], again["identifiers"][1]) == ([PHONE], [EMAIL], CARD)
    assert await clinic.find(phone="8 (000) 000-99-11") == [registered["patient_id"]]
    by_card = {"authority": CARD["authority"], "value": CARD["value"]}
    assert await clinic.find(identifier=by_card) == [registered["patient_id"]]
    assert await clinic.find(phone="+70000009912") == [other["patient_id"]]


async def test_two_with_the_same_phone_are_both_found(clinic: Clinic) -> None:
    family = {(await clinic.register(phones=[PHONE]))["patient_id"] for _ in range(2)}
    assert set(await clinic.find(phone=PHONE)) == family


async def test_contacts_of_another_patient_do_not_open(clinic: Clinic) -> None:
    first, second = await canary(clinic), await clinic.register(phones=["+70000009912"])
    await execute(
        clinic,
        "UPDATE patient SET contacts = other.contacts FROM patient other "
        "WHERE patient.patient_id = :victim AND other.patient_id = :source",
        victim=first["patient_id"],
        source=second["patient_id"],
    )
    answer = await clinic.call("GET", f"/v1/patients/{first['patient_id']}")
    assert answer.status_code == 500
    assert "+70000009912" not in answer.text
    assert (await clinic.call("GET", f"/v1/patients/{second['patient_id']}")).status_code == 200


async def test_a_patients_key_of_another_row_does_not_open(clinic: Clinic) -> None:
    registered = await canary(clinic)
    await execute(
        clinic,
        "UPDATE patient_key SET data_key = other.data_key FROM patient_key other "
        "WHERE patient_key.retention_class = 'contact' AND other.retention_class = 'identity'",
    )
    assert (await clinic.call("GET", f"/v1/patients/{registered['patient_id']}")).status_code == 500
    [row] = [r for r in await clinic.rows(tables.patient_key) if r["retention_class"] == "contact"]
    with pytest.raises(SealBrokenError):
        keyring(clinic).data_key(row["data_key"], place_of_key(row["patient_id"], "contact"))


async def test_what_the_release_before_stored_is_read_found_and_then_sealed(clinic: Clinic) -> None:
    keyring(clinic).encrypting = False
    registered = await canary(clinic)
    assert PHONE in await dump(clinic)
    keyring(clinic).encrypting = True
    path = f"/v1/patients/{registered['patient_id']}"
    assert await clinic.read(path, "registrar") == registered
    assert await clinic.find(phone=PHONE) == [registered["patient_id"]]
    events = len(await clinic.patients.events())
    assert await seal_all(clinic.patients.runtime.database, NEVER) == 1
    assert await seal_all(clinic.patients.runtime.database, NEVER) == 0
    assert PHONE not in await dump(clinic)
    assert await clinic.read(path, "registrar") == registered
    assert await clinic.find(phone=PHONE) == [registered["patient_id"]]
    assert len(await clinic.patients.events()) == events


@pytest.mark.parametrize("first_in_clear", [True, False])
async def test_an_identifier_is_unique_whichever_release_stored_it(
    clinic: Clinic, first_in_clear: bool
) -> None:
    keyring(clinic).encrypting = not first_in_clear
    await canary(clinic)
    keyring(clinic).encrypting = first_in_clear
    answer = await clinic.call("POST", "/v1/patients", body=clinic.person(identifiers=[CARD]))
    assert answer.status_code == 409
    assert answer.json()["conflicts"] == [{"pointer": "/identifiers/0", "authority": CARD["authority"]}]


async def test_a_destroyed_key_leaves_the_rest_of_the_record(clinic: Clinic) -> None:
    registered = await canary(clinic)
    await execute(
        clinic,
        "UPDATE patient_key SET data_key = NULL, destroyed_at = now() WHERE retention_class = 'contact'",
    )
    left = await clinic.read(f"/v1/patients/{registered['patient_id']}", "registrar")
    assert (left["phones"], left["emails"]) == ([], [])
    assert (left["name"], left["identifiers"]) == (registered["name"], registered["identifiers"])


async def test_a_rotation_reaches_the_patients_keys(clinic: Clinic) -> None:
    ring, database = keyring(clinic), clinic.patients.runtime.database
    old, new = [KeyEncryptionKey(KeyId(name), bytes(32)) for name in (b"key-0001", b"key-0002")]
    ring.take([old])
    registered = await canary(clinic)
    ring.take([old, new])
    kinds = (PATIENT_KEYS,)
    assert await rewrap_all(database, NEVER, kinds) == 2
    assert await rewrap_all(database, NEVER, kinds) == 0
    assert await count_by_key(database, kinds) == {"patient_key": {b"key-0002".hex(): 2}}
    ring.take([new])
    again = await clinic.read(f"/v1/patients/{registered['patient_id']}", "registrar")
    assert again["phones"] == [PHONE]


async def test_a_failure_that_is_over_keeps_nobody_from_being_ready(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    async def fails_once(database: object, _: asyncio.Event) -> int:
        calls.append(database)
        if len(calls) == 1:
            raise TimeoutError
        return 0

    monkeypatch.setattr("clinic_patients.sealing_old.seal_all", fails_once)
    health, stop = Health.of(clinic.patients.runtime), asyncio.Event()
    working = asyncio.create_task(seal_patients(clinic.patients.runtime, stop))
    await eventually(lambda: len(calls) == 2 and NAME not in health.reasons)
    stop.set()
    await working
