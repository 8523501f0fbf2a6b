"""All that is held about a patient: gathered from everybody, taken out by who asked, named where it is missing, gone."""

import base64
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_patients import tables
from clinic_patients.exports.exporting import contributors
from clinic_patients.exports.package import Section, shortened
from clinic_shared.exporting import LEFT_OUT, Part, context_of, sealed_pieces
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from .conftest import Clinic

REASON = {"reason": "Fictitious request in writing"}
CANARY = "Канарейкина жалоба"


@pytest.fixture
async def anna(clinic: Clinic) -> dict[str, Any]:
    return await clinic.register()


async def ask(
    clinic: Clinic, patient_id: str, caller: Principal, body: dict[str, Any] | None = None
) -> httpx.Response:
    return await clinic.call("POST", f"/v1/patients/{patient_id}/exports", caller, body or {})


async def contribute(clinic: Clinic, service: str, part: Part, *, number: int = -1) -> None:
    """Send a service's part, as the newest request asks for it."""
    [*_, asked] = await clinic.patients.events("patients.export-requested.v1")
    export_id = UUID(asked.data["export_id"])
    for piece in sealed_pieces(part, asked.data["public_key"], context_of(export_id, service)):
        if number not in (-1, piece.number):
            continue
        content = None if piece.content is None else base64.b64encode(piece.content).decode()
        data = {
            "export_id": str(export_id),
            "version": piece.number,
            "patient_id": asked.data["patient_id"],
            "piece_count": piece.count,
            "outcome": piece.outcome,
        }
        await clinic.patients.deliver(f"{service}.export-part-ready.v1", data, {"content": content})


async def gather(clinic: Clinic, *, without: str = "") -> None:
    await clinic.patients.fire_timers()
    for service in contributors():
        if service not in ("patients", without):
            rows = [{"held_by": service}]
            await contribute(clinic, service, Part(others={"rows": rows}))


async def state(clinic: Clinic, asked: httpx.Response, caller: Principal) -> dict[str, Any]:
    return dict(await clinic.read(asked.headers["location"], caller))


async def bundle(clinic: Clinic, asked: httpx.Response, caller: Principal) -> dict[str, Any]:
    return dict(await clinic.read(asked.headers["location"] + "/bundle", caller))


def kinds(found: dict[str, Any]) -> set[str]:
    return {entry["resource"]["resourceType"] for entry in found["entry"]}


def document(found: dict[str, Any], name: str) -> Any:
    [attached] = [
        entry["resource"]["content"][0]["attachment"]["data"]
        for entry in found["entry"]
        if entry["resource"].get("description") == name
    ]
    return json.loads(base64.b64decode(attached))


async def visit(clinic: Clinic, patient_id: str, summary: str = CANARY) -> None:
    now = clinic.patients.clock.now()
    body = {
        "department_id": str(clinic.department_id),
        "started_at": (now - timedelta(hours=1)).isoformat(),
        "ended_at": now.isoformat(),
        "summary": summary,
        "diagnoses": [{"code": "L20.9", "display": "Fictitious", "rank": "primary"}],
    }
    written = await clinic.call("POST", f"/v1/patients/{patient_id}/encounters", "doctor", body)
    assert written.status_code == 201, written.text


async def test_a_patient_takes_out_what_every_service_holds(clinic: Clinic, anna: dict[str, Any]) -> None:
    await visit(clinic, anna["patient_id"])
    me = clinic.patient(anna["patient_id"])
    asked = await ask(clinic, anna["patient_id"], me)
    assert asked.status_code == 202, asked.text
    assert asked.json()["state"] == "gathering"
    early = await clinic.call("GET", asked.headers["location"] + "/bundle", me)
    assert (early.status_code, early.json()["type"]) == (409, "/problems/export-not-ready")
    await gather(clinic)
    ready = await state(clinic, asked, me)
    assert ready["state"] == "ready"
    assert set(ready["parts"].values()) == {"included"}
    assert len(ready["parts"]) == 8
    found = await bundle(clinic, asked, me)
    assert (found["resourceType"], found["type"]) == ("Bundle", "collection")
    assert {"Patient", "Encounter", "Condition", "DocumentReference"} <= kinds(found)
    assert CANARY in json.dumps(found, ensure_ascii=False)
    for service in set(contributors()) - {"patients"}:
        assert document(found, f"{service}.rows") == [{"held_by": service}]


async def test_the_same_on_paper(clinic: Clinic, anna: dict[str, Any]) -> None:
    me = clinic.patient(anna["patient_id"])
    asked = await ask(clinic, anna["patient_id"], me)
    await gather(clinic)
    paper = await clinic.call("GET", asked.headers["location"] + "/document", me)
    assert paper.status_code == 200, paper.text
    assert paper.headers["content-type"] == "application/pdf"
    assert paper.content.startswith(b"%PDF")


def test_paper_has_an_end_and_says_so() -> None:
    long = [Section(title="Fictitious", things=[[("name", "value")] * 999] * 30)]
    kept, left_out = shortened(long)
    assert [len(section.things) for section in kept] == [20]
    assert left_out == 10


async def test_a_service_that_does_not_answer_is_named_and_may_still_come(
    clinic: Clinic, anna: dict[str, Any]
) -> None:
    me = clinic.patient(anna["patient_id"])
    asked = await ask(clinic, anna["patient_id"], me)
    await gather(clinic, without="billing")
    assert (await state(clinic, asked, me))["parts"]["billing"] == "waiting"
    clinic.patients.clock.advance(minutes=16)
    await clinic.patients.fire_timers()
    told = await state(clinic, asked, me)
    assert (told["state"], told["parts"]["billing"]) == ("incomplete", "missing")
    assert document(await bundle(clinic, asked, me), "manifest")["services"]["billing"] == "missing"
    await contribute(clinic, "billing", Part())
    assert (await state(clinic, asked, me))["state"] == "ready"


async def test_a_part_counts_once_it_is_whole(clinic: Clinic, anna: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr("clinic_shared.exporting.PIECE_BYTES", 64)
    me = clinic.patient(anna["patient_id"])
    asked = await ask(clinic, anna["patient_id"], me)
    await gather(clinic, without="audit")
    part = Part(others={"access-log": [{"who": str(uuid7())} for _ in range(9)]})
    await contribute(clinic, "audit", part, number=2)
    assert (await state(clinic, asked, me))["parts"]["audit"] == "waiting"
    await contribute(clinic, "audit", part)
    assert document(await bundle(clinic, asked, me), "audit.access-log") == part.others["access-log"]


async def test_what_is_too_large_is_named(clinic: Clinic, anna: dict[str, Any], monkeypatch: Any) -> None:
    me = clinic.patient(anna["patient_id"])
    asked = await ask(clinic, anna["patient_id"], me)
    await gather(clinic, without="audit")
    monkeypatch.setattr("clinic_shared.exporting.LONGEST_PART_BYTES", 1)
    await contribute(clinic, "audit", Part(others={"access-log": [{"a": 1}]}))
    told = await state(clinic, asked, me)
    assert (told["state"], told["parts"]["audit"]) == ("ready", "too-large")
    assert document(await bundle(clinic, asked, me), "manifest")["services"]["audit"] == "too-large"


async def test_what_a_service_left_out_stands_in_the_manifest_with_where_to_get_it(
    clinic: Clinic, anna: dict[str, Any]
) -> None:
    me = clinic.patient(anna["patient_id"])
    asked = await ask(clinic, anna["patient_id"], me)
    await gather(clinic, without="audit")
    said = {"what": "accesses before the oldest that is here", "count": 2, "where": "fictitious"}
    await contribute(clinic, "audit", Part(others={"access-log": [{"a": 1}], LEFT_OUT: [said]}))
    found = await bundle(clinic, asked, me)
    assert {"service": "audit", **said} in document(found, "manifest")["left_out"]
    assert document(found, "audit.access-log") == [{"a": 1}]


async def test_asking_again_while_it_is_gathered_gives_the_same_one(
    clinic: Clinic, anna: dict[str, Any]
) -> None:
    me = clinic.patient(anna["patient_id"])
    first, second = [await ask(clinic, anna["patient_id"], me) for _ in range(2)]
    assert first.json()["export_id"] == second.json()["export_id"]
    assert len(await clinic.patients.events("patients.export-requested.v1")) == 1
    listed = await clinic.read(f"/v1/patients/{anna['patient_id']}/exports", me)
    assert [one["export_id"] for one in listed] == [first.json()["export_id"]]


async def test_staff_say_what_it_is_for_and_each_step_is_on_record(
    clinic: Clinic, anna: dict[str, Any]
) -> None:
    officer = clinic.caller("records-officer")
    without = await ask(clinic, anna["patient_id"], officer)
    assert (without.status_code, without.json()["type"]) == (422, "/problems/purpose-needed")
    asked = await ask(clinic, anna["patient_id"], officer, {"purpose": "HLEGAL", **REASON})
    await gather(clinic)
    await bundle(clinic, asked, officer)
    told = [one for one in await clinic.audited() if one["entity"]["type"] == "PatientExport"]
    assert [(one["action"], one["purpose"], one["reason"]) for one in told] == [
        ("C", "HLEGAL", REASON["reason"]),
        ("E", "HLEGAL", REASON["reason"]),
    ]
    assert told[1]["details"]["form"] == "bundle"
    assert told[1]["patient"] == anna["patient_id"]


async def test_only_whoever_asked_takes_it_out(clinic: Clinic, anna: dict[str, Any]) -> None:
    officer = clinic.caller("records-officer")
    asked = await ask(clinic, anna["patient_id"], officer, REASON)
    await gather(clinic)
    others = (clinic.caller("records-officer"), clinic.patient(anna["patient_id"]))
    for other in (*others, clinic.patient(str(uuid7()))):
        for path in ("", "/bundle", "/document"):
            answer = await clinic.call("GET", asked.headers["location"] + path, other)
            assert answer.status_code == 404, path
    for role in ("doctor", "registrar", "privacy-officer", "system-administrator"):
        assert (await ask(clinic, anna["patient_id"], clinic.caller(role), REASON)).status_code == 403
    assert (await ask(clinic, str(uuid7()), officer, REASON)).status_code == 404


async def test_after_a_week_it_is_gone_and_no_copy_opens(clinic: Clinic, anna: dict[str, Any]) -> None:
    me = clinic.patient(anna["patient_id"])
    asked = await ask(clinic, anna["patient_id"], me)
    await gather(clinic)
    clinic.patients.clock.advance(days=7)
    late = await clinic.call("GET", asked.headers["location"] + "/bundle", me)
    assert late.status_code == 410
    await clinic.patients.fire_timers()
    late = await clinic.call("GET", asked.headers["location"] + "/bundle", me)
    assert (late.status_code, late.json()["type"]) == (410, "/problems/export-expired")
    [row] = await clinic.rows(tables.patient_export)
    assert (row["state"], row["private_key"], row["data_key"]) == ("expired", None, None)
    await contribute(clinic, "billing", Part())
    assert await clinic.rows(tables.patient_export_piece) == []


async def test_what_is_erased_leaves_no_copy_in_an_export(clinic: Clinic, anna: dict[str, Any]) -> None:
    me = clinic.patient(anna["patient_id"])
    asked = await ask(clinic, anna["patient_id"], me)
    await gather(clinic)
    body = {"classes": ["contact"], "reason": "asked for in writing"}
    path = f"/v1/patients/{anna['patient_id']}/erasures"
    assert (await clinic.call("POST", path, "privacy-officer", body)).status_code == 200
    assert (await clinic.call("GET", asked.headers["location"] + "/bundle", me)).status_code == 410
    again = await ask(clinic, anna["patient_id"], me)
    await gather(clinic)
    assert "anna.testova@example.org" not in json.dumps(await bundle(clinic, again, me))


async def test_parts_and_key_lie_sealed(clinic: Clinic, anna: dict[str, Any]) -> None:
    await visit(clinic, anna["patient_id"])
    await ask(clinic, anna["patient_id"], clinic.patient(anna["patient_id"]))
    await gather(clinic)
    stored = b"".join(row["content"] for row in await clinic.rows(tables.patient_export_piece))
    assert CANARY.encode() not in stored
    assert b"held_by" not in stored
    [row] = await clinic.rows(tables.patient_export)
    assert row["data_key"] is not None
    assert len(row["private_key"]) > 32


async def test_a_patient_gets_released_results_and_an_officer_all(
    clinic: Clinic, anna: dict[str, Any]
) -> None:
    patient_id = anna["patient_id"]
    for number, status in enumerate(("preliminary", "final"), start=1):
        await clinic.lab_result(
            "received",
            patient_id=patient_id,
            result_id=str(uuid7()),
            status=status,
            message_id=str(uuid7()),
            filler_order_number=f"TEST-{number}",
        )
    seen = []
    callers = (clinic.patient(patient_id), clinic.caller("records-officer"))
    for caller in callers:
        asked = await ask(clinic, patient_id, caller, REASON)
        await gather(clinic)
        found = await bundle(clinic, asked, caller)
        reports = [one["resource"] for one in found["entry"]]
        seen.append({one["status"] for one in reports if one["resourceType"] == "DiagnosticReport"})
    assert seen == [{"final"}, {"preliminary", "final"}]


async def test_all_records_of_a_person_are_in_it_whichever_is_asked_for(
    clinic: Clinic, anna: dict[str, Any]
) -> None:
    double = await clinic.register(phones=["8 (000) 000-00-09"])
    await visit(clinic, double["patient_id"], summary="Fictitious visit of the double")
    path = f"/v1/patients/{anna['patient_id']}/$merge"
    body = {"source_patient_id": double["patient_id"], "reason": "Fictitious double registration"}
    merge = (await clinic.call("POST", path, clinic.caller("registrar"), body)).json()
    path = f"/v1/patients/{anna['patient_id']}/merges/{merge['merge_id']}/approve"
    assert (await clinic.call("POST", path, clinic.caller("registrar"))).status_code == 200
    officer = clinic.caller("records-officer")
    for asked_for in (anna, double):
        asked = await ask(clinic, asked_for["patient_id"], officer, REASON)
        [*_, told] = await clinic.patients.events("patients.export-requested.v1")
        assert set(told.data["patient_ids"]) == {anna["patient_id"], double["patient_id"]}
        await gather(clinic)
        found = await bundle(clinic, asked, officer)
        ids = {
            one["resource"]["id"] for one in found["entry"] if one["resource"]["resourceType"] == "Patient"
        }
        assert ids == {anna["patient_id"], double["patient_id"]}
        assert "visit of the double" in json.dumps(found)


OUTSIDE = {"purpose": "TREAT", "recipient": "Fictitious hospital", **REASON}


async def say(clinic: Clinic, patient_id: str, status: str, **said: Any) -> None:
    body = {"kind": "sharing", "status": status, "text_version": "2026-01", **said}
    path = f"/v1/patients/{patient_id}/consents"
    assert (await clinic.call("POST", path, clinic.patient(patient_id), body)).status_code == 201


async def test_what_goes_to_others_needs_the_patients_consent_until_it_has_left(
    clinic: Clinic, anna: dict[str, Any]
) -> None:
    patient_id, officer = anna["patient_id"], clinic.caller("records-officer")
    refused = await ask(clinic, patient_id, officer, OUTSIDE)
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/consent-missing")
    await say(clinic, patient_id, "granted")
    asked = await ask(clinic, patient_id, officer, OUTSIDE)
    assert asked.status_code == 202, asked.text
    await gather(clinic)
    assert document(await bundle(clinic, asked, officer), "manifest")["recipient"] == "Fictitious hospital"
    out = [one for one in await clinic.audited() if one["entity"]["type"] == "PatientExport"]
    assert [one["details"]["consent_version"] for one in out] == ["1", "1"]
    await say(clinic, patient_id, "withdrawn")
    late = await clinic.call("GET", asked.headers["location"] + "/bundle", officer)
    assert (late.status_code, late.json()["type"]) == (403, "/problems/consent-missing")
    [denied] = [one for one in await clinic.audited() if one["reason"] == "consent-missing"][1:]
    assert denied["outcome"] == "4"


async def test_a_consent_that_has_expired_is_none_and_the_patient_needs_none(
    clinic: Clinic, anna: dict[str, Any]
) -> None:
    patient_id, officer = anna["patient_id"], clinic.caller("records-officer")
    soon = clinic.patients.clock.now() + timedelta(hours=1)
    await say(clinic, patient_id, "granted", expires_at=soon.isoformat())
    clinic.patients.clock.advance(hours=1)
    assert (await ask(clinic, patient_id, officer, OUTSIDE)).status_code == 403
    nameless = OUTSIDE | {"recipient": None}
    assert (await ask(clinic, patient_id, officer, nameless)).status_code == 422
    for caller, body in ((clinic.patient(patient_id), OUTSIDE), (officer, {"purpose": "HLEGAL", **REASON})):
        assert (await ask(clinic, patient_id, caller, body)).status_code == 202


async def test_a_record_goes_to_no_country_that_the_law_does_not_allow(
    clinic: Clinic, anna: dict[str, Any]
) -> None:
    officer = clinic.caller("records-officer")
    refused = await ask(clinic, anna["patient_id"], officer, OUTSIDE | {"recipient_country": "IN"})
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/transfer-not-allowed")
    assert "GDPR" in refused.json()["basis"]
    [denied] = [one for one in await clinic.audited() if one["reason"] == "transfer-not-allowed"]
    assert denied["outcome"] == "4"
    allowed = await ask(clinic, anna["patient_id"], officer, OUTSIDE | {"recipient_country": "DE"})
    assert allowed.json()["type"] == "/problems/consent-missing"
    own = await ask(
        clinic, anna["patient_id"], clinic.patient(anna["patient_id"]), {"recipient_country": "IN"}
    )
    assert own.status_code == 202, "what patients take out for themselves goes wherever they are"
