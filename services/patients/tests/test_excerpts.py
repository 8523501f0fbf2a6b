"""What administrators and the cash desk see of a patient, and what they don't."""

import json
from typing import Any

import pytest
from clinic_patients.masking import masked_email, masked_name, masked_phone, masked_value
from clinic_shared.ids import uuid7

from .conftest import Clinic

CARD = {"authority": "TEST-INSURANCE", "type": "NI", "value": "T-KANAREIKA-77"}
PERSON: dict[str, Any] = {
    "name": {"family": "Канарейкина", "given": "Проба", "patronymic": "Образцовна"},
    "birth_on": "1991-11-09",
    "phones": ["+70000009911"],
    "emails": ["kanareika@clinic.example.org"],
    "identifiers": [CARD],
}


async def test_an_administrator_tells_records_apart_and_knows_nobody(clinic: Clinic) -> None:
    registered = await clinic.register(**PERSON)
    answer = await clinic.call(
        "GET", f"/v1/patients/{registered['patient_id']}/masked", "system-administrator"
    )
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["initials"], shown["birth_year"]) == ("К. П. О.", 1991)
    assert (shown["phones"], shown["emails"]) == (["…11"], ["k…@….org"])
    assert shown["identifiers"][1] == CARD | {"value": "…77"}
    text = json.dumps(shown, ensure_ascii=False).casefold()
    known = ["канар", "проба", "образц", "11-09", "000099", "anare", "clinic.example", "kanareika"]
    assert not [word for word in known if word in text]
    assert registered["identifiers"][0]["value"] not in text


async def test_the_cash_desk_sees_whom_an_invoice_is_made_out_to(clinic: Clinic) -> None:
    registered = await clinic.register(**PERSON)
    biller = clinic.caller("biller", network=False, centre_ids=frozenset({clinic.centre_id}))
    answer = await clinic.call("GET", f"/v1/patients/{registered['patient_id']}/payer", biller)
    assert answer.json() == {
        "patient_id": registered["patient_id"],
        "status": "active",
        "centre_id": str(clinic.centre_id),
        "name": PERSON["name"],
        "birth_on": PERSON["birth_on"],
        "record_number": registered["identifiers"][0]["value"],
    }


async def test_the_cash_desk_of_another_centre_finds_nobody(clinic: Clinic) -> None:
    registered = await clinic.register(**PERSON)
    biller = clinic.caller("biller", network=False, centre_ids=frozenset({uuid7()}))
    for patient_id in (registered["patient_id"], str(uuid7())):
        answer = await clinic.call("GET", f"/v1/patients/{patient_id}/payer", biller)
        assert answer.status_code == 404


@pytest.mark.parametrize("role", ["biller", "management", "registrar", "doctor", "privacy-officer"])
async def test_masked_records_are_for_administrators_alone(clinic: Clinic, role: str) -> None:
    registered = await clinic.register()
    answer = await clinic.call("GET", f"/v1/patients/{registered['patient_id']}/masked", role)
    assert answer.status_code == 403


@pytest.mark.parametrize("excerpt", ["masked", "payer"])
async def test_a_look_is_recorded(clinic: Clinic, excerpt: str) -> None:
    registered = await clinic.register()
    before = len(await clinic.audited())
    role = {"masked": "system-administrator", "payer": "biller"}[excerpt]
    await clinic.call("GET", f"/v1/patients/{registered['patient_id']}/{excerpt}", role)
    [record] = (await clinic.audited())[before:]
    assert (record["patient"], record["action"]) == (registered["patient_id"], "R")


def test_masks_hold_for_short_and_odd_values() -> None:
    assert masked_name("ёлкина", None, "x") == "Ё. X."
    assert masked_phone("+70000000001") == "…01"
    assert masked_email("a@b.example") == "a…@….example"
    assert (masked_value("12345"), masked_value("123456")) == ("…", "…56")
