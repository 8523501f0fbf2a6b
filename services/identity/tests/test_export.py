"""What identity contributes to a patient's export."""

import json

from clinic_shared.ids import uuid7
from clinic_shared.testing_exports import exported

from .conftest import Network


async def test_a_patients_login_and_sessions_without_secrets(network: Network) -> None:
    patient_id = await network.know_patient()
    body = {"patient_id": str(patient_id), "login": "anna.testova@example.org"}
    invited = await network.post("/v1/users/patients", body, by=network.identity.principal("registrar"))
    await network.session_of(body["login"], invited.json()["initial_password"])
    part = await exported(network.identity, patient_id)
    assert [one["login"] for one in part.others["logins"]] == [body["login"]]
    assert len(part.others["sessions"]) == 1
    assert "password" not in json.dumps(dict(part.others))
    assert (await exported(network.identity, uuid7())).others["logins"] == []
