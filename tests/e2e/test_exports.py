"""A patient takes out what all services hold about them: asked for, gathered and sent over the real broker."""

import base64
import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from clinic_local.api_client import Caller
from clinic_local.testing import System
from clinic_shared.testing import eventually

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900)]

RESOURCES = {
    "Patient",
    "Encounter",
    "Condition",
    "DiagnosticReport",
    "Appointment",
    "ServiceRequest",
    "Invoice",
    "Communication",
}


def documents(bundle: dict[str, Any]) -> dict[str, Any]:
    """Return what FHIR has no resources for, by name."""
    found = [entry["resource"] for entry in bundle["entry"]]
    return {
        one["description"]: json.loads(base64.b64decode(one["content"][0]["attachment"]["data"]))
        for one in found
        if one["resourceType"] == "DocumentReference" and "description" in one
    }


async def test_a_patient_takes_out_what_every_service_holds_and_every_access(
    system: System, journey: subprocess.CompletedProcess[str], as_person: Callable[[str], Caller]
) -> None:
    told = re.search(r"PatientRegistered\s+([0-9a-f-]{36})", journey.stdout)
    assert told, journey.stdout + journey.stderr
    record = f"/v1/patients/{told[1]}"
    given = as_person("registrar").post(f"/v1/users/patients/{told[1]}/initial-password")
    with Caller(system.url, given["login"], given["initial_password"]) as patient:

        def accesses() -> set[int]:
            return {seen["leaf_index"] for seen in patient.items(f"{record}/access-log")}

        before = await eventually(accesses, within_seconds=120)
        asked = patient.post(f"{record}/exports")
        export = f"{record}/exports/{asked['export_id']}"
        await eventually(lambda: patient.get(export)["state"] == "ready", within_seconds=240)
        assert set(patient.get(export)["parts"].values()) == {"included"}
        assert len(patient.get(export)["parts"]) == 8
        bundle = patient.get(f"{export}/bundle")
        paper = patient.send("GET", f"{export}/document")
    assert {entry["resource"]["resourceType"] for entry in bundle["entry"]} >= RESOURCES
    attached = documents(bundle)
    assert {"manifest", "billing.payments", "identity.logins", "audit.access-log"} <= attached.keys()
    assert {seen["leaf_index"] for seen in attached["audit.access-log"]} >= before
    assert not [said for said in attached["manifest"]["left_out"] if isinstance(said, dict)]
    assert paper.content.startswith(b"%PDF")
