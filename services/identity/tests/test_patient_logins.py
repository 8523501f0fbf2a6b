"""Patients' logins: given by the front desk, and good for one patient's data only."""

import asyncio

import pytest
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from .conftest import Network
from .test_login import claims_in

LOGIN = "+7 000 000 00 01"


@pytest.fixture
def registrar(network: Network) -> Principal:
    return network.identity.principal("registrar")


async def test_a_patient_is_invited_and_reaches_their_own_data_only(
    network: Network, registrar: Principal
) -> None:
    patient_id = await network.know_patient()
    body = {"patient_id": str(patient_id), "login": LOGIN}
    invited = await network.post("/v1/users/patients", body, by=registrar)
    assert invited.status_code == 201, invited.text
    assert invited.json()["login"] == "+70000000001"
    session = await network.session_of(LOGIN, invited.json()["initial_password"])
    claims = claims_in(session["access_token"])
    assert (claims["kind"], claims["roles"], claims["patient"]) == ("patient", ["patient"], str(patient_id))
    assert (claims["network"], claims["centres"]) == (False, [])
    me = await network.with_token("GET", "/v1/me", session["access_token"])
    assert (me.json()["patient_id"], me.json()["name"]) == (str(patient_id), None)
    # and sees nothing of the staff
    assert (await network.with_token("GET", "/v1/staff", session["access_token"])).status_code == 403


async def test_a_patient_who_is_not_known_yet_may_be_soon(network: Network, registrar: Principal) -> None:
    body = {"patient_id": str(uuid7()), "login": LOGIN}
    answer = await network.post("/v1/users/patients", body, by=registrar)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/reference-not-yet-known")
    assert answer.headers["Retry-After"] == "1"


async def test_a_patient_has_one_login_and_a_login_one_patient(
    network: Network, registrar: Principal
) -> None:
    first, second = await network.know_patient(), await network.know_patient()
    bodies = [
        {"patient_id": str(first), "login": "one@example.org"},
        {"patient_id": str(first), "login": "two@example.org"},
    ]
    answers = await asyncio.gather(
        *(network.post("/v1/users/patients", body, by=registrar) for body in bodies)
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    [refused] = [answer.json() for answer in answers if answer.status_code == 409]
    assert refused["type"] == "/problems/patient-has-login"
    [taken] = [answer.json()["login"] for answer in answers if answer.status_code == 201]
    third = await network.post(
        "/v1/users/patients", {"patient_id": str(second), "login": taken}, by=registrar
    )
    assert (third.status_code, third.json()["type"]) == (409, "/problems/login-taken")


async def test_a_login_that_is_neither_address_nor_number_is_refused(
    network: Network, registrar: Principal
) -> None:
    patient_id = await network.know_patient()
    answer = await network.post(
        "/v1/users/patients", {"patient_id": str(patient_id), "login": "anna"}, by=registrar
    )
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-login")
    assert "anna" not in answer.text


async def test_a_patients_password_is_renewed_and_their_login_taken_away(
    network: Network, registrar: Principal
) -> None:
    patient_id = await network.know_patient()
    invited = await network.post(
        "/v1/users/patients", {"patient_id": str(patient_id), "login": LOGIN}, by=registrar
    )
    session = await network.session_of(LOGIN, invited.json()["initial_password"])
    path = f"/v1/users/patients/{patient_id}"
    renewed = await network.post(f"{path}/initial-password", by=registrar)
    assert renewed.status_code == 200, renewed.text
    assert (await network.refresh(session["refresh_token"])).status_code == 401
    fresh = await network.session_of(LOGIN, renewed.json()["initial_password"])
    assert (await network.post(f"{path}/deactivate", by=registrar)).status_code == 204
    assert (await network.refresh(fresh["refresh_token"])).status_code == 401
    assert (await network.log_in(LOGIN, renewed.json()["initial_password"])).status_code == 401
    assert (await network.post(f"{path}/deactivate", by=registrar)).status_code == 409
    revoked = await network.identity.events("identity.session-revoked.v1")
    assert [event.data["principal_kind"] for event in revoked] == ["patient", "patient"]


async def test_a_patient_without_a_login_has_none_to_change(network: Network, registrar: Principal) -> None:
    patient_id = await network.know_patient()
    for action in ("initial-password", "deactivate"):
        answer = await network.post(f"/v1/users/patients/{patient_id}/{action}", by=registrar)
        assert answer.status_code == 404


async def test_the_patient_stands_in_the_audit_record(network: Network, registrar: Principal) -> None:
    patient_id = await network.know_patient()
    await network.post("/v1/users/patients", {"patient_id": str(patient_id), "login": LOGIN}, by=registrar)
    [record] = await network.audit(patient=str(patient_id))
    assert (record["action"], record["entity"]["type"]) == ("C", "Account")
    assert "+7000" not in str(record)
