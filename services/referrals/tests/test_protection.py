"""What departments ask and answer about a patient lies sealed."""

import asyncio

from clinic_referrals.app import service
from clinic_shared.encryption.backlog import KINDS, count_by_key, encrypt_backlog, rewrap_all
from clinic_shared.encryption.ciphers import KeyEncryptionKey, KeyId
from clinic_shared.testing_dumps import tables_that_show
from clinic_shared.testing_exports import exported

from .conftest import Clinic

QUESTION, COMMENT = "Fictitious canary question", "Fictitious canary comment"
EVERYTHING = (*KINDS, *service.encrypted)
NEVER = asyncio.Event()


async def shown(clinic: Clinic) -> dict[str, set[str]]:
    return await tables_that_show(clinic.referrals.runtime.database, QUESTION, COMMENT)


async def decline(clinic: Clinic) -> None:
    referral_id = await clinic.create(question=QUESTION)
    body = {"reason_code": "no-capacity", "comment": COMMENT}
    answer = await clinic.post(f"/{referral_id}/decline", clinic.receiver, body)
    assert answer.status_code == 200, answer.text


async def assert_it_is_told(clinic: Clinic) -> None:
    [task] = (await exported(clinic.referrals, clinic.patient_id)).resources
    assert (task["description"], task["output"][0]["valueString"]) == (QUESTION, COMMENT)


async def test_a_dump_shows_no_question_and_no_answer(clinic: Clinic) -> None:
    await decline(clinic)
    assert await shown(clinic) == {}
    await assert_it_is_told(clinic)


async def test_what_the_release_before_stored_is_told_and_then_sealed(clinic: Clinic) -> None:
    database = clinic.referrals.runtime.database
    database.keyring.encrypting = False
    await decline(clinic)
    await assert_it_is_told(clinic)
    assert {"referral": {QUESTION, COMMENT}}.items() <= (await shown(clinic)).items()
    database.keyring.encrypting = True
    assert await encrypt_backlog(database, NEVER, EVERYTHING) > 0
    assert await encrypt_backlog(database, NEVER, EVERYTHING) == 0
    # Answers are kept for a day, and what the release before kept in clear goes with that.
    assert (await shown(clinic)).keys() == {"idempotency_key"}
    await assert_it_is_told(clinic)


async def test_a_rotation_reaches_every_row(clinic: Clinic) -> None:
    database = clinic.referrals.runtime.database
    old, new = [KeyEncryptionKey(KeyId(name), bytes(32)) for name in (b"key-0001", b"key-0002")]
    database.keyring.take([old])
    await decline(clinic)
    database.keyring.take([old, new])
    assert await rewrap_all(database, NEVER, service.encrypted) == 1
    assert await count_by_key(database, service.encrypted) == {"referral": {b"key-0002".hex(): 1}}
    database.keyring.take([new])
    await assert_it_is_told(clinic)
