"""People log in for an app: authorization codes with PKCE, and the page on which it happens."""

import asyncio
from typing import Any

import httpx
import pytest
from clinic_identity.oauth_domain import RedirectUriRefusedError, check_redirect_uri
from clinic_shared.testing import ISSUER
from joserfc import jwt
from joserfc.jwk import KeySet

from .apps import ALL_SCOPES, CALLBACK, LOOPBACK, PUBLIC_APP, App, Page, answer_to_app
from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Network
from .factors import enrol_app
from .test_login import claims_in

PATIENT_LOGIN = "+70000000001"


@pytest.fixture
async def app(network: Network) -> App:
    made = await network.post("/v1/clients", PUBLIC_APP)
    assert made.status_code == 201, made.text
    assert made.json()["client_secret"] is None
    return App(network)


@pytest.fixture
async def patient(network: Network) -> tuple[str, str, str]:
    """Return login, password and patient id of somebody who can log in."""
    patient_id = await network.know_patient()
    invited = await network.post(
        "/v1/users/patients",
        {"patient_id": str(patient_id), "login": PATIENT_LOGIN},
        by=network.identity.principal("registrar"),
    )
    assert invited.status_code == 201, invited.text
    return PATIENT_LOGIN, invited.json()["initial_password"], str(patient_id)


async def test_a_patient_lets_an_app_in(network: Network, app: App, patient: tuple[str, str, str]) -> None:
    login, password, patient_id = patient
    told = answer_to_app(await app.log_in(login, password))
    assert told.keys() == {"code", "state", "iss"}
    assert (told["state"], told["iss"]) == ("state of the app", ISSUER)
    answer = await app.redeem(told["code"])
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store"), answer.text
    tokens = answer.json()
    assert (tokens["patient"], tokens["expires_in"]) == (patient_id, 300)
    assert set(tokens["scope"].split()) == set(ALL_SCOPES.split())
    principal = await network.identity.runtime.verifier.verify(tokens["access_token"])
    assert principal.scopes == {"appointments.read", "chart.read"}
    assert str(principal.patient_id) == patient_id
    assert claims_in(tokens["access_token"])["client_id"] == "app-mobile"


async def test_the_id_token_says_who_logged_in_how_and_when(
    network: Network, app: App, patient: tuple[str, str, str], clock: Any
) -> None:
    login, password, patient_id = patient
    logged_in_at = int(clock.now().timestamp())
    tokens = await app.tokens(login, password)
    keys = KeySet.import_key_set((await network.identity.http.get("/.well-known/jwks.json")).json())
    token = jwt.decode(tokens["id_token"], keys, algorithms=["ES256"])
    access = claims_in(tokens["access_token"])
    assert token.header["typ"] == "JWT"
    assert token.claims.items() >= {
        ("iss", ISSUER),
        ("sub", access["sub"]),
        ("sid", access["sid"]),
        ("aud", "app-mobile"),
        ("nonce", "nonce of the app"),
        ("auth_time", logged_in_at),
        ("acr", "aal1"),
        ("fhirUser", f"{ISSUER}/fhir/R4/Patient/{patient_id}"),
    }
    assert token.claims["amr"] == ["pwd"]
    assert (await network.with_token("GET", "/v1/sessions", tokens["id_token"])).status_code == 401


async def test_without_openid_and_offline_access_there_is_an_access_token_only(
    app: App, patient: tuple[str, str, str]
) -> None:
    tokens = await app.tokens(*patient[:2], scope="appointments.read", nonce=None)
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "scope"}


async def test_staff_have_no_patient_of_their_own_and_lend_what_they_may_do_themselves(
    network: Network, app: App
) -> None:
    tokens = await app.tokens(ADMIN_LOGIN, ADMIN_PASSWORD)
    assert "patient" not in tokens
    assert set(tokens["scope"].split()) == {"openid", "fhirUser", "offline_access"}
    principal = await network.identity.runtime.verifier.verify(tokens["access_token"])
    assert principal.scopes == set()


async def test_a_code_that_comes_twice_ends_what_it_brought(
    network: Network, app: App, patient: tuple[str, str, str]
) -> None:
    code = await app.code(*patient[:2])
    tokens = (await app.redeem(code)).json()
    again = await app.redeem(code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    [revoked] = await network.identity.events("identity.session-revoked.v1")
    assert revoked.data["session_id"] == claims_in(tokens["access_token"])["sid"]
    assert revoked.data["reason_code"] == "authorization-code-reused"
    assert (await app.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    [record] = [r for r in await network.audit(outcome="4") if r["entity"]["type"] == "Session"]
    assert record["entity"]["id"] == claims_in(tokens["access_token"])["sid"]


async def test_of_many_who_bring_one_code_at_once_nobody_keeps_a_session(
    network: Network, app: App, patient: tuple[str, str, str]
) -> None:
    code = await app.code(*patient[:2])
    answers = await asyncio.gather(*(app.redeem(code) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    assert len(await network.identity.events("identity.session-revoked.v1")) == 1


async def test_a_code_is_for_its_app_its_address_and_its_verifier(
    network: Network, app: App, patient: tuple[str, str, str]
) -> None:
    other = {**PUBLIC_APP, "client_id": "app-other", "redirect_uris": [CALLBACK]}
    assert (await network.post("/v1/clients", other)).status_code == 201
    code = await app.code(*patient[:2])
    for changes in (
        {"code_verifier": "x" * 43},
        {"code_verifier": app.challenge},
        {"redirect_uri": LOOPBACK},
        {"client_id": "app-other"},
        {"code": code + "x"},
    ):
        refused = await app.redeem(**{"code": code, **changes})
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant"), changes
    assert (await app.redeem(code)).status_code == 200


async def test_a_code_lives_for_a_minute(app: App, patient: tuple[str, str, str], clock: Any) -> None:
    early, late = await app.code(*patient[:2]), await app.code(*patient[:2])
    clock.advance(seconds=59)
    assert (await app.redeem(early)).status_code == 200
    clock.advance(seconds=1)
    assert (await app.redeem(late)).json()["error"] == "invalid_grant"


async def test_a_device_of_ones_own_answers_at_any_loopback_port(
    network: Network, app: App, patient: tuple[str, str, str]
) -> None:
    native = App(network, redirect_uri="http://127.0.0.1:52719/callback")
    answer = await native.log_in(*patient[:2])
    assert answer.headers["Location"].startswith("http://127.0.0.1:52719/callback?code=")
    assert (await native.redeem(answer_to_app(answer)["code"])).status_code == 200


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "",
        "https://evil.example.org/callback",
        CALLBACK + "/",
        CALLBACK + "?more=1",
        "https://app.example.org:8443/callback",
        "http://127.0.0.1:1@evil.example.org/callback",
        "http://127.0.0.1:80/other",
        "http://localhost/callback",
        "//app.example.org/callback",
    ],
)
async def test_nobody_is_sent_where_the_app_is_not_registered(app: App, redirect_uri: str) -> None:
    answer = await app.open(redirect_uri=redirect_uri)
    assert (answer.status_code, answer.headers.get("Location")) == (400, None)
    assert Page(answer).forms == []


async def test_a_client_that_nobody_logs_in_for_is_told_so_on_a_page(network: Network, app: App) -> None:
    lab = {"kind": "lab", "name": "Test laboratory", "client_id": "lab-test"}
    assert (await network.post("/v1/clients", lab)).status_code == 201
    for client_id in (None, "app-unknown", "lab-test"):
        assert (await app.open(client_id=client_id)).status_code == 400


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"scope": "openid staff.manage"}, "invalid_scope"),
        ({"scope": "profile.read"}, "invalid_scope"),
        ({"aud": "https://elsewhere.test/fhir"}, "invalid_request"),
        ({"resource": "https://elsewhere.test"}, "invalid_target"),
        ({"prompt": "none"}, "login_required"),
        ({"request": "eyJ"}, "request_not_supported"),
        ({"nonce": "n" * 600}, "invalid_request"),
    ],
)
async def test_the_app_is_told_what_is_wrong_with_its_request(
    app: App, changes: dict[str, str | None], error: str
) -> None:
    told = answer_to_app(await app.open(**changes))
    assert (told["error"], told["state"], told["iss"]) == (error, "state of the app", ISSUER)
    assert "code" not in told


async def test_our_own_resource_may_be_named(app: App) -> None:
    for named in ({"aud": f"{ISSUER}/fhir/R4"}, {"resource": ISSUER}):
        assert (await app.open(**named)).status_code == 200


async def test_the_page_runs_no_script_and_labels_what_it_asks_for(app: App) -> None:
    page = Page(await app.open(login_hint='"><script>alert(1)</script>'))
    policy = page.answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self' https://app.example.org;" in policy
    assert not page.tags & {"script", "img", "iframe"}
    assert page.ids == page.labels == {"login", "password"}
    assert page.forms[0].fields["login"] == '"><script>alert(1)</script>'
    assert "Test &lt;app&gt;" in page.answer.text
    assert "See appointments" in page.answer.text
    assert page.answer.headers["Cache-Control"] == "no-store"


async def test_a_wrong_password_is_asked_for_again_and_a_guesser_waits(
    app: App, patient: tuple[str, str, str]
) -> None:
    answer = await app.log_in(patient[0], "wrong")
    page = Page(answer)
    assert (answer.status_code, page.forms[0].fields["login"]) == (422, patient[0])
    assert "wrong" in answer.text.partition('role="alert"')[2]
    for _ in range(5):
        answer = await app.log_in(patient[0], "wrong")
    assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (429, True)


async def test_a_second_factor_is_asked_for_on_a_page_of_its_own(network: Network, app: App) -> None:
    session = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    phone, codes = await enrol_app(network, session["access_token"])
    network.identity.clock.advance(seconds=30)
    page = Page(await app.log_in(ADMIN_LOGIN, ADMIN_PASSWORD))
    assert page.ids == page.labels == {"totp", "recovery-code"}
    wrong = await app.submit(page.forms[0], code="000000")
    assert wrong.status_code == 422
    right = await app.submit(Page(wrong).forms[0], code=phone.code())
    tokens = (await app.redeem(answer_to_app(right)["code"])).json()
    assert claims_in(tokens["access_token"])["acr"] == "aal2"
    by_recovery = Page(await app.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)).forms[1]
    assert "code" in answer_to_app(await app.submit(by_recovery, code=codes[0]))


async def test_a_form_that_another_site_sends_logs_nobody_in(app: App, patient: tuple[str, str, str]) -> None:
    form = Page(await app.open()).forms[0]
    typed = {"login": patient[0], "password": patient[1]}
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example.org"},
        {"Origin": "null"},
    ):
        refused = await app.submit(form, headers, **typed)
        assert (refused.status_code, refused.headers.get("Location")) == (403, None), headers
    own = {"Sec-Fetch-Site": "same-origin", "Origin": ISSUER}
    assert (await app.submit(form, own, **typed)).status_code == 303


async def test_who_does_not_want_to_is_sent_back(app: App) -> None:
    way_back = Page(await app.open()).forms[1]
    told = answer_to_app(await app.submit(way_back, denied="true"))
    assert (told["error"], told["state"]) == ("access_denied", "state of the app")


async def test_a_device_that_logged_in_before_is_known_by_its_cookie(
    app: App, patient: tuple[str, str, str]
) -> None:
    answer = await app.log_in(*patient[:2])
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-clinic-device=dv_")
    assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))


async def test_an_account_that_is_not_ready_opens_nothing(
    installation: Any, patient: tuple[str, str, str], app: App
) -> None:
    async with installation.start(enforce_password_change=True) as strict:
        answer = await App(Network(strict, strict.principal())).log_in(*patient[:2])
        assert (answer.status_code, answer.headers.get("Location")) == (403, None)
        [ended] = await strict.events("identity.session-revoked.v1")
        assert ended.data["reason_code"] == "login-incomplete"


# -- going on


async def test_an_app_refreshes_its_session_and_a_token_that_comes_twice_ends_it(
    network: Network, app: App, patient: tuple[str, str, str]
) -> None:
    first = await app.tokens(*patient[:2])
    second = (await app.refresh(first["refresh_token"])).json()
    assert set(second["scope"].split()) == set(ALL_SCOPES.split())
    assert claims_in(second["id_token"])["sub"] == claims_in(first["id_token"])["sub"]
    stolen = await app.refresh(first["refresh_token"])
    assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant")
    assert (await app.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"


async def test_an_apps_refresh_token_is_of_use_to_nobody_else(
    network: Network, app: App, patient: tuple[str, str, str]
) -> None:
    other = {**PUBLIC_APP, "client_id": "app-other"}
    assert (await network.post("/v1/clients", other)).status_code == 201
    token = (await app.tokens(*patient[:2]))["refresh_token"]
    thief = App(network, client_id="app-other")
    assert (await thief.refresh(token)).json()["error"] == "invalid_grant"
    assert (await network.refresh(token)).status_code == 401
    assert (await app.refresh(token, scope="staff.manage")).json()["error"] == "invalid_scope"
    assert (await app.refresh(token)).status_code == 200


async def test_ones_own_refresh_token_is_of_no_use_to_an_app(
    network: Network, app: App, patient: tuple[str, str, str]
) -> None:
    own = await network.session_of(*patient[:2])
    assert (await app.refresh(own["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await network.refresh(own["refresh_token"])).status_code == 200


async def test_an_app_that_is_deactivated_or_changed_loses_its_sessions(
    network: Network, app: App, patient: tuple[str, str, str]
) -> None:
    [made] = (await network.get("/v1/clients")).json()["items"]
    tokens = await app.tokens(*patient[:2])
    changes = {"redirect_uris": [CALLBACK], "user_scopes": ["appointments.read"]}
    changed = await network.put(f"/v1/clients/{made['id']}/sign-in", changes, version=1)
    assert (changed.status_code, changed.json()["user_scopes"]) == (200, ["appointments.read"])
    assert (await app.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    tokens = await app.tokens(*patient[:2], scope="offline_access appointments.read")
    assert (await network.post(f"/v1/clients/{made['id']}/deactivate")).status_code == 200
    assert (await app.refresh(tokens["refresh_token"])).json()["error"] == "invalid_client"
    reasons = [e.data["reason_code"] for e in await network.identity.events("identity.session-revoked.v1")]
    assert reasons.count("app-changed") == reasons.count("app-deactivated") == 1


async def test_people_see_which_app_holds_a_session(
    network: Network, app: App, patient: tuple[str, str, str]
) -> None:
    await app.tokens(*patient[:2])
    own = await network.session_of(*patient[:2])
    listed = (await network.with_token("GET", "/v1/sessions", own["access_token"])).json()
    assert [session["client_id"] for session in listed] == ["app-mobile", None]


async def test_a_lent_session_can_not_be_turned_into_a_whole_one(
    network: Network, app: App, patient: tuple[str, str, str]
) -> None:
    token = (await app.tokens(*patient[:2]))["access_token"]
    assert (await network.with_token("POST", "/v1/sessions/current/lock", token)).status_code == 404
    for path in ("/v1/me", "/v1/sessions", "/v1/me/mfa"):
        assert (await network.with_token("GET", path, token)).status_code == 403


# -- who apps are


async def test_a_confidential_app_proves_itself_at_the_token_endpoint(
    network: Network, patient: tuple[str, str, str]
) -> None:
    made = await network.post("/v1/clients", {**PUBLIC_APP, "client_id": "app-web", "public": False})
    app = App(network, client_id="app-web", secret=made.json()["client_secret"])
    code = await app.code(*patient[:2])
    for secret in (None, "wrong"):
        stranger = App(network, client_id="app-web", secret=secret, verifier=app.verifier)
        assert (await stranger.redeem(code)).json()["error"] == "invalid_client"
    assert (await app.redeem(code)).status_code == 200
    assert (await app.ask("client_credentials")).json()["error"] == "unauthorized_client"


async def test_a_public_app_has_neither_secret_nor_keys_nor_tokens_of_its_own(
    network: Network, app: App
) -> None:
    [made] = (await network.get("/v1/clients")).json()["items"]
    assert made["public"]
    assert (await app.ask("client_credentials")).json()["error"] == "unauthorized_client"
    pretending = App(network, secret="anything")
    assert (await pretending.ask("client_credentials")).json()["error"] == "invalid_client"
    rotated = await network.post(f"/v1/clients/{made['id']}/rotate-secret", {})
    assert (rotated.status_code, rotated.json()["type"]) == (409, "/problems/public-client")


@pytest.mark.parametrize(
    "changes",
    [
        {"user_scopes": []},
        {"redirect_uris": []},
        {"user_scopes": ["profile.read"]},
        {"user_scopes": ["unheard.of"]},
        {"redirect_uris": ["http://app.example.org/callback"]},
        {"redirect_uris": ["javascript:alert(1)"]},
        {"scopes": ["slots.read"]},
        {"kind": "lab"},
    ],
)
async def test_an_app_that_could_not_be_trusted_is_not_registered(
    network: Network, changes: dict[str, Any]
) -> None:
    answer: httpx.Response = await network.post("/v1/clients", {**PUBLIC_APP, **changes})
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example.org/cb#x",
        "https://user@app.example.org/cb",
        "https://a;script-src/cb",
        "https:///cb",
        "http://localhost/cb",
        "http://127.0.0.1.example.org/cb",
        "http://127.0.0.1:80@example.org/cb",
        "app:/cb",
        "com.example://host/cb",
        "data:text/html,x",
        "https://app.example.org\\@evil/cb",
        "https://app.example.org/ cb",
        "https://пример.example/cb",
    ],
)
def test_an_address_that_could_be_read_in_two_ways_is_refused(uri: str) -> None:
    with pytest.raises(RedirectUriRefusedError):
        check_redirect_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example.org",
        "https://a.b:8443/cb?x=1",
        "http://[::1]/cb",
        "com.example.app:/cb",
        LOOPBACK,
    ],
)
def test_an_address_of_an_app_is_taken(uri: str) -> None:
    assert check_redirect_uri(uri) == uri
