"""What a validation tells: the answer, the message as it was taken apart, whom it matches, what to correct."""

import json
from pathlib import Path
from typing import Any

import pytest
from clinic_lab_integration.hl7 import UnreadablePayloadError
from clinic_lab_integration.hl7.fixes import fix_of
from clinic_lab_integration.hl7.review import MOST_FINDINGS, review, unread_segments
from clinic_lab_integration.partners import PartnerDirectory
from clinic_shared.intake import intake_table

from .conftest import MESSAGES, FhirBundle, Laboratory, assess


async def validate(lab: Laboratory, payload: bytes) -> Any:
    answer = await lab.lab.http.post(
        f"{MESSAGES}/validate",
        content=payload,
        headers={"content-type": "application/hl7-v2"},
        auth=(lab.client_id, lab.secret),
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["messages"]


def payloads(corpus: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(corpus.rglob("*")) if file.is_file()]


def places(message: Any) -> list[str]:
    return [finding["location"] for finding in message["findings"]]


async def test_the_message_is_shown_taken_apart(lab: Laboratory, compose) -> None:
    [message] = await validate(
        lab,
        compose(
            r"PID|1||MRN-1^^^POLYCLINIC^MR~77^^^LAB^PI||Test\S\ova^Anna",
            "OBR|1||F-1|GLU^Glucose^L",
            "ZXX|local",
            "OBX|1|NM|GLU^Glucose^L||5.10|mmol/L|||||F",
        ),
    )
    assert [segment["name"] for segment in message["segments"]] == ["MSH", "PID", "OBR", "ZXX", "OBX"]
    fields = {field["location"]: field["repetitions"] for s in message["segments"] for field in s["fields"]}
    assert fields["MSH-2"] == [["^~\\&"]]
    assert fields["PID-3"] == [["MRN-1", "", "", "POLYCLINIC", "MR"], ["77", "", "", "LAB", "PI"]]
    assert fields["PID-5"] == [["Test^ova", "Anna"]]
    assert fields["OBX-5"] == [["5.10"]]
    assert message["unread_segments"] == ["ZXX"]
    [report] = message["groups"][0]["reports"]
    assert (report["filler_order_number"], report["status"]) == ("F-1", "final")
    assert [(o["code"], o["value"], o["units"]) for o in report["observations"]] == [
        ("GLU", "5.10", "mmol/L")
    ]


async def test_codes_that_nobody_has_mapped_are_listed_and_not_written_down(lab: Laboratory, compose) -> None:
    message = compose("OBR|1||F-1|GLU^Glucose^L", "OBX|1|NM|GLU^Glucose^L||5.10|mmol/L|||||F")
    [validated] = await validate(lab, message)
    assert [(code["kind"], code["code"]) for code in validated["unmapped_codes"]] == [("test", "GLU")]
    assert await lab.rows(intake_table) == []
    unmapped = await lab.get("/v1/lab/unmapped-codes", "system-administrator")
    assert unmapped["items"] == []


@pytest.mark.parametrize(
    ("segment", "place"),
    [
        ("PID|1", "PID-3"),
        ("PID|1||77", "PID-3.4"),
        ("PID|1||77^^^LAB||||1990", None),
        ("PID|1||77^^^LAB||||19901340", "PID-7"),
        ("OBR|2||F-1||||yesterday", "OBR-4"),
        ("OBR|2||F-1|GLU|||yesterday|||||||||||||||||||F", "OBR[2]-7"),
        ("OBX|1|NM|GLU||5,1|mmol/L|||||F", "OBX-5"),
        ("OBX|1|NM|GLU||5.1||||||F", "OBX-6"),
        ("OBX|1|XX|GLU||5.1||||||F", "OBX-2"),
        ("OBX|1|ST|||5.1||||||F", "OBX-3"),
        ("OBX|1|ST|GLU||5.1", "OBX-11"),
        ("OBX|1|ED|PDF||LIS^AP^PDF^Base64^%%%||||||F", "OBX-5.5"),
        ("OBX|1|ED|PDF||LIS^AP^PDF^Base64^JVBERg==||||||F", None),
    ],
)
def test_findings_have_a_place_and_a_fix(compose, segment, place) -> None:
    [assessed] = assess(compose("OBR|1||F-0|X|||||||||||||||||||||F", segment)).messages
    found = list(review(assessed.message))
    if place is None:
        assert found == []
    else:
        assert place.replace("OBR-4", "OBR[2]-4") in [finding.location.path() for finding in found]
    assert all(len(fix_of(finding)) > 10 for finding in found)


async def test_what_refuses_a_message_has_a_fix_too(lab: Laboratory, compose) -> None:
    [message] = await validate(lab, compose(msh={9: "ADT^A01", 10: "", 12: "3"}))
    errors = [(f["location"], f["fix"]) for f in message["findings"] if f["severity"] == "E"]
    assert [location for location, _ in errors] == ["MSH-9.1", "MSH-10", "MSH-12"]
    assert len({fix for _, fix in errors}) == 3
    assert (message["answer_code"], message["groups"]) == ("AR", [])


async def test_in_test_mode_it_is_matched_in_the_sandbox(lab: Laboratory, compose) -> None:
    await lab.add_patient()
    await lab.lab.http.put(
        f"/v1/lab/partners/{lab.partner_id}",
        json={"test_mode": True},
        headers=lab.headers("system-administrator"),
    )
    await lab.lab.runtime.get(PartnerDirectory).refresh()
    real, sandbox = [
        compose(f"PID|1||{number}^^^POLYCLINIC^MR", "OBR|1||F-1|X", msh={11: "T"})
        for number in ("MRN-1", "SANDBOX-0002")
    ]
    [message] = await validate(lab, real)
    assert (message["groups"][0]["matched"], message["groups"][0]["reason"]) == (False, "unmatched")
    [message] = await validate(lab, sandbox)
    assert message["groups"][0]["sandbox_number"] == "SANDBOX-0002"


def test_a_review_has_an_end(compose) -> None:
    [assessed] = assess(compose(*["OBX|1"] * 1500)).messages
    assert len(list(review(assessed.message))) == MOST_FINDINGS


async def test_every_real_message_can_be_validated(lab: Laboratory, corpus: Path) -> None:
    validated = 0
    for payload in payloads(corpus):
        try:
            assessed = assess(payload).messages
        except UnreadablePayloadError:
            continue
        found = await validate(lab, payload)
        assert [m["control_id"] for m in found] == [m.header.control_id for m in assessed]
        assert all(finding["fix"] for message in found for finding in message["findings"])
        validated += len(found)
    assert validated > 40
    assert await lab.rows(intake_table) == []


def test_segments_that_nobody_reads_are_listed(compose) -> None:
    [assessed] = assess(compose("OBR|1", "ZPI|x", "DG1|1", "NK1|1")).messages
    assert unread_segments(assessed.message) == ("DG1", "NK1", "ZPI")


async def validate_bundle(lab: Laboratory, document: Any) -> Any:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    answer = await lab.lab.http.post(
        f"{MESSAGES}/validate",
        content=body,
        headers={"content-type": "application/fhir+json; charset=utf-8"},
        auth=(lab.client_id, lab.secret),
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["messages"] == []
    assert await lab.rows(intake_table) == []
    return answer.json()["bundle"]


async def test_a_bundle_is_told_what_it_would_be_answered_and_whom_it_matches(
    lab: Laboratory, fhir_bundle: FhirBundle
) -> None:
    patient_id = await lab.add_patient()
    valid = await validate_bundle(lab, fhir_bundle())
    assert (valid["status"], valid["answer"]["type"]) == (200, "transaction-response")
    [group] = valid["groups"]
    assert (group["matched"], group["patient_id"]) == (True, None), (
        "a laboratory isn't shown our patients' ids"
    )
    [report] = group["reports"]
    assert [o["value"] for o in report["observations"]] == ["5.1"]
    assert str(patient_id) not in json.dumps(valid)


async def test_a_refused_bundle_has_all_its_findings_with_their_paths_and_fixes(
    lab: Laboratory, fhir_bundle: FhirBundle
) -> None:
    document = fhir_bundle()
    document["entry"][0]["resource"] |= {"status": None, "code": None}
    valid = await validate_bundle(lab, document)
    assert (valid["status"], valid["answer"]["resourceType"]) == (422, "OperationOutcome")
    errors = {f["location"]: f["fix"] for f in valid["findings"] if f["severity"] == "E"}
    report = next(path for path in errors if path.endswith(".status")).removesuffix(".status")
    assert errors.keys() == {f"{report}.status", f"{report}.code"}
    assert set(errors.values()) == {"Give this element."}
    issues = valid["outcome"]["issue"]
    assert {i["expression"][0] for i in issues if i["severity"] == "error"} == errors.keys()


@pytest.mark.parametrize("body", [b"[]", b'{"resourceType":"Patient"}'])
async def test_what_is_no_bundle_is_told_so(lab: Laboratory, body: bytes) -> None:
    valid = await validate_bundle(lab, body)
    assert (valid["status"], valid["control_id"], valid["groups"]) == (400, None, [])
    assert valid["answer"] == valid["outcome"]
    assert [finding["location"] for finding in valid["findings"]] == ["Bundle"]


async def test_the_codes_of_a_bundle_that_nobody_has_mapped_are_listed(
    lab: Laboratory, fhir_bundle: FhirBundle
) -> None:
    document = fhir_bundle()
    for entry in document["entry"]:
        if entry["resource"]["resourceType"] == "Observation":
            entry["resource"]["code"] = {"coding": [{"system": "https://lab.example.org", "code": "GLU"}]}
    valid = await validate_bundle(lab, document)
    assert [code["code"] for code in valid["unmapped_codes"]] == ["GLU"]
