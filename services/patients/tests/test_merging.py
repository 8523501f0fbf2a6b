"""Two records of one person: merged by two people, read as one chart, and two again where it was a mistake."""

import asyncio
from typing import Any

import pytest
from clinic_patients import tables
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from . import test_exports
from .conftest import Clinic

REASON = {"reason": "Fictitious double registration"}


@pytest.fixture
async def anna(clinic: Clinic) -> dict[str, Any]:
    return await clinic.register()


@pytest.fixture
async def double(clinic: Clinic) -> dict[str, Any]:
    own = {"authority": "TEST-INSURANCE", "type": "NI", "value": "T-000002"}
    return await clinic.register(identifiers=[own], treated=False)


async def ask(clinic: Clinic, target: dict[str, Any], source: dict[str, Any], by: Principal) -> Any:
    body = {"source_patient_id": source["patient_id"], **REASON}
    return await clinic.call("POST", f"/v1/patients/{target['patient_id']}/$merge", by, body)


async def decide(clinic: Clinic, merge: dict[str, Any], what: str, by: Principal) -> Any:
    path = f"/v1/patients/{merge['target_patient_id']}/merges/{merge['merge_id']}/{what}"
    return await clinic.call("POST", path, by, None if what == "approve" else REASON)


async def merged(clinic: Clinic, target: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    asked = await ask(clinic, target, source, clinic.caller("registrar"))
    assert asked.status_code == 202, asked.text
    approved = await decide(clinic, asked.json(), "approve", clinic.caller("registrar"))
    assert approved.status_code == 200, approved.text
    return dict(approved.json())


async def person(clinic: Clinic, patient: dict[str, Any]) -> dict[str, Any]:
    return dict(await clinic.read(f"/v1/patients/{patient['patient_id']}", "registrar"))


def values(patient: dict[str, Any]) -> set[str]:
    return {identifier["value"] for identifier in patient["identifiers"]}


async def test_nothing_changes_until_a_second_person_agrees(
    clinic: Clinic, anna: dict[str, Any], double: dict[str, Any]
) -> None:
    first = clinic.caller("registrar")
    asked = (await ask(clinic, anna, double, first)).json()
    assert asked["state"] == "pending"
    assert (await person(clinic, double))["status"] == "active"
    refused = await decide(clinic, asked, "approve", first)
    assert refused.json()["type"].endswith("self-approval")
    assert (await person(clinic, double))["status"] == "active"
    assert await clinic.patients.events("patients.patients-merged.v1") == []


async def test_the_replaced_record_stays_readable_and_says_by_whom(
    clinic: Clinic, anna: dict[str, Any], double: dict[str, Any]
) -> None:
    await merged(clinic, anna, double)
    replaced, kept = await person(clinic, double), await person(clinic, anna)
    assert (replaced["status"], replaced["replaced_by"]) == ("merged", anna["patient_id"])
    assert kept["replaces"] == [double["patient_id"]]
    assert values(kept) == values(anna) | values(double)
    fhir = await clinic.read(f"/fhir/R4/Patient/{double['patient_id']}", "registrar")
    assert fhir["active"] is False
    [link] = fhir["link"]
    assert link == {"other": {"reference": f"Patient/{anna['patient_id']}"}, "type": "replaced-by"}
    found = await clinic.find(identifier={"authority": "TEST-INSURANCE", "value": "T-000002"})
    assert found == [anna["patient_id"]]
    [event] = await clinic.patients.events("patients.patients-merged.v1")
    assert event.data["source_patient_id"] == double["patient_id"]
    assert event.data["target_patient_id"] == anna["patient_id"]


async def test_the_chart_is_one_under_either_id_and_follows_what_comes_later(
    clinic: Clinic, anna: dict[str, Any], double: dict[str, Any]
) -> None:
    before, after = str(uuid7()), str(uuid7())
    await clinic.lab_result("received", patient_id=double["patient_id"], result_id=before)
    await merged(clinic, anna, double)
    await clinic.lab_result("received", patient_id=double["patient_id"], result_id=after)
    for patient in (anna, double):
        shown = await clinic.read(f"/v1/patients/{patient['patient_id']}/observations", "doctor")
        assert {item["result_id"] for item in shown["items"]} == {before, after}
        timeline = await clinic.read(f"/v1/patients/{patient['patient_id']}/timeline", "doctor")
        assert {item["id"] for item in timeline["items"]} >= {before, after}


async def test_undone_each_has_what_was_its_own(
    clinic: Clinic, anna: dict[str, Any], double: dict[str, Any]
) -> None:
    of_double, of_anna = str(uuid7()), str(uuid7())
    await clinic.lab_result("received", patient_id=double["patient_id"], result_id=of_double)
    merge = await merged(clinic, anna, double)
    await clinic.lab_result("received", patient_id=anna["patient_id"], result_id=of_anna)
    undone = await decide(clinic, merge, "undo", clinic.caller("registrar"))
    assert undone.json()["state"] == "undone"
    for before in (anna, double):
        now = await person(clinic, before)
        assert {**now, "version": 0, "updated_at": ""} == {**before, "version": 0, "updated_at": ""}
    shown = await clinic.read(f"/v1/patients/{anna['patient_id']}/observations", "doctor")
    assert [item["result_id"] for item in shown["items"]] == [of_anna]
    refused = await clinic.call("GET", f"/v1/patients/{double['patient_id']}/observations", "doctor")
    assert refused.status_code == 404
    [event] = await clinic.patients.events("patients.patients-unmerged.v1")
    assert (event.data["status"], event.data["version"]) == ("undone", merge["version"] + 1)
    again = await merged(clinic, anna, double)
    assert again["merge_id"] != merge["merge_id"]


async def test_what_was_gathered_of_both_ends_with_the_merge(
    clinic: Clinic, anna: dict[str, Any], double: dict[str, Any]
) -> None:
    merge = await merged(clinic, anna, double)
    me = clinic.patient(anna["patient_id"])
    asked = await test_exports.ask(clinic, anna["patient_id"], me)
    await test_exports.gather(clinic)
    assert (await test_exports.state(clinic, asked, me))["state"] == "ready"
    await decide(clinic, merge, "undo", clinic.caller("registrar"))
    assert (await test_exports.state(clinic, asked, me))["state"] == "expired"


async def test_a_chain_of_merges_is_one_person(
    clinic: Clinic, anna: dict[str, Any], double: dict[str, Any]
) -> None:
    third = await clinic.register(identifiers=[], treated=False)
    inner = await merged(clinic, double, third)
    await clinic.lab_result("received", patient_id=third["patient_id"])
    await merged(clinic, anna, double)
    shown = await clinic.read(f"/v1/patients/{anna['patient_id']}/observations", "doctor")
    assert len(shown["items"]) == 1
    refused = await decide(clinic, inner, "undo", clinic.caller("registrar"))
    assert refused.json()["type"].endswith("merge-not-in-force")


async def test_what_is_new_is_refused_by_a_replaced_record(
    clinic: Clinic, anna: dict[str, Any], double: dict[str, Any]
) -> None:
    await merged(clinic, anna, double)
    consent = {"kind": "messaging", "status": "withdrawn", "text_version": "1"}
    path = f"/v1/patients/{double['patient_id']}/consents"
    refused = await clinic.call("POST", path, "registrar", consent)
    assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (409, "patient-replaced")


async def test_two_who_approve_at_once_merge_once(
    clinic: Clinic, anna: dict[str, Any], double: dict[str, Any]
) -> None:
    asked = (await ask(clinic, anna, double, clinic.caller("registrar"))).json()
    answers = await asyncio.gather(
        *(decide(clinic, asked, "approve", clinic.caller("registrar")) for _ in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert len(await clinic.patients.events("patients.patients-merged.v1")) == 1
    rows = await clinic.rows(tables.patient_merge)
    assert [row["state"] for row in rows] == ["approved"]


async def test_both_ways_at_once_leave_one_record_in_use(
    clinic: Clinic, anna: dict[str, Any], double: dict[str, Any]
) -> None:
    asked = [
        (await ask(clinic, target, source, clinic.caller("registrar"))).json()
        for target, source in ((anna, double), (double, anna))
    ]
    answers = await asyncio.gather(
        *(decide(clinic, one, "approve", clinic.caller("registrar")) for one in asked)
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    statuses = [(await person(clinic, patient))["status"] for patient in (anna, double)]
    assert sorted(statuses) == ["active", "merged"]


@pytest.mark.parametrize("role", ["doctor", "biller"])
async def test_only_the_registry_merges(
    clinic: Clinic, anna: dict[str, Any], double: dict[str, Any], role: str
) -> None:
    answer = await ask(clinic, anna, double, clinic.caller(role))
    assert answer.status_code in {403, 404}
    assert await clinic.rows(tables.patient_merge) == []


async def test_a_record_isn_t_merged_with_itself_nor_with_one_that_isn_t_in_use(
    clinic: Clinic, anna: dict[str, Any], double: dict[str, Any]
) -> None:
    assert (await ask(clinic, anna, anna, clinic.caller("registrar"))).status_code == 409
    await merged(clinic, anna, double)
    assert (await ask(clinic, anna, double, clinic.caller("registrar"))).status_code == 409


async def test_a_request_can_be_refused_and_is_then_over(
    clinic: Clinic, anna: dict[str, Any], double: dict[str, Any]
) -> None:
    asked = (await ask(clinic, anna, double, clinic.caller("registrar"))).json()
    assert (await decide(clinic, asked, "reject", clinic.caller("registrar"))).json()["state"] == "rejected"
    over = await decide(clinic, asked, "approve", clinic.caller("registrar"))
    assert over.status_code == 409
    listed = await clinic.read(f"/v1/patients/{anna['patient_id']}/merges", "registrar")
    assert [one["state"] for one in listed] == ["rejected"]
