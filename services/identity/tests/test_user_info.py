"""Who logged in, for the app that asks with their access token; and SMART's names for what patients lend."""

from typing import Any

import pytest

from .apps import PUBLIC_APP, App, Page
from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Network

LOGIN = "anna.testova@example.org"
WHOLE_RECORD = {
    "patients.read", "chart.read", "results.read", "appointments.read", "referrals.read", "consents.read",
    "invoices.read",
}  # fmt: skip
USER_INFO = "/oauth2/userinfo"


@pytest.fixture
async def app(network: Network) -> App:
    scopes = ["patient/*.rs", "patient/Appointment.rs", "patient/Patient.read", "appointments.book"]
    answer = await network.post("/v1/clients", {**PUBLIC_APP, "user_scopes": scopes})
    assert answer.status_code == 201, answer.text
    return App(network)


@pytest.fixture
async def patient(network: Network) -> tuple[str, str, str]:
    patient_id = await network.know_patient()
    invited = await network.post(
        "/v1/users/patients",
        {"patient_id": str(patient_id), "login": LOGIN},
        by=network.identity.principal("registrar"),
    )
    return LOGIN, invited.json()["initial_password"], str(patient_id)


async def permissions(network: Network, tokens: dict[str, Any]) -> frozenset[str]:
    return (await network.identity.runtime.verifier.verify(tokens["access_token"])).scopes


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_app_learns_who_logged_in_and_nothing_else(
    network: Network, app: App, patient: tuple[str, str, str], method: str
) -> None:
    login, password, patient_id = patient
    tokens = await app.tokens(login, password, scope="openid fhirUser patient/*.rs")
    answer = await network.with_token(method, USER_INFO, tokens["access_token"])
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store"), answer.text
    told = answer.json()
    assert told.keys() == {"sub", "fhirUser"}
    assert told["fhirUser"].endswith(f"/fhir/R4/Patient/{patient_id}")
    without = await app.tokens(login, password, scope="openid")
    answer = await network.with_token(method, USER_INFO, without["access_token"])
    assert answer.json() == {"sub": told["sub"]}


async def test_whoever_did_not_ask_for_openid_is_told_nothing(
    network: Network, app: App, patient: tuple[str, str, str]
) -> None:
    tokens = await app.tokens(*patient[:2], scope="patient/*.rs")
    own = await network.session_of(*patient[:2])
    for token in (tokens["access_token"], own["access_token"]):
        assert (await network.with_token("GET", USER_INFO, token)).status_code == 403
    assert (await network.identity.http.get(USER_INFO)).status_code == 401


async def test_after_the_session_ended_nothing_is_told(
    network: Network, app: App, patient: tuple[str, str, str]
) -> None:
    tokens = await app.tokens(*patient[:2], scope="openid")
    own = await network.session_of(*patient[:2])
    for session in (await network.with_token("GET", "/v1/sessions", own["access_token"])).json():
        if not session["current"]:
            path = f"/v1/sessions/{session['session_id']}"
            await network.with_token("DELETE", path, own["access_token"])
    assert (await network.with_token("GET", USER_INFO, tokens["access_token"])).status_code == 401


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("patient/*.rs", WHOLE_RECORD),
        ("patient/Appointment.rs", {"appointments.read"}),
        ("patient/Patient.read appointments.book", {"patients.read", "appointments.book"}),
    ],
)
async def test_a_patient_lends_what_smart_s_scopes_mean_and_no_more(
    network: Network, app: App, patient: tuple[str, str, str], scope: str, expected: set[str]
) -> None:
    tokens = await app.tokens(*patient[:2], scope=f"{scope} offline_access")
    assert set(tokens["scope"].split()) == {*scope.split(), "offline_access"}
    assert await permissions(network, tokens) == expected
    refreshed = (await app.refresh(tokens["refresh_token"], scope=scope)).json()
    assert await permissions(network, refreshed) == expected


async def test_the_page_says_in_words_what_smart_s_scopes_open(app: App) -> None:
    said = Page(await app.open(scope="patient/*.rs")).answer.text
    assert "patient/*.rs" not in said
    assert said.count("<li>") == len(WHOLE_RECORD)


async def test_staff_have_no_record_of_their_own_to_lend(network: Network, app: App) -> None:
    tokens = await app.tokens(ADMIN_LOGIN, ADMIN_PASSWORD, scope="openid patient/*.rs")
    assert tokens["scope"] == "openid"
    assert await permissions(network, tokens) == frozenset()


@pytest.mark.parametrize("scope", ["patient/Observation.rs", "user/*.rs", "patient/*.cruds", "system/*.rs"])
async def test_what_can_not_be_kept_apart_is_not_offered(network: Network, scope: str) -> None:
    refused = await network.post("/v1/clients", {**PUBLIC_APP, "user_scopes": [scope]})
    assert (refused.status_code, refused.json()["unknown"]) == (422, [scope])


async def test_discovery_names_both(network: Network) -> None:
    http = network.identity.http
    openid = (await http.get("/.well-known/openid-configuration")).json()
    assert openid["userinfo_endpoint"].endswith(USER_INFO)
    smart = (await http.get("/.well-known/smart-configuration")).json()
    assert "permission-patient" in smart["capabilities"]
    assert "patient/*.rs" in smart["scopes_supported"]
