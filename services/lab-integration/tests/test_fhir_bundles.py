"""What is read out of a Bundle, what refuses it, and where each issue is."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from clinic_lab_integration.fhir import UnreadableBundleError, assess_bundle
from clinic_lab_integration.hl7 import ResultStatus

from .conftest import FhirBundle


def assess(document: Any, **options: Any) -> Any:
    return assess_bundle(json.dumps(document).encode(), **options)


def errors(bundle: Any) -> list[tuple[str, str]]:
    return [(issue.code, issue.path) for issue in bundle.issues if issue.severity == "error"]


def test_a_report_with_its_observations_is_read(fhir_bundle: FhirBundle) -> None:
    bundle = assess(fhir_bundle())
    (patient,) = bundle.report.patients
    (order,) = patient.orders
    (observation,) = order.observations
    assert errors(bundle) == []
    assert [(i.value, i.namespace) for i in patient.identifiers] == [("MRN-1", "POLYCLINIC")]
    assert (patient.family_name, patient.given_name, patient.sex) == ("Testova", "Anna", "F")
    assert (order.status, order.filler.value) == (ResultStatus.FINAL, "FILLER-1")
    assert (observation.code.first.code, observation.values[0].text) == ("2345-7", "5.1")
    assert observation.reference_range == "3.9-6.1"
    assert observation.units.first.code == "mmol/L"


def test_decimals_are_kept_as_they_are_written(fhir_bundle: FhirBundle) -> None:
    raw = json.dumps(fhir_bundle()).replace(": 5.1,", ": 0.0100,")
    (patient,) = assess_bundle(raw.encode()).report.patients
    assert patient.orders[0].observations[0].values[0].text == "0.0100"


@pytest.mark.parametrize("how", ["contained", "urn", "relative", "absolute"])
def test_observations_are_found_however_they_are_referred_to(fhir_bundle: FhirBundle, how: str) -> None:
    document = fhir_bundle()
    report, entry = document["entry"][0]["resource"], document["entry"][1]
    if how == "contained":
        report["contained"] = [{**entry["resource"], "id": "glucose"}]
        report["result"] = [{"reference": "#glucose"}]
        del document["entry"][1]
    elif how == "relative":
        entry["resource"]["id"] = "glucose"
        report["result"] = [{"reference": "Observation/glucose/_history/2"}]
    elif how == "absolute":
        entry["fullUrl"] = "https://lab.example.org/fhir/Observation/7"
        report["result"] = [{"reference": "https://lab.example.org/fhir/Observation/7"}]
    bundle = assess(document)
    assert errors(bundle) == []
    assert len(bundle.report.patients[0].orders[0].observations) == 1


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (("status",), None, ("required", "Bundle.entry[0].resource.status")),
        (("status",), "done", ("value", "Bundle.entry[0].resource.status")),
        (("code",), None, ("required", "Bundle.entry[0].resource.code")),
        (("subject",), None, ("required", "Bundle.entry[0].resource.subject")),
        (("issued",), "yesterday", ("value", "Bundle.entry[0].resource.issued")),
        (("issued",), "2026-01-15T10:00:00", ("value", "Bundle.entry[0].resource.issued")),
        (
            ("result",),
            [{"reference": "Observation/x"}],
            ("not-found", "Bundle.entry[0].resource.result[0].reference"),
        ),
        (("result",), {}, ("structure", "Bundle.entry[0].resource.result")),
        (("result",), ["x"], ("structure", "Bundle.entry[0].resource.result[0]")),
    ],
)
def test_what_a_report_needs_is_checked_hard(fhir_bundle: FhirBundle, place, value, expected) -> None:
    document = fhir_bundle()
    document["entry"][0]["resource"][place[0]] = value
    bundle = assess(document)
    assert expected in errors(bundle)
    assert bundle.is_refused


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "ok"}, ("value", "Bundle.entry[1].resource.status")),
        ({"code": {"coding": []}}, ("required", "Bundle.entry[1].resource.code")),
        ({"valueQuantity": {"value": "5.1"}}, ("value", "Bundle.entry[1].resource.valueQuantity.value")),
        ({"valueQuantity": {}}, ("required", "Bundle.entry[1].resource.valueQuantity.value")),
        ({"valueString": "high"}, ("structure", "Bundle.entry[1].resource.value")),
        (
            {"subject": {"reference": "urn:uuid:other"}},
            ("business-rule", "Bundle.entry[1].resource.subject.reference"),
        ),
        ({"effectiveDateTime": "2026-02-30"}, ("value", "Bundle.entry[1].resource.effectiveDateTime")),
    ],
)
def test_what_an_observation_needs_is_checked_hard(fhir_bundle: FhirBundle, changes, expected) -> None:
    document = fhir_bundle()
    document["entry"][1]["resource"] |= changes
    document["entry"].append(
        {"fullUrl": "urn:uuid:other", "resource": {"resourceType": "Patient"}, "request": {"method": "POST"}}
    )
    bundle = assess(document)
    assert expected in errors(bundle)
    assert bundle.is_refused


@pytest.mark.parametrize(
    ("entry", "name", "value"),
    [
        (2, "name", "Testova"),
        (2, "birthDate", "unknown"),
        (2, "identifier", [{"value": 7}]),
        (0, "specimen", [{"reference": "Specimen/none"}]),
        (0, "conclusionCode", "x"),
        (1, "note", "x"),
        (0, "meta", {"profile": ["https://lab.example.org/profile"]}),
    ],
)
def test_what_surrounds_a_result_is_reported_and_refuses_nothing(
    fhir_bundle: FhirBundle, entry, name, value
) -> None:
    document = fhir_bundle()
    document["entry"][entry]["resource"][name] = value
    bundle = assess(document)
    assert errors(bundle) == []
    assert len(bundle.report.patients) == 1


def test_resources_of_other_types_are_named(fhir_bundle: FhirBundle) -> None:
    document = fhir_bundle()
    document["entry"].append({"resource": {"resourceType": "Claim"}, "request": {"method": "POST"}})
    bundle = assess(document)
    assert [issue.path for issue in bundle.issues] == ["Bundle.entry[3].resource"]
    assert not bundle.is_refused


def test_reports_of_one_patient_are_one_group_and_of_two_are_two(fhir_bundle: FhirBundle) -> None:
    document = fhir_bundle()
    second = json.loads(json.dumps(document["entry"][0])) | {"fullUrl": "urn:uuid:second"}
    document["entry"].append(second)
    assert [len(p.orders) for p in assess(document).report.patients] == [2]
    second["resource"]["subject"] = {"identifier": {"value": "MRN-2"}}
    document["entry"][1]["resource"].pop("subject")
    assert [len(p.orders) for p in assess(document).report.patients] == [1, 1]


def test_panels_components_and_documents_are_observations_of_their_own(fhir_bundle: FhirBundle) -> None:
    document = fhir_bundle()
    report, panel = document["entry"][0]["resource"], document["entry"][1]["resource"]
    panel["hasMember"] = [{"reference": "urn:uuid:pressure"}, {"reference": panel_url(document)}]
    pressure = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "Blood pressure"},
        "component": [
            {"code": {"text": "Systolic"}, "valueInteger": 120},
            {"code": {"text": "Diastolic"}, "valueString": "80"},
        ],
    }
    document["entry"].append(
        {"fullUrl": "urn:uuid:pressure", "resource": pressure, "request": {"method": "POST"}}
    )
    report["presentedForm"] = [{"contentType": "application/pdf", "data": "JVBERg==", "title": "Report"}]
    (patient,) = assess(document).report.patients
    read = [(o.code.text, o.value_type, o.values[0].text) for o in patient.orders[0].observations]
    assert read == [
        ("2345-7", "NM", "5.1"),
        ("Systolic", "NM", "120"),
        ("Diastolic", "ST", "80"),
        ("Glucose", "ED", "application/pdf"),
    ]


def panel_url(document: dict[str, Any]) -> str:
    return str(document["entry"][1]["fullUrl"])


def test_the_number_of_the_order_is_read(fhir_bundle: FhirBundle) -> None:
    document = fhir_bundle()
    report = document["entry"][0]["resource"]
    report["basedOn"] = [{"identifier": {"value": "ORDER-1", "assigner": {"display": "POLYCLINIC"}}}]
    del report["subject"], document["entry"][1]["resource"]["subject"]
    bundle = assess(document)
    assert errors(bundle) == []
    placer = bundle.report.patients[0].orders[0].placer
    assert (placer.value, placer.authority) == ("ORDER-1", "POLYCLINIC")


def test_a_batch_is_judged_entry_by_entry(fhir_bundle: FhirBundle) -> None:
    document = fhir_bundle(kind="batch")
    wrong = json.loads(json.dumps(document["entry"][0])) | {"fullUrl": "urn:uuid:wrong"}
    wrong["resource"]["status"] = "?"
    document["entry"].append(wrong)
    document["entry"].append({"resource": {"resourceType": "Patient"}, "request": {"method": "DELETE"}})
    bundle = assess(document)
    assert [len(p.orders) for p in bundle.report.patients] == [1]
    assert bundle.refused == {3, 4}
    assert assess({**document, "type": "transaction"}).is_refused


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b'{"resourceType":"Patient"}',
        b"\xff",
        b"MSH|",
        b'{"a":1,"a":2}',
        b"[" * 9999,
    ],
)
def test_what_is_no_bundle_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableBundleError):
        assess_bundle(body)


@pytest.mark.parametrize(
    ("test_mode", "marked", "refused"),
    [
        (None, True, False),
        (None, False, False),
        (True, False, True),
        (True, True, False),
        (False, True, True),
    ],
)
def test_tests_and_production_are_not_mixed(fhir_bundle: FhirBundle, test_mode, marked, refused) -> None:
    document = fhir_bundle()
    if marked:
        document["meta"] = {"tag": [{"code": "HTEST"}]}
    bundle = assess(document, test_mode=test_mode)
    assert (bundle.is_test, bundle.is_refused) == (marked, refused)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_sent_is_judged(fhir_bundle: FhirBundle, seed: int) -> None:
    """Values of every JSON type in every place: an answer, never an exception."""
    rng = random.Random(seed)
    for _ in range(40):
        document = fhir_bundle(kind=rng.choice(["batch", "transaction"]))
        for _ in range(rng.randint(1, 4)):
            _spoil(document, rng)
        raw = json.dumps(document).encode()
        try:
            bundle = assess_bundle(raw)
        except UnreadableBundleError:
            continue
        assert bundle.is_refused or bundle.report.patients


def _spoil(value: Any, rng: random.Random) -> None:
    odd: list[Any] = [None, "", "x", 0, -1.5, True, [], {}, [None], [[]], {"a": "b"}, ["x"], "\u0416" * 300]
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.8:
        _spoil(value[key], rng)
    else:
        value[key] = rng.choice(odd)


def test_every_resource_of_others_is_judged(corpus: Path) -> None:
    judged = 0
    for file in sorted((corpus.parent / "fhir-r4").rglob("*.json")):
        resource = json.loads(file.read_text(encoding="utf-8"))
        bundles = [{**resource, "type": kind} for kind in ("transaction", "batch")]
        if resource["resourceType"] != "Bundle":
            entry = {"resource": resource, "request": {"method": "POST"}}
            bundles = [{"resourceType": "Bundle", "type": "transaction", "entry": [entry]}]
        for bundle in bundles:
            judged += 1
            found = assess(bundle)
            assert found.is_refused == bool(errors(found)), file.name
    assert judged > 15
    lipids = json.loads((corpus.parent / "fhir-r4" / "spec-examples" / "Bundle-lipids.json").read_text())
    (patient,) = assess({**lipids, "type": "transaction"}).report.patients
    values = [(o.values[0].text, o.reference_range) for o in patient.orders[0].observations]
    assert values == [("6.3", "<4.5"), ("1.3", "<2.0"), ("1.3", ">1.5"), ("4.6", "<3.0")]
