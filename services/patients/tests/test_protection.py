"""Patients lie sealed in the database; who has only that finds nobody in it."""

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
CALLED = {"family": "Канарейкина", "given": "Проба", "patronymic": "Образцовна"}
BORN = "1991-11-09"
NEVER = asyncio.Event()


async def execute(clinic: Clinic, statement: str, **values: Any) -> None:
    async with clinic.patients.runtime.database.transaction() as tx:
        await tx.execute(text(statement), values)


def keyring(clinic: Clinic) -> Keyring:
    return clinic.patients.runtime.database.keyring


async def canary(clinic: Clinic) -> dict[str, Any]:
    return await clinic.register(
        name=CALLED, birth_on=BORN, phones=[PHONE], emails=[EMAIL], identifiers=[CARD]
    )


async def dump(clinic: Clinic) -> str:
    """Everything that the registry's tables hold, as text."""
    found = [
        row
        for table in (tables.patient, tables.patient_identifier, tables.search_term, tables.patient_key)
        for row in await clinic.rows(table)
    ]
    cells = [value for row in found for value in row.values()]
    return "|".join(c.decode("utf-8", "replace") if isinstance(c, bytes) else str(c) for c in cells)


async def test_a_dump_shows_nothing_of_who_somebody_is_or_how_to_reach_them(clinic: Clinic) -> None:
    registered = await canary(clinic)
    shown = (await dump(clinic)).casefold()
    own_number = registered["identifiers"][0]["value"]
    beginnings = [name.casefold()[:4] for name in CALLED.values()]
    for value in (PHONE, PHONE[1:], EMAIL, CARD["value"], own_number, BORN, *beginnings):
        assert value.casefold() not in shown


async def test_what_is_sealed_is_read_found_and_kept_apart(clinic: Clinic) -> None:
    registered = await canary(clinic)
    other = await clinic.register(phones=["+70000009912"])
    again = await clinic.read(f"/v1/patients/{registered['patient_id']}", "registrar")
    assert (again["phones"], again["emails"], again["identifiers"][1]) == ([PHONE], [EMAIL], CARD)
    assert await clinic.find(phone="8 (000) 000-99-11") == [registered["patient_id"]]
    by_card = {"authority": CARD["authority"], "value": CARD["value"]}
    assert await clinic.find(identifier=by_card) == [registered["patient_id"]]
    assert await clinic.find(phone="+70000009912") == [other["patient_id"]]


async def test_sealed_names_are_found_by_the_beginnings_of_their_words_and_by_birth_dates(
    clinic: Clinic,
) -> None:
    wanted = (await canary(clinic))["patient_id"]
    await clinic.register(name=CALLED | {"given": "Иная"}, birth_on="1991-11-08")
    assert await clinic.find(name="обр канар п") == [wanted]
    assert await clinic.find(name="канар", birth_on=BORN) == [wanted]
    assert await clinic.find(name="канарейкинаа") == []
    assert await clinic.find(name="анар") == []


@pytest.mark.parametrize("some_in_clear", [True, False])
async def test_who_is_stored_by_either_release_is_found_page_by_page(
    clinic: Clinic, some_in_clear: bool
) -> None:
    keyring(clinic).encrypting = not some_in_clear
    wanted = {await clinic.named("Иванов", "Иван", f"Тестович{n}") for n in range(2)}
    await clinic.named("Иванов", "Тест")
    keyring(clinic).encrypting = True
    wanted |= {await clinic.named("Иванов", "Иван", f"Образцович{n}") for n in range(2)}
    await clinic.named("Иванов", "Проба")
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        path = f"/v1/patients/search?limit=1{cursor and '&cursor='}{cursor}"
        page = (await clinic.call("POST", path, body={"name": "иван иванов"})).json()
        seen += [item["patient_id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert sorted(seen) == sorted(wanted)


async def test_two_with_the_same_phone_are_both_found(clinic: Clinic) -> None:
    family = {(await clinic.register(phones=[PHONE]))["patient_id"] for _ in range(2)}
    assert set(await clinic.find(phone=PHONE)) == family


@pytest.mark.parametrize("column", ["contacts", "person"])
async def test_cells_of_another_patient_do_not_open(clinic: Clinic, column: str) -> None:
    first, second = await canary(clinic), await clinic.register(phones=["+70000009912"])
    await execute(
        clinic,
        f"UPDATE patient SET {column} = other.{column} FROM patient other "  # noqa: S608  # two names of our own
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
    assert {PHONE, CALLED["family"], BORN} <= set((await dump(clinic)).split("|"))
    keyring(clinic).encrypting = True
    path = f"/v1/patients/{registered['patient_id']}"
    assert await clinic.read(path, "registrar") == registered
    assert await clinic.find(phone=PHONE) == [registered["patient_id"]]
    events = len(await clinic.patients.events())
    assert await seal_all(clinic.patients.runtime.database, NEVER) == 1
    assert await seal_all(clinic.patients.runtime.database, NEVER) == 0
    shown = await dump(clinic)
    assert not any(value in shown for value in (PHONE, CALLED["family"], CALLED["family"].casefold(), BORN))
    assert await clinic.read(path, "registrar") == registered
    assert await clinic.find(name="канар проба", birth_on=BORN) == [registered["patient_id"]]
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
    assert await rewrap_all(database, NEVER, kinds) == 3
    assert await rewrap_all(database, NEVER, kinds) == 0
    assert await count_by_key(database, kinds) == {"patient_key": {b"key-0002".hex(): 3}}
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
