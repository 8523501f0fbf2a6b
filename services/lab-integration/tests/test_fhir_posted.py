"""Bundles posted by laboratories: who may, what is answered, and that results go the same way as HL7's."""

import json
from typing import Any

import httpx
import pytest
from clinic_lab_integration.partners import PartnerDirectory
from clinic_shared.intake import intake_table

from .conftest import FhirBundle, Laboratory

BUNDLES = "/fhir/R4"


async def post(lab: Laboratory, document: Any, **headers: str) -> httpx.Response:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return await lab.lab.http.post(
        BUNDLES,
        content=body,
        headers={"content-type": "application/fhir+json"} | headers,
        auth=(lab.client_id, lab.secret),
    )


def outcome_of(answer: httpx.Response) -> list[tuple[str, str, str]]:
    assert answer.headers["content-type"] == "application/fhir+json"
    document = answer.json()
    assert document["resourceType"] == "OperationOutcome"
    return [(i["severity"], i["code"], i.get("expression", [""])[0]) for i in document["issue"]]


async def process(lab: Laboratory) -> None:
    assert await lab.process() > 0


async def test_a_result_reaches_the_chart(lab: Laboratory, fhir_bundle: FhirBundle) -> None:
    patient_id = await lab.add_patient()
    answer = await post(lab, fhir_bundle())
    assert answer.status_code == 200, answer.text
    assert answer.json()["type"] == "transaction-response"
    assert [e["response"]["status"] for e in answer.json()["entry"]] == ["202 Accepted"] * 3
    await process(lab)
    assert await lab.result_events() == [("received", 1, "final")]
    [event] = await lab.lab.events("lab-integration.lab-result-received.v1")
    assert event.data["patient_id"] == str(patient_id)
    assert event.private["observations"][0]["value"] == "5.1"
    await lab.chart_files()
    assert await lab.dispositions(interface="fhir") == {"answered": 1, "applied": 1}
    assert await lab.dispositions() == {}
    kept = await lab.get(answer.headers["location"])
    assert (kept["message_type"], kept["units"][0]["disposition"]) == ("Bundle transaction", "applied")


async def test_a_correction_is_a_new_version(lab: Laboratory, fhir_bundle: FhirBundle) -> None:
    await lab.add_patient()
    await post(lab, fhir_bundle())
    corrected = fhir_bundle(identifier={"value": "B-2"})
    corrected["entry"][0]["resource"] |= {"status": "corrected", "issued": "2026-01-15T11:00:00+03:00"}
    corrected["entry"][1]["resource"] |= {"status": "corrected", "valueQuantity": {"value": 5.3}}
    await post(lab, corrected)
    await process(lab)
    assert await lab.result_events() == [("received", 1, "final"), ("corrected", 2, "corrected")]


async def test_a_report_entered_in_error_is_retracted(lab: Laboratory, fhir_bundle: FhirBundle) -> None:
    await lab.add_patient()
    await post(lab, fhir_bundle())
    wrong = fhir_bundle(identifier={"value": "B-2"})
    wrong["entry"][0]["resource"]["status"] = "entered-in-error"
    await post(lab, wrong)
    await process(lab)
    assert (await lab.result_events())[1] == ("retracted", 2, "entered-in-error")


async def test_whose_nobody_knows_waits_for_a_person(lab: Laboratory, fhir_bundle: FhirBundle) -> None:
    answer = await post(lab, fhir_bundle())
    await process(lab)
    message_id = answer.headers["location"].rpartition("/")[2]
    assert await lab.units(message_id) == [("parked", "unmatched")]
    [waiting] = (await lab.get("/v1/lab/unmatched", "doctor"))["items"]
    assert (waiting["family_name"], waiting["identifiers"][0]["value"]) == ("Testova", "MRN-1")
    await lab.add_patient()
    assert await lab.units(message_id) == [("in-flight", None)]


async def test_the_same_bytes_have_the_same_answer_and_one_effect(
    lab: Laboratory, fhir_bundle: FhirBundle
) -> None:
    first, second = [await post(lab, fhir_bundle()) for _ in range(2)]
    assert (first.content, first.headers["location"]) == (second.content, second.headers["location"])
    await process(lab)
    assert await lab.dispositions(interface="fhir") == {"answered": 2, "parked": 1, "duplicate": 1}


async def test_the_same_identifier_with_other_bytes_is_taken_and_an_incident(
    lab: Laboratory, fhir_bundle: FhirBundle
) -> None:
    await post(lab, fhir_bundle())
    await post(lab, fhir_bundle(timestamp="2026-01-15T12:00:00Z"))
    await process(lab)
    [incident] = (await lab.get("/v1/lab/incidents", "doctor"))["items"]
    assert incident["kind"] == "control-id-reused"
    assert (await lab.dispositions(interface="fhir"))["answered"] == 2


async def test_a_refused_transaction_names_every_path_and_is_accounted_for(
    lab: Laboratory, fhir_bundle: FhirBundle
) -> None:
    document = fhir_bundle()
    document["entry"][0]["resource"]["status"] = "done"
    del document["entry"][1]["resource"]["code"]
    answers = [await post(lab, document) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert outcome_of(answers[0]) == [
        ("error", "required", "Bundle.entry[1].resource.code"),
        ("error", "value", "Bundle.entry[0].resource.status"),
    ]
    await process(lab)
    assert await lab.dispositions(interface="fhir") == {"answered": 2, "rejected": 1, "duplicate": 1}


async def test_a_batch_is_answered_entry_by_entry(lab: Laboratory, fhir_bundle: FhirBundle) -> None:
    await lab.add_patient()
    document = fhir_bundle(kind="batch")
    wrong = json.loads(json.dumps(document["entry"][0])) | {"fullUrl": "urn:uuid:wrong"}
    wrong["resource"]["status"] = "?"
    document["entry"].append(wrong)
    answer = await post(lab, document)
    entries = [entry["response"] for entry in answer.json()["entry"]]
    assert [e["status"][:3] for e in entries] == ["202", "202", "202", "422"]
    assert entries[3]["outcome"]["issue"][0]["expression"] == ["Bundle.entry[3].resource.status"]
    await process(lab)
    assert await lab.result_events() == [("received", 1, "final")]


@pytest.mark.parametrize("body", [b"", b"{}", b"nonsense", b'{"resourceType":"Patient"}'])
async def test_what_is_no_bundle_is_refused_in_fhirs_words_and_not_kept(lab: Laboratory, body: bytes) -> None:
    answer = await post(lab, body)
    assert answer.status_code == 400
    assert [severity for severity, _, _ in outcome_of(answer)] == ["error"]
    assert await lab.rows(intake_table) == []


async def test_every_refusal_is_an_operation_outcome(lab: Laboratory, fhir_bundle: FhirBundle) -> None:
    stranger = Laboratory(lab.lab, secret="wrong")
    assert outcome_of(await post(stranger, fhir_bundle()))[0][1] == "login"
    unknown_type = await post(lab, fhir_bundle(), **{"content-type": "text/plain"})
    assert unknown_type.status_code == 415
    assert outcome_of(unknown_type)
    await lab.lab.http.put(
        f"/v1/lab/partners/{lab.partner_id}",
        json={"protocols": ["mllp"]},
        headers=lab.headers("system-administrator"),
    )
    await lab.lab.runtime.get(PartnerDirectory).refresh()
    refused = await post(lab, fhir_bundle())
    assert (refused.status_code, outcome_of(refused)[0][1]) == (403, "forbidden")
