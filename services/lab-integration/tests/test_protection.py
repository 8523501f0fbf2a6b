"""Who patients are and their numbers lie sealed; results find them, and candidates are found, all the same."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from clinic_lab_integration import order_store, protection, tables
from clinic_lab_integration.app import service
from clinic_lab_integration.candidates import Person
from clinic_lab_integration.domain import Identifier
from clinic_shared.encryption.backlog import KINDS, count_by_key, encrypt_backlog, rewrap_all
from clinic_shared.encryption.ciphers import KeyEncryptionKey, KeyId, SealBrokenError
from clinic_shared.testing_dumps import tables_that_show
from sqlalchemy import text

from .conftest import Laboratory
from .test_worklist import unmatched

NAME = {"family": "Kanareykina", "given": "Kanarella", "patronymic": "Kanarevna"}
BORN, NUMBER = "1987-06-05", "CANARY-4711"
CANARIES = (*NAME.values(), "kanareykina", "kanarella", BORN, NUMBER)
RESULT = ("OBR|1||F-1|GLU", "OBX|1|NM|GLU||5")
EVERYTHING = (*KINDS, *service.encrypted)
NEVER = asyncio.Event()


async def shown(lab: Laboratory) -> dict[str, set[str]]:
    return await tables_that_show(lab.lab.runtime.database, *CANARIES)


async def add_canary(lab: Laboratory) -> UUID:
    return await lab.add_patient(NUMBER, name=NAME, birth_on=BORN)


async def wait_for_canary(lab: Laboratory, compose: Any) -> str:
    """Leave a group that waits for the canary's number; its laboratory knows no more."""
    return await unmatched(lab, compose(f"PID|1||{NUMBER}^^^POLYCLINIC^MR", *RESULT))


async def who(lab: Laboratory, patient_id: UUID) -> tuple[Person, tuple[Identifier, ...]]:
    async with lab.lab.runtime.database.transaction() as tx:
        return await order_store.who(tx, patient_id)


async def test_a_dump_shows_no_name_birth_date_or_number(lab: Laboratory, compose) -> None:
    await wait_for_canary(lab, compose)
    patient_id = await add_canary(lab)
    assert await shown(lab) == {}
    assert [e.data["patient_id"] for e in await lab.lab.events("lab-integration.lab-result-received.v1")] == [
        str(patient_id)
    ]
    person, identifiers = await who(lab, patient_id)
    assert (person.family, person.patronymic) == ("Kanareykina", "Kanarevna")
    assert str(person.birth_on) == BORN
    assert identifiers == (Identifier("POLYCLINIC", NUMBER),)


@pytest.mark.parametrize(
    ("pid", "reasons"),
    [
        ("PID|1||X^^^OTHER^MR||KANAREYKINA^KANARELLA", ["same-name"]),
        ("PID|1||X^^^OTHER^MR||KANAREJKINA^KANARELLA||19870605", ["same-birth-date"]),
        (f"PID|1||{NUMBER}^^^OTHER^MR||OTHER^NAME", ["same-number-of-another-authority"]),
    ],
)
@pytest.mark.parametrize("by_the_release_before", [False, True])
async def test_candidates_are_found_whichever_release_stored_them(
    lab: Laboratory, compose, pid: str, reasons: list[str], by_the_release_before: bool
) -> None:
    lab.lab.runtime.database.keyring.encrypting = not by_the_release_before
    patient_id = await add_canary(lab)
    lab.lab.runtime.database.keyring.encrypting = True
    unit_id = await unmatched(lab, compose(pid, *RESULT))
    [found] = await lab.get(f"/v1/lab/unmatched/{unit_id}/candidates", "registrar")
    assert found["patient_id"] == str(patient_id)
    assert [reason for reason in found["reasons"] if reason in reasons] == reasons


async def test_what_the_release_before_stored_is_matched_and_then_sealed(lab: Laboratory, compose) -> None:
    database = lab.lab.runtime.database
    database.keyring.encrypting = False
    await wait_for_canary(lab, compose)
    patient_id = await lab.add_patient("OTHER", name=NAME, birth_on=BORN)
    told = await who(lab, patient_id)
    assert {"patient", "wanted_key"} <= (await shown(lab)).keys()
    database.keyring.encrypting = True
    assert await encrypt_backlog(database, NEVER, EVERYTHING) > 0
    assert await encrypt_backlog(database, NEVER, EVERYTHING) == 0
    assert await shown(lab) == {}
    assert await who(lab, patient_id) == told
    known = [{"authority": "POLYCLINIC", "type": "MR", "value": NUMBER}]
    await lab.lab.deliver_example(
        "patients.patient-updated.v1", version=2, patient_id=str(patient_id), identifiers=known
    )
    assert len(await lab.result_events()) == 1


async def test_a_person_of_another_row_does_not_open(lab: Laboratory) -> None:
    first, _ = await add_canary(lab), await lab.add_patient("OTHER")
    async with lab.lab.runtime.database.transaction() as tx:
        swapped = "sealed = other.sealed, data_key = other.data_key FROM patient other"
        await tx.execute(
            text(f"UPDATE patient SET {swapped} WHERE other.patient_id <> patient.patient_id")  # noqa: S608
        )
    with pytest.raises(SealBrokenError):
        await who(lab, first)


async def test_a_rotation_reaches_every_row(lab: Laboratory, compose) -> None:
    database = lab.lab.runtime.database
    old, new = [KeyEncryptionKey(KeyId(name), bytes(32)) for name in (b"key-0001", b"key-0002")]
    database.keyring.take([old])
    await unmatched(lab, compose("PID|1||ANOTHER^^^POLYCLINIC^MR", *RESULT))
    patient_id = await add_canary(lab)
    database.keyring.take([old, new])
    assert await rewrap_all(database, NEVER, service.encrypted) > 0
    assert await count_by_key(database, service.encrypted) == {
        table.name: {b"key-0002".hex(): 1}
        for table in (tables.patient, tables.patient_identifier, tables.wanted_key)
    }
    database.keyring.take([new])
    assert (await who(lab, patient_id))[1] == (Identifier("POLYCLINIC", NUMBER),)


def test_everything_sealed_is_followed_by_rotations() -> None:
    assert set(service.encrypted) == set(protection.ENCRYPTED)
