"""Encounters, prescriptions, consents and the timeline, through HTTP."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from clinic_patients import tables
from clinic_patients.chart_domain import EntryKind
from clinic_shared.ids import uuid7

from .conftest import Clinic


@pytest.fixture
async def anna(clinic: Clinic) -> str:
    return str((await clinic.register())["patient_id"])


def visit(clinic: Clinic, **changes: Any) -> dict[str, Any]:
    return {
        "department_id": str(clinic.department_id),
        "started_at": "2026-03-02T07:00:00Z",
        "ended_at": "2026-03-02T07:25:00Z",
        "summary": "Вымышленная запись",
        "recommendations": "Консультация диетолога",
        "diagnoses": [{"code": "L20.9", "display": "Вымышленный диагноз", "rank": "primary"}],
        **changes,
    }


def prescription(clinic: Clinic, **changes: Any) -> dict[str, Any]:
    return {
        "department_id": str(clinic.department_id),
        "valid_until_on": "2026-05-01",
        "items": [{"medication": "Тестомазь", "dose": "тонкий слой", "duration_days": 14}],
        **changes,
    }


def consent(**changes: Any) -> dict[str, Any]:
    return {"kind": "messaging", "status": "granted", "text_version": "messaging-2026-01", **changes}


async def test_an_encounter_stands_in_the_chart_under_its_doctor_s_name(clinic: Clinic, anna: str) -> None:
    answer = await clinic.call("POST", f"/v1/patients/{anna}/encounters", "doctor", visit(clinic))
    assert answer.status_code == 201, answer.text
    recorded = answer.json()
    assert recorded["practitioner_id"] == str(clinic.doctor_id)
    assert recorded["practitioner_name"] == "Врачева Тестина Примеровна"
    assert recorded["status"] == "finished"
    assert (await clinic.read(f"/v1/patients/{anna}/encounters"))["items"] == [recorded]
    [event] = await clinic.patients.events("patients.encounter-recorded.v1")
    assert event.data["centre_id"] == str(clinic.centre_id)
    assert event.private["diagnoses"][0]["code"] == "L20.9"
    assert "L20.9" not in str(event.data)


CONTRADICTIONS: list[dict[str, Any]] = [
    {"ended_at": "2026-03-02T06:00:00Z"},
    {"started_at": "2026-03-02T07:00:00"},
    {"diagnoses": [{"code": "L20.9", "rank": "primary"}, {"code": "E66.0", "rank": "primary"}]},
    {"diagnoses": [{"code": "L20.9"}, {"code": "L20.9"}]},
    {"diagnoses": [{"code": "eczema"}]},
]


async def test_an_encounter_that_contradicts_itself_is_refused(clinic: Clinic, anna: str) -> None:
    for wrong in CONTRADICTIONS:
        body = visit(clinic, **wrong)
        answer = await clinic.call("POST", f"/v1/patients/{anna}/encounters", "doctor", body)
        assert answer.status_code == 422, wrong


async def test_an_appointment_of_another_patient_is_refused_and_an_unknown_one_is_taken(
    clinic: Clinic, anna: str
) -> None:
    foreign = await clinic.patients.deliver_example("scheduling.appointment-booked.v1")
    path = f"/v1/patients/{anna}/encounters"
    refused = await clinic.call(
        "POST", path, "doctor", visit(clinic, appointment_id=foreign["appointment_id"])
    )
    assert refused.status_code == 409
    assert refused.json()["reference"] == "appointment_id"
    taken = await clinic.call("POST", path, "doctor", visit(clinic, appointment_id=str(uuid7())))
    assert taken.status_code == 201


async def test_writing_for_a_department_that_has_not_arrived_asks_to_try_again(
    clinic: Clinic, anna: str
) -> None:
    body = visit(clinic, department_id=str(uuid7()))
    answer = await clinic.call("POST", f"/v1/patients/{anna}/encounters", "doctor", body)
    assert answer.json()["type"].endswith("/reference-not-yet-known")


async def test_a_doctor_writes_only_for_their_own_department(clinic: Clinic, anna: str) -> None:
    elsewhere = clinic.caller("doctor", network=False, department_ids=frozenset({uuid7()}))
    for path, body in (("encounters", visit(clinic)), ("prescriptions", prescription(clinic))):
        answer = await clinic.call("POST", f"/v1/patients/{anna}/{path}", elsewhere, body)
        assert answer.status_code == 403


async def test_a_prescription_is_issued_and_listed(clinic: Clinic, anna: str) -> None:
    encounter = await clinic.call("POST", f"/v1/patients/{anna}/encounters", "doctor", visit(clinic))
    body = prescription(clinic, encounter_id=encounter.json()["encounter_id"])
    answer = await clinic.call("POST", f"/v1/patients/{anna}/prescriptions", "doctor", body)
    assert answer.status_code == 201, answer.text
    assert (await clinic.read(f"/v1/patients/{anna}/prescriptions"))["items"] == [answer.json()]
    [event] = await clinic.patients.events("patients.prescription-issued.v1")
    assert event.private["items"][0]["medication"] == "Тестомазь"


async def test_a_prescription_for_another_patient_s_encounter_is_refused(clinic: Clinic, anna: str) -> None:
    other = (await clinic.register())["patient_id"]
    encounter = await clinic.call("POST", f"/v1/patients/{other}/encounters", "doctor", visit(clinic))
    for encounter_id in (encounter.json()["encounter_id"], str(uuid7())):
        body = prescription(clinic, encounter_id=encounter_id)
        answer = await clinic.call("POST", f"/v1/patients/{anna}/prescriptions", "doctor", body)
        assert answer.json()["type"].endswith("/reference-mismatch")


async def test_an_empty_prescription_is_refused(clinic: Clinic, anna: str) -> None:
    body = prescription(clinic, items=[])
    answer = await clinic.call("POST", f"/v1/patients/{anna}/prescriptions", "doctor", body)
    assert answer.status_code == 422


async def test_a_consent_keeps_everything_that_was_said(clinic: Clinic, anna: str) -> None:
    path = f"/v1/patients/{anna}/consents"
    granted = (await clinic.call("POST", path, body=consent(channel="whatsapp"))).json()
    again = (await clinic.call("POST", path, body=consent(channel="whatsapp"))).json()
    assert again == granted
    withdrawn = await clinic.call(
        "POST", path, clinic.patient(anna), consent(channel="whatsapp", status="withdrawn")
    )
    assert withdrawn.json()["version"] == 2
    await clinic.call("POST", path, body=consent(channel=None))
    whatsapp, everywhere = await clinic.read(path)
    assert [said["status"] for said in whatsapp["history"]] == ["granted", "withdrawn"]
    assert (everywhere["channel"], everywhere["version"]) == (None, 1)
    events = await clinic.patients.events("patients.consent-changed.v1")
    assert [(e.data["status"], e.aggregate_version) for e in events] == [
        ("granted", 1),
        ("withdrawn", 2),
        ("granted", 1),
    ]


async def test_concurrent_statements_about_one_purpose_become_versions_in_order(
    clinic: Clinic, anna: str
) -> None:
    answers = await asyncio.gather(
        *(
            clinic.call("POST", f"/v1/patients/{anna}/consents", body=consent(text_version=f"v{n}"))
            for n in range(5)
        )
    )
    assert sorted(a.json()["version"] for a in answers) == [1, 2, 3, 4, 5]
    assert len(await clinic.rows(tables.consent)) == 1


async def test_lists_come_in_pages_newest_first(clinic: Clinic, anna: str) -> None:
    for hour in (8, 6, 7):
        body = visit(clinic, started_at=f"2026-03-01T0{hour}:00:00Z", ended_at=None)
        assert (
            await clinic.call("POST", f"/v1/patients/{anna}/encounters", "doctor", body)
        ).status_code == 201
    seen: list[str] = []
    path = f"/v1/patients/{anna}/encounters?limit=2"
    while True:
        page = await clinic.read(path)
        seen += [item["started_at"][11:13] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        path = f"/v1/patients/{anna}/encounters?limit=2&cursor={page['next_cursor']}"
    assert seen == ["08", "07", "06"]


async def test_the_timeline_shows_each_thing_once_as_it_is_now(clinic: Clinic, anna: str) -> None:
    appointment: dict[str, Any] = {"patient_id": anna, "starts_at": "2026-03-03T07:00:00Z"}
    await clinic.patients.deliver_example("scheduling.appointment-booked.v1", **appointment)
    await clinic.patients.deliver_example("scheduling.patient-arrived.v1", version=2, **appointment)
    await clinic.patients.deliver_example("referrals.referral-created.v1", patient_id=anna)
    await clinic.patients.deliver_example("lab-integration.lab-order-placed.v1", patient_id=anna)
    await clinic.lab_result("received", patient_id=anna)
    await clinic.patients.deliver_example("notifications.message-delivered.v1", patient_id=anna)
    await clinic.patients.deliver_example("billing.invoice-issued.v1", patient_id=anna)
    await clinic.patients.deliver_example("billing.payment-received.v1", patient_id=anna)
    await clinic.call("POST", f"/v1/patients/{anna}/encounters", "doctor", visit(clinic))
    await clinic.call("POST", f"/v1/patients/{anna}/prescriptions", "doctor", prescription(clinic))
    await clinic.call("POST", f"/v1/patients/{anna}/consents", body=consent())
    everything = (await clinic.read(f"/v1/patients/{anna}/timeline", clinic.patient(anna)))["items"]
    assert sorted(entry["kind"] for entry in everything) == sorted(EntryKind)
    moments = [entry["occurred_at"] for entry in everything]
    assert moments == sorted(moments, reverse=True)
    [visit_booked] = [entry for entry in everything if entry["kind"] == "appointment"]
    assert (visit_booked["status"], visit_booked["code"]) == ("arrived", "dermatology-consultation")
    for_the_doctor = (await clinic.read(f"/v1/patients/{anna}/timeline"))["items"]
    assert not {"invoice", "payment"} & {entry["kind"] for entry in for_the_doctor}
    only = await clinic.read(f"/v1/patients/{anna}/timeline?kind=referral&kind=lab-result")
    assert sorted(entry["kind"] for entry in only["items"]) == ["lab-result", "referral"]


CHART = ["encounters", "prescriptions", "observations", "timeline"]


async def test_patients_read_their_own_chart_and_nobody_else_s(clinic: Clinic, anna: str) -> None:
    for path in (*CHART, "consents"):
        own = await clinic.call("GET", f"/v1/patients/{anna}/{path}", clinic.patient(anna))
        foreign = await clinic.call("GET", f"/v1/patients/{anna}/{path}", clinic.patient(str(uuid7())))
        assert (own.status_code, foreign.status_code) == (200, 404), path


async def test_clinical_content_is_for_those_who_treat(clinic: Clinic, anna: str) -> None:
    outsiders = ("registrar", "system-administrator", "biller", "management", "privacy-officer")
    for path in CHART:
        for role in outsiders:
            answer = await clinic.call("GET", f"/v1/patients/{anna}/{path}", role)
            assert answer.status_code == 403, (path, role)


async def test_a_chart_that_does_not_exist_is_neither_read_nor_written(clinic: Clinic) -> None:
    for path in (*CHART, "consents"):
        assert (await clinic.call("GET", f"/v1/patients/{uuid7()}/{path}", "doctor")).status_code == 404
    for path, role, body in (
        ("encounters", "doctor", visit(clinic)),
        ("prescriptions", "doctor", prescription(clinic)),
        ("consents", "registrar", consent()),
    ):
        answer = await clinic.call("POST", f"/v1/patients/{uuid7()}/{path}", role, body)
        assert answer.status_code == 404, path


async def test_every_look_into_a_chart_is_audited(clinic: Clinic, anna: str) -> None:
    for path in (*CHART, "consents"):
        before = len(await clinic.audited())
        await clinic.read(f"/v1/patients/{anna}/{path}")
        [record] = (await clinic.audited())[before:]
        assert (record["action"], record["patient"]) == ("R", anna), path
        assert record["agent"]["who"] == str(clinic.doctor_id)


async def test_a_patient_cannot_write_their_own_chart(clinic: Clinic, anna: str) -> None:
    own = clinic.patient(anna)
    assert UUID(anna) == own.patient_id
    for path, body in (("encounters", visit(clinic)), ("prescriptions", prescription(clinic))):
        assert (await clinic.call("POST", f"/v1/patients/{anna}/{path}", own, body)).status_code == 403
