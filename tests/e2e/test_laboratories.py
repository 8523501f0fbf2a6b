"""The ways in of laboratories, on the whole system: over each a result ends in the chart."""

import json
from collections.abc import Callable

import httpx
import pytest
from clinic_local.api_client import Caller
from clinic_local.demo_network import Network
from clinic_local.paths import CHECKOUT
from clinic_local.testing import System
from clinic_shared.testing import eventually

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900)]

NUMBER = "FHIR-LAB-0001"


def is_in_the_chart(doctor: Caller, message: str) -> bool:
    return [unit["disposition"] for unit in doctor.get(message)["units"]] == ["applied"]


def newest_of(doctor: Caller, control_id: str) -> str | None:
    found = doctor.get("/v1/lab/messages")["items"]
    return next((message["message_id"] for message in found if message["control_id"] == control_id), None)


async def test_hl7_over_mllp(system: System, network: Network, as_person: Callable[[str], Caller]) -> None:
    sent = system.clinic("lab", "send", str(CHECKOUT / "contracts" / "hl7" / "panel.hl7"), "--mllp")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert "MSA|AA|PANEL-0001" in sent.stdout
    doctor = as_person("dermatologist")
    newest = await eventually(lambda: newest_of(doctor, "PANEL-0001"), within_seconds=90)
    await eventually(lambda: is_in_the_chart(doctor, f"/v1/lab/messages/{newest}"), within_seconds=90)


async def test_a_fhir_bundle(system: System, network: Network, as_person: Callable[[str], Caller]) -> None:
    person = {
        "centre_id": network.centre_id,
        "name": {"family": "Testova", "given": "Maria"},
        "birth_on": "1991-02-03",
        "sex": "female",
        "identifiers": [{"authority": "FHIR-LAB", "type": "PI", "value": NUMBER}],
    }
    patient = as_person("registrar").post("/v1/patients", person)
    observation = {
        "resourceType": "Observation",
        "id": "glucose",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7", "display": "Glucose"}]},
        "valueQuantity": {"value": 5.1, "unit": "mmol/L"},
    }
    report = {
        "resourceType": "DiagnosticReport",
        "identifier": [{"value": "FHIR-REPORT-0001"}],
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7", "display": "Glucose"}]},
        "subject": {"identifier": {"value": NUMBER, "assigner": {"display": "FHIR-LAB"}}},
        "contained": [observation],
        "result": [{"reference": "#glucose"}],
    }
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [{"resource": report, "request": {"method": "POST", "url": "DiagnosticReport"}}],
    }
    lab = (network.lab_client_id, network.lab_client_secret)
    async with httpx.AsyncClient(base_url=system.url, auth=lab, timeout=60, trust_env=False) as http:
        answer = await http.post(
            "/fhir/R4",
            content=json.dumps(bundle).encode(),
            headers={"Content-Type": "application/fhir+json"},
        )
    assert answer.status_code == 200, answer.text
    doctor = as_person("dermatologist")

    message = answer.headers["location"]
    await eventually(lambda: is_in_the_chart(doctor, message), within_seconds=90)
    # Nobody has ordered it, so it is in nobody's care yet.
    emergency = {"reason_code": "emergency", "reason": "Fictitious emergency"}
    doctor.post(f"/v1/patients/{patient['patient_id']}/break-glass", emergency)
    [result] = doctor.items(f"/v1/patients/{patient['patient_id']}/observations")
    assert result["versions"][0]["observations"][0]["value"] == "5.1"
