"""What a person decides about a group that nobody matches, and takes back."""

from typing import Any
from uuid import UUID

import pytest
from clinic_shared.ids import uuid7

from .conftest import MESSAGES, Laboratory
from .test_worklist import decide, unmatched

NAME = {"family": "Testova", "given": "Anna", "patronymic": "Testovna"}


async def candidates(lab: Laboratory, unit_id: str) -> list[Any]:
    return list(await lab.get(f"/v1/lab/unmatched/{unit_id}/candidates", "registrar"))


async def test_whom_a_group_may_be_about_is_listed_with_the_reasons(lab: Laboratory, sample) -> None:
    unit_id = await unmatched(lab, sample("panel"))
    assert await candidates(lab, unit_id) == []
    twin = await lab.add_patient("OTHER-1", name=NAME, birth_on="1990-01-02", sex="female")
    number = await lab.add_patient("MRN-1", "ANOTHER-CLINIC", name={"family": "Inaya"}, birth_on=None)
    await lab.add_patient("OTHER-2", name={"family": "Drugaya", "given": "Vera"}, birth_on="1999-09-09")
    found = await candidates(lab, unit_id)
    assert [(c["patient_id"], c["likely"]) for c in found] == [(str(twin), True), (str(number), True)]
    assert found[0]["reasons"] == ["same-name", "same-birth-date"]
    assert found[1]["reasons"] == ["same-number-of-another-authority"]
    assert found[0]["family"] == "Testova"
    assert (await lab.units(unit_id.removesuffix(".0"))) == [("parked", "unmatched")]


async def test_a_patient_is_created_from_what_the_laboratory_wrote(lab: Laboratory, compose) -> None:
    unit_id = await unmatched(
        lab,
        compose(
            "PID|1||L-77^^^TESTLAB^PI||Testova^Anna^Testovna||19900102|F",
            "OBR|1||F-1|718-7^Hb^LN||||||||||||||||||20260115|||F",
            "OBX|1|NM|718-7||112||||||F",
        ),
    )
    answer = await decide(lab, unit_id, "create-patient", {})
    assert (answer.status_code, answer.json()["disposition"]) == (200, "in-flight"), answer.text
    [requested] = await lab.lab.events("lab-integration.patient-requested.v1")
    assert requested.data["patient_id"] == answer.json()["patient_id"]
    assert requested.private["name"] == NAME
    assert (requested.private["birth_on"], requested.private["sex"]) == ("1990-01-02", "female")
    assert requested.private["identifiers"] == [{"authority": "TESTLAB", "value": "L-77"}]
    [result] = await lab.results(UUID(answer.json()["patient_id"]))
    assert result["status"] == "final"
    await lab.add_patient("L-77", "TESTLAB", patient_id=requested.data["patient_id"])
    assert len(await lab.result_events()) == 1


async def test_somebody_who_is_likely_registered_must_be_ruled_out_first(lab: Laboratory, sample) -> None:
    twin = await lab.add_patient("OTHER", name=NAME, birth_on="1990-01-02", sex="female")
    unit_id = await unmatched(lab, sample("panel"))
    refused = await decide(lab, unit_id, "create-patient", {})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/possible-duplicate")
    assert refused.json()["candidates"] == [str(twin)]
    assert await lab.lab.events("lab-integration.patient-requested.v1") == []
    created = await decide(lab, unit_id, "create-patient", {"not_the_same_as": [str(twin)]})
    assert created.status_code == 200, created.text
    assert created.json()["patient_id"] != str(twin)


async def test_only_those_who_register_patients_create_them(lab: Laboratory, sample) -> None:
    unit_id = await unmatched(lab, sample("panel"))
    assert (await decide(lab, unit_id, "create-patient", {}, "doctor")).status_code == 403


async def test_without_a_name_nobody_is_created(lab: Laboratory, compose) -> None:
    unit_id = await unmatched(lab, compose("PID|1||X-1^^^OURS", "OBR|1||F-1|GLU", "OBX|1|NM|GLU||5"))
    answer = await decide(lab, unit_id, "create-patient", {})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/name-missing")


async def test_the_laboratory_reads_why_its_results_were_refused(lab: Laboratory, sample) -> None:
    unit_id = await unmatched(lab, sample("panel"))
    reason = {"reason": "no such patient at our clinics"}
    answer = await decide(lab, unit_id, "reject", reason)
    assert (answer.json()["disposition"], answer.json()["reason"]) == ("rejected", "rejected-by-a-person")
    own = await lab.lab.http.get(f"{MESSAGES}/{unit_id.removesuffix('.0')}", auth=(lab.client_id, lab.secret))
    assert own.json()["units"][0]["decision_reason"] == reason["reason"]
    assert await lab.dispositions() == {"answered": 1, "rejected": 1}
    await lab.add_patient("MRN-1")
    assert await lab.result_events() == []
    assert (await decide(lab, unit_id, "undo", {"reason": "changed my mind"})).status_code == 409


async def test_a_note_says_what_it_waits_for(lab: Laboratory, sample) -> None:
    unit_id = await unmatched(lab, sample("panel"))
    noted = await decide(lab, unit_id, "note", {"note": "asked the laboratory by phone"})
    assert (noted.json()["disposition"], noted.json()["note"]) == ("parked", "asked the laboratory by phone")
    [waiting] = (await lab.get("/v1/lab/unmatched", "registrar"))["items"]
    assert waiting["note"] == "asked the laboratory by phone"
    await lab.add_patient("MRN-1")
    assert await lab.units(unit_id.removesuffix(".0")) == [("in-flight", None)]


async def test_an_attachment_is_taken_back_and_the_chart_told(lab: Laboratory, sample) -> None:
    wrong, right = await lab.add_patient("OTHER-1"), await lab.add_patient("OTHER-2")
    unit_id = await unmatched(lab, sample("panel"))
    message_id = unit_id.removesuffix(".0")
    await decide(lab, unit_id, "attach", {"patient_id": str(wrong)})
    await lab.chart_files()
    undone = await decide(lab, unit_id, "undo", {"reason": "attached to the wrong sister"})
    assert undone.status_code == 200, undone.text
    assert (undone.json()["disposition"], undone.json()["reason"]) == ("parked", "decision-undone")
    assert (undone.json()["patient_id"], undone.json()["note"]) == (None, "attached to the wrong sister")
    assert await lab.result_events() == [("received", 1, "final"), ("retracted", 2, "entered-in-error")]
    [withdrawn] = await lab.results(wrong)
    assert withdrawn["retraction_reason_code"] == "entered-in-error"
    await lab.chart_files()
    assert await lab.units(message_id) == [("parked", "decision-undone")]
    assert await lab.dispositions() == {"answered": 1, "parked": 1}
    answer = await decide(lab, unit_id, "attach", {"patient_id": str(right)})
    assert answer.status_code == 200, answer.text
    await lab.chart_files()
    assert await lab.dispositions() == {"answered": 1, "applied": 1}
    assert [r["status"] for r in await lab.results(right)] == ["final"]
    assert (await decide(lab, unit_id, "undo", {"reason": "the first was right"})).status_code == 200
    back = await decide(lab, unit_id, "attach", {"patient_id": str(wrong)})
    assert back.status_code == 200, back.text
    assert (await lab.result_events())[-1] == ("received", 3, "final")


async def test_a_discard_is_taken_back(lab: Laboratory, sample) -> None:
    unit_id = await unmatched(lab, sample("panel"))
    await decide(lab, unit_id, "discard", {"reason": "sent to the wrong clinic"})
    undone = await decide(lab, unit_id, "undo", {"reason": "it was ours after all"})
    assert (undone.json()["disposition"], undone.json()["decision_reason"]) == ("parked", None)
    assert len((await lab.get("/v1/lab/unmatched", "registrar"))["items"]) == 1


async def test_what_newer_messages_rest_on_is_not_taken_back_under_them(lab: Laboratory, sample) -> None:
    patient_id = await lab.add_patient("OTHER")
    first = await unmatched(lab, sample("panel"))
    second = await unmatched(lab, sample("correction"))
    for unit_id in (first, second):
        await decide(lab, unit_id, "attach", {"patient_id": str(patient_id)})
    refused = await decide(lab, first, "undo", {"reason": "the wrong sister"})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/not-undoable")
    assert await lab.units(first.removesuffix(".0")) == [("in-flight", None)]
    assert (await decide(lab, second, "undo", {"reason": "the wrong sister"})).status_code == 200


@pytest.mark.parametrize("decision", ["undo", "reject"])
async def test_what_was_matched_by_its_numbers_is_nobody_s_decision(
    lab: Laboratory, sample, decision: str
) -> None:
    await lab.add_patient()
    message_id = await lab.send(sample("panel"))
    answer = await decide(lab, f"{message_id}.0", decision, {"reason": "no reason"})
    assert answer.status_code == 409


@pytest.mark.parametrize("decision", ["candidates", "create-patient", "reject", "note", "undo"])
async def test_who_may_decide(lab: Laboratory, decision: str) -> None:
    path = f"/v1/lab/unmatched/{uuid7()}.0/{decision}"
    method = "GET" if decision == "candidates" else "POST"
    body = {} if decision == "create-patient" else {"note" if decision == "note" else "reason": "xyz"}
    for roles, status in (((), 401), (("biller",), 403), (("lab",), 403), (("registrar",), 404)):
        headers = lab.headers(*roles) if roles else {}
        sent = None if method == "GET" else body
        answer = await lab.lab.http.request(method, path, json=sent, headers=headers)
        assert answer.status_code == status, (roles, answer.text)
