"""Registering and changing patients, through HTTP."""

import asyncio

from clinic_patients import tables
from clinic_shared import contracts
from clinic_shared.ids import uuid7

from .conftest import Clinic

INSURANCE = {"authority": "TEST-INSURANCE", "type": "NI", "value": "T-000001"}
PASSPORT = {"authority": "TEST-PASSPORT", "type": "PPN", "value": "0000 000001"}


async def test_a_registered_patient_is_stored_published_and_audited(clinic: Clinic) -> None:
    registered = await clinic.register(identifiers=[INSURANCE])
    assert registered["phones"] == ["+70000000001"]
    assert registered["identifiers"][1] == INSURANCE
    [event] = await clinic.patients.events("patients.patient-registered.v1")
    assert str(event.subject) == registered["patient_id"]
    assert event.private["identifiers"] == registered["identifiers"]
    assert "Тестова" not in str(event.data)
    [record] = await clinic.audited()
    assert (record["action"], record["patient"]) == ("C", registered["patient_id"])


async def test_everybody_gets_another_record_number(clinic: Clinic) -> None:
    numbers = {(await clinic.register())["identifiers"][0]["value"] for _ in range(3)}
    assert len(numbers) == 3
    own = (await clinic.register())["identifiers"][0]
    assert (own["authority"], own["type"]) == ("POLYCLINIC", "MR")


async def test_an_identifier_that_another_patient_has_is_told_without_its_value(clinic: Clinic) -> None:
    await clinic.register(identifiers=[INSURANCE])
    await clinic.register(identifiers=[PASSPORT])
    answer = await clinic.call("POST", "/v1/patients", body=clinic.person(identifiers=[PASSPORT, INSURANCE]))
    assert answer.status_code == 409
    problem = answer.json()
    assert problem["type"].endswith("/identifier-taken")
    assert problem["conflicts"] == [
        {"pointer": "/identifiers/0", "authority": "TEST-PASSPORT"},
        {"pointer": "/identifiers/1", "authority": "TEST-INSURANCE"},
    ]
    assert INSURANCE["value"] not in answer.text
    assert len(await clinic.rows(tables.patient)) == 2


async def test_of_two_concurrent_registrations_with_one_identifier_one_succeeds(clinic: Clinic) -> None:
    bodies = [
        clinic.person(identifiers=[INSURANCE, PASSPORT]),
        clinic.person(identifiers=[PASSPORT, INSURANCE]),
    ]
    answers = await asyncio.gather(*(clinic.call("POST", "/v1/patients", body=b) for b in bodies * 4))
    assert sorted(a.status_code for a in answers) == [201] + [409] * 7
    assert len(await clinic.rows(tables.patient_identifier)) == 3


async def test_a_repeated_registration_answers_the_same_and_registers_once(clinic: Clinic) -> None:
    headers = clinic.patients.headers(clinic.caller("registrar"), key="registration-1")
    body = clinic.person()
    first, second = [
        await clinic.patients.http.post("/v1/patients", json=body, headers=headers) for _ in range(2)
    ]
    assert first.json() == second.json()
    assert len(await clinic.rows(tables.patient)) == 1


async def test_a_registration_without_an_idempotency_key_is_refused(clinic: Clinic) -> None:
    headers = clinic.patients.headers(clinic.caller("registrar"))
    del headers["Idempotency-Key"]
    answer = await clinic.patients.http.post("/v1/patients", json=clinic.person(), headers=headers)
    assert answer.status_code == 400


async def test_a_record_number_of_the_network_cannot_be_chosen(clinic: Clinic) -> None:
    own = {"authority": "POLYCLINIC", "type": "MR", "value": "000000018"}
    answer = await clinic.call("POST", "/v1/patients", body=clinic.person(identifiers=[own]))
    assert answer.status_code == 422


async def test_a_centre_that_has_not_arrived_yet_asks_to_try_again(clinic: Clinic) -> None:
    answer = await clinic.call("POST", "/v1/patients", body=clinic.person(centre_id=str(uuid7())))
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/reference-not-yet-known")
    assert answer.headers["retry-after"]


async def test_a_registrar_registers_only_where_they_work(clinic: Clinic) -> None:
    here = clinic.caller("registrar", network=False, department_ids=frozenset({clinic.department_id}))
    elsewhere = clinic.caller("registrar", network=False, centre_ids=frozenset({uuid7()}))
    assert (await clinic.call("POST", "/v1/patients", here, clinic.person())).status_code == 201
    assert (await clinic.call("POST", "/v1/patients", elsewhere, clinic.person())).status_code == 403


NOT_VALID: list[dict[str, object]] = [
    {"name": {"given": "Анна"}},
    {"name": {"family": "   "}},
    {"birth_on": "2200-01-01"},
    {"birth_on": "01.01.1990"},
    {"sex": "f"},
    {"phones": ["not a phone"]},
    {"emails": ["anna@"]},
    {"emails": ["a..b@example.org"]},
    {"language": "Russian"},
    {"identifiers": [{"authority": "", "value": "1"}]},
    {"unknown": 1},
]


async def test_what_is_not_valid_is_refused_without_being_repeated(clinic: Clinic) -> None:
    for wrong in NOT_VALID:
        answer = await clinic.call("POST", "/v1/patients", body=clinic.person(**wrong))
        assert answer.status_code == 422, wrong
        assert "not a phone" not in answer.text
        assert "anna@" not in answer.text


async def test_a_change_needs_the_version_that_was_seen(clinic: Clinic) -> None:
    patient = await clinic.register()
    path = f"/v1/patients/{patient['patient_id']}"
    body = change_of(clinic.person(phones=["+70000000002"]))
    assert (await clinic.call("PUT", path, body=body)).status_code == 428
    assert (await clinic.call("PUT", path, body=body, If_Match='"7"')).status_code == 412
    answer = await clinic.call("PUT", path, body=body, If_Match='"1"')
    assert answer.status_code == 200
    assert answer.headers["etag"] == '"2"'
    assert answer.json()["phones"] == ["+70000000002"]
    [event] = await clinic.patients.events("patients.patient-updated.v1")
    assert event.aggregate_version == 2
    assert event.private["phones"] == ["+70000000002"]


async def test_saying_the_same_again_changes_nothing(clinic: Clinic) -> None:
    patient = await clinic.register(identifiers=[INSURANCE])
    body = change_of(clinic.person(identifiers=patient["identifiers"]))
    answer = await clinic.call("PUT", f"/v1/patients/{patient['patient_id']}", body=body, If_Match='"1"')
    assert answer.json()["version"] == 1
    assert await clinic.patients.events("patients.patient-updated.v1") == []


async def test_the_record_number_stays_whatever_identifiers_are_sent(clinic: Clinic) -> None:
    patient = await clinic.register(identifiers=[INSURANCE])
    path = f"/v1/patients/{patient['patient_id']}"
    answer = await clinic.call(
        "PUT", path, body=change_of(clinic.person(identifiers=[PASSPORT])), If_Match='"1"'
    )
    assert answer.json()["identifiers"] == [patient["identifiers"][0], PASSPORT]
    forged = [{**patient["identifiers"][0], "value": "1"}]
    refused = await clinic.call(
        "PUT", path, body=change_of(clinic.person(identifiers=forged)), If_Match='"2"'
    )
    assert refused.status_code == 422


async def test_two_changes_of_one_version_do_not_both_succeed(clinic: Clinic) -> None:
    patient = await clinic.register()
    answers = await asyncio.gather(
        *(
            clinic.call(
                "PUT",
                f"/v1/patients/{patient['patient_id']}",
                body=change_of(clinic.person(phones=[f"+7000000001{n}"])),
                If_Match='"1"',
            )
            for n in range(4)
        )
    )
    assert sorted(a.status_code for a in answers) == [200, 412, 412, 412]


async def test_a_record_set_aside_frees_its_identifier_for_the_right_one(clinic: Clinic) -> None:
    wrong = await clinic.register(identifiers=[INSURANCE])
    path = f"/v1/patients/{wrong['patient_id']}"
    inactive = change_of(clinic.person(identifiers=[INSURANCE]), status="inactive")
    assert (await clinic.call("PUT", path, body=inactive, If_Match='"1"')).status_code == 200
    await clinic.register(identifiers=[INSURANCE])
    active = change_of(clinic.person(identifiers=[INSURANCE]))
    answer = await clinic.call("PUT", path, body=active, If_Match='"2"')
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/identifier-taken")


async def test_patients_change_how_to_reach_them_and_nothing_else(clinic: Clinic) -> None:
    patient = await clinic.register()
    path, own = f"/v1/patients/{patient['patient_id']}", clinic.patient(patient["patient_id"])
    contact = change_of(clinic.person(phones=["+70000000002"]))
    assert (await clinic.call("PUT", path, own, contact, If_Match='"1"')).status_code == 200
    other_name = change_of(clinic.person(phones=["+70000000002"], name={"family": "Другова"}))
    assert (await clinic.call("PUT", path, own, other_name, If_Match='"2"')).status_code == 403
    stranger = clinic.patient(str(uuid7()))
    assert (await clinic.call("PUT", path, stranger, contact, If_Match='"2"')).status_code == 404


async def test_reading_a_patient_gives_the_version_and_is_audited(clinic: Clinic) -> None:
    patient = await clinic.register()
    answer = await clinic.call("GET", f"/v1/patients/{patient['patient_id']}")
    assert answer.headers["etag"] == '"1"'
    assert answer.json() == patient
    read = (await clinic.audited())[-1]
    assert (read["action"], read["patient"]) == ("R", patient["patient_id"])


async def test_a_patient_who_is_not_there_is_not_found(clinic: Clinic) -> None:
    path = f"/v1/patients/{uuid7()}"
    assert (await clinic.call("GET", path)).status_code == 404
    body = change_of(clinic.person())
    assert (await clinic.call("PUT", path, body=body, If_Match='"1"')).status_code == 404


def change_of(person: dict[str, object], **changes: object) -> dict[str, object]:
    return {name: value for name, value in person.items() if name != "centre_id"} | changes


async def test_whom_a_laboratory_names_is_registered_under_the_id_that_results_have(clinic: Clinic) -> None:
    patient_id = str(uuid7())
    await clinic.lab_result("received", patient_id=patient_id)
    example = contracts.examples("lab-integration.patient-requested.v1")[0]
    data = example["data"] | {"patient_id": patient_id, "centre_id": str(clinic.centre_id)}
    for _ in range(2):
        await clinic.patients.deliver("lab-integration.patient-requested.v1", data, example["private"])
    [registered] = await clinic.patients.events("patients.patient-registered.v1")
    assert str(registered.subject) == patient_id
    authorities = [i["authority"] for i in registered.private["identifiers"]]
    assert authorities == ["POLYCLINIC", "TESTLAB"]
    shown = await clinic.read(f"/v1/patients/{patient_id}", "registrar")
    assert (shown["name"]["family"], shown["birth_on"]) == ("Testova", "1990-01-02")
    await clinic.treat(patient_id)
    assert len((await clinic.read(f"/v1/patients/{patient_id}/observations"))["items"]) == 1


async def test_a_number_that_another_patient_has_stays_with_them(clinic: Clinic) -> None:
    taken = {"authority": "TESTLAB", "type": "PI", "value": "T-000009"}
    await clinic.register(identifiers=[taken])
    example = contracts.examples("lab-integration.patient-requested.v1")[0]
    private = example["private"] | {"birth_on": "1799-01-01"}
    await clinic.patients.deliver("lab-integration.patient-requested.v1", example["data"], private)
    registered = (await clinic.patients.events("patients.patient-registered.v1"))[-1]
    assert [i["authority"] for i in registered.private["identifiers"]] == ["POLYCLINIC"]
    assert registered.private["birth_on"] is None
