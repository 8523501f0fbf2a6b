"""Results that nobody can be found for: they wait, find their patient when it appears, or a person decides."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from clinic_lab_integration import tables
from clinic_shared.ids import uuid7

from .conftest import Laboratory


async def decide(lab: Laboratory, unit_id: str, decision: str, body: dict[str, Any], *roles: str) -> Any:
    path = f"/v1/lab/unmatched/{unit_id}/{decision}"
    return await lab.lab.http.post(path, json=body, headers=lab.headers(*(roles or ("registrar",))))


async def unmatched(lab: Laboratory, message: bytes) -> str:
    """Send a message that nobody matches; returns the id of its first group."""
    message_id = await lab.send(message)
    assert (await lab.units(message_id))[0][0] == "parked"
    return f"{message_id}.0"


async def test_what_nobody_matches_is_on_the_work_list_as_the_laboratory_wrote_it(
    lab: Laboratory, sample
) -> None:
    unit_id = await unmatched(lab, sample("panel", order="X-1"))
    [waiting] = (await lab.get("/v1/lab/unmatched", "registrar"))["items"]
    assert (waiting["unit_id"], waiting["reason"]) == (unit_id, "unmatched")
    assert (waiting["family_name"], waiting["birth_on"]) == ("Testova", "1990-01-02")
    assert waiting["identifiers"] == [{"authority": "POLYCLINIC", "value": "MRN-1", "type": "MR"}]
    assert waiting["order_numbers"] == ["X-1"]


async def test_a_name_and_a_birth_date_match_nobody(lab: Laboratory, sample) -> None:
    name = {"family": "Testova", "given": "Anna", "patronymic": "Testovna"}
    await lab.add_patient("OTHER", name=name, birth_on="1990-01-02")
    await unmatched(lab, sample("panel"))
    assert await lab.result_events() == []


@pytest.mark.parametrize(
    "identifier",
    ["MRN-1^^^OTHER-CLINIC^MR", "MRN-1^^^^MR", "MRN-1", "mrn-1^^^POLYCLINIC", "MRN-1 2^^^POLYCLINIC"],
)
async def test_a_number_without_its_authority_matches_nobody(lab: Laboratory, compose, identifier) -> None:
    await lab.add_patient("MRN-1")
    await unmatched(lab, compose(f"PID|1||{identifier}", "OBR|1||F-1|GLU", "OBX|1|NM|GLU||5"))


async def test_the_laboratory_s_name_of_an_authority_can_be_configured(lab: Laboratory, compose) -> None:
    patient_id = await lab.add_patient("MRN-1")
    authorities = [{"sent": "OURS", "known_as": "POLYCLINIC"}, {"sent": "", "known_as": "POLYCLINIC"}]
    configured = await lab.lab.http.put(
        f"/v1/lab/partners/{lab.partner_id}",
        json={"identifier_authorities": authorities},
        headers=lab.headers("system-administrator"),
    )
    assert configured.status_code == 200, configured.text
    for number, identifier in enumerate(("MRN-1^^^OURS^MR", "MRN-1")):
        message = compose(
            f"PID|1||{identifier}", f"OBR|1||F-{number}|GLU", "OBX|1|NM|GLU||5", msh={10: f"M-{number}"}
        )
        await lab.send(message)
    events = await lab.lab.events("lab-integration.lab-result-received.v1")
    assert [e.data["patient_id"] for e in events] == [str(patient_id)] * 2


async def test_results_wait_for_their_patient_to_be_registered(lab: Laboratory, sample) -> None:
    unit_id = await unmatched(lab, sample("panel"))
    patient_id = await lab.add_patient("MRN-1")
    message_id = unit_id.removesuffix(".0")
    assert await lab.units(message_id) == [("in-flight", None)]
    assert [r["patient_id"] for r in [*await lab.results(patient_id)]] == [str(patient_id)]
    await lab.chart_files()
    assert await lab.dispositions() == {"answered": 1, "applied": 1}
    assert await lab.rows(tables.wanted_key) == []


async def test_results_wait_for_an_identifier_to_be_added(lab: Laboratory, sample) -> None:
    patient_id = await lab.add_patient("OTHER")
    await unmatched(lab, sample("panel"))
    known = [{"authority": "POLYCLINIC", "type": "MR", "value": "MRN-1"}]
    await lab.lab.deliver_example(
        "patients.patient-updated.v1", version=2, patient_id=str(patient_id), identifiers=known
    )
    assert await lab.result_events() == [("received", 1, "final")]


async def test_several_messages_find_their_patient_in_the_order_they_came(lab: Laboratory, sample) -> None:
    await unmatched(lab, sample("panel"))
    await unmatched(lab, sample("correction"))
    await lab.add_patient("MRN-1")
    assert await lab.result_events() == [("received", 1, "final"), ("corrected", 2, "corrected")]


async def test_a_patient_registered_at_the_same_moment_is_never_missed(lab: Laboratory, sample) -> None:
    for number in range(8):
        message = sample("panel", patient=f"MRN-{number}", **{"PANEL-0001": f"PANEL-{number}"})
        await lab.post(message)
        await asyncio.gather(lab.process(), lab.add_patient(f"MRN-{number}"))
    assert await lab.dispositions() == {"answered": 8, "in_flight": 8}


async def test_a_person_says_whose_results_they_are(lab: Laboratory, sample) -> None:
    patient_id = await lab.add_patient("OTHER")
    unit_id = await unmatched(lab, sample("panel"))
    answer = await decide(lab, unit_id, "attach", {"patient_id": str(patient_id)})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["disposition"], answer.json()["patient_id"]) == ("in-flight", str(patient_id))
    assert answer.json()["decided_by"]
    await lab.chart_files()
    assert await lab.dispositions() == {"answered": 1, "applied": 1}


async def test_attaching_twice_is_refused(lab: Laboratory, sample) -> None:
    patient_id = await lab.add_patient("OTHER")
    unit_id = await unmatched(lab, sample("panel"))
    body = {"patient_id": str(patient_id)}
    answers = await asyncio.gather(*(decide(lab, unit_id, "attach", body) for _ in range(3)))
    assert sorted(a.status_code for a in answers) == [200, 409, 409]
    assert len(await lab.result_events()) == 1


async def test_a_person_discards_with_a_reason(lab: Laboratory, sample) -> None:
    unit_id = await unmatched(lab, sample("panel"))
    assert (await decide(lab, unit_id, "discard", {})).status_code == 422
    answer = await decide(lab, unit_id, "discard", {"reason": "sent to the wrong clinic"})
    assert (answer.json()["disposition"], answer.json()["decision_reason"]) == (
        "discarded",
        "sent to the wrong clinic",
    )
    await lab.add_patient("MRN-1")
    assert await lab.result_events() == []
    assert await lab.dispositions() == {"answered": 1, "discarded": 1}
    assert (await lab.get("/v1/lab/unmatched", "registrar"))["items"] == []


async def test_an_unknown_patient_may_be_on_its_way(lab: Laboratory, sample) -> None:
    unit_id = await unmatched(lab, sample("panel"))
    answer = await decide(lab, unit_id, "attach", {"patient_id": str(uuid7())})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/reference-not-yet-known")
    assert (await lab.units(unit_id.removesuffix(".0"))) == [("parked", "unmatched")]


async def test_a_report_that_went_back_is_parked_and_filed_when_a_person_says_so(
    lab: Laboratory, compose
) -> None:
    patient_id = await lab.add_patient()
    obr = "OBR|1||F-1^LIS|718-7^Hb^LN||||||||||||||||||{}|||{}"
    pid = "PID|1||MRN-1^^^POLYCLINIC^MR"
    final = compose(pid, obr.format("20260115100000+0300", "F"), "OBX|1|NM|718-7||112||||||F")
    newer = obr.format("20260115120000+0300", "P")
    preliminary = compose(pid, newer, "OBX|1|NM|718-7||99||||||P", msh={10: "M-2"})
    await lab.send(final)
    message_id = await lab.send(preliminary)
    assert await lab.units(message_id) == [("parked", "status-went-back")]
    answer = await decide(lab, f"{message_id}.0", "attach", {"patient_id": str(uuid7())})
    assert answer.json()["type"] == "/problems/filed-for-another-patient"
    answer = await decide(lab, f"{message_id}.0", "attach", {"patient_id": str(patient_id)})
    assert answer.status_code == 200, answer.text
    assert (await lab.result_events())[1:] == [("received", 2, "preliminary")]


async def test_two_patients_with_one_number_are_a_case_for_a_person(lab: Laboratory, sample) -> None:
    await lab.add_patient("MRN-1")
    await lab.add_patient("MRN-1")
    unit_id = await unmatched(lab, sample("panel"))
    assert await lab.units(unit_id.removesuffix(".0")) == [("parked", "several-patients")]


@pytest.mark.parametrize(
    ("roles", "status"), [(("biller",), 403), (("lab",), 403), (("system-administrator",), 403)]
)
async def test_who_may_see_the_work_list(lab: Laboratory, roles, status) -> None:
    answer = await lab.lab.http.get("/v1/lab/unmatched", headers=lab.headers(*roles))
    assert answer.status_code == status
    assert (await lab.lab.http.get("/v1/lab/unmatched")).status_code == 401


@pytest.mark.parametrize("unit_id", [f"{UUID(int=7)}.0", f"{UUID(int=7)}.999999", "-" * 36 + ".0"])
async def test_what_isn_t_there_can_t_be_decided(lab: Laboratory, unit_id) -> None:
    answer = await decide(lab, unit_id, "discard", {"reason": "nothing there"})
    assert answer.status_code == 404


async def test_the_work_list_comes_in_pages(lab: Laboratory, sample) -> None:
    for number in range(3):
        await unmatched(lab, sample("two-patients", **{"PATIENTS-0001": f"P-{number}"}))
    seen: list[str] = []
    query: dict[str, str] = {"limit": "4"}
    while True:
        page = await lab.get("/v1/lab/unmatched", "registrar", **query)
        seen += [item["unit_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 6


async def test_an_incident_is_taken_and_settled_once(lab: Laboratory, compose) -> None:
    await lab.send(compose())
    await lab.send(compose("PID|1||MRN-9^^^POLYCLINIC^MR", "OBR|1||F-9|GLU", "OBX|1|NM|GLU||5"))
    [incident] = (await lab.get("/v1/lab/incidents", "registrar", state="open"))["items"]
    path, headers = f"/v1/lab/incidents/{incident['incident_id']}", lab.headers("registrar")
    taken = await lab.lab.http.post(f"{path}/take", json={}, headers=headers)
    assert taken.json()["owner_id"]
    note = {"note": "the laboratory restarted its counter"}
    settled = await lab.lab.http.post(f"{path}/settle", json=note, headers=lab.headers("registrar"))
    assert settled.json()["state"] == "settled"
    again = await lab.lab.http.post(f"{path}/settle", json=note, headers=lab.headers("registrar"))
    assert again.status_code == 404
