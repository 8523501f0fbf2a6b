"""OAuth2 clients: laboratories and apps get tokens for secrets that are shown once."""

import asyncio
import base64
import hashlib
from typing import Any

import httpx
import pytest
from clinic_shared.auth import TokenVerifier
from clinic_shared.ids import uuid7
from clinic_shared.testing import ISSUER

from .conftest import Network
from .test_login import claims_in

GRANT = {"grant_type": "client_credentials"}
LAB = {"kind": "lab", "name": "Test laboratory", "client_id": "lab-test"}


def digest(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


async def ask(
    network: Network, form: dict[str, str], basic: tuple[str, str] | None = None, **headers: str
) -> httpx.Response:
    auth = httpx.BasicAuth(*basic) if basic else httpx.USE_CLIENT_DEFAULT
    return await network.identity.http.post("/oauth2/token", data=form, auth=auth, headers=headers)


@pytest.fixture
async def lab(network: Network) -> dict[str, Any]:
    answer = await network.post("/v1/clients", LAB)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_a_lab_gets_a_token_by_basic_or_in_the_body(
    network: Network, lab: dict[str, Any], clock: Any
) -> None:
    by_basic = await ask(network, GRANT, ("lab-test", lab["client_secret"]))
    in_body = await ask(network, {**GRANT, "client_id": "lab-test", "client_secret": lab["client_secret"]})
    for answer in (by_basic, in_body):
        assert answer.status_code == 200, answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Pragma"] == "no-cache"
        token = answer.json()
        assert {k: v for k, v in token.items() if k != "access_token"} == {
            "token_type": "Bearer",
            "expires_in": 300,
            "scope": "lab-messages.send",
        }
        jwks = network.identity.signer.public_jwks()
        principal = await TokenVerifier.static(jwks, issuer=ISSUER, clock=clock).verify(token["access_token"])
        assert principal.kind == "client"
        assert principal.roles == {"lab"}
        assert str(principal.subject) == lab["id"]
        assert claims_in(token["access_token"])["client_id"] == "lab-test"


async def test_a_request_that_cannot_be_granted_says_why(network: Network, lab: dict[str, Any]) -> None:
    for form, error in (
        ({}, "invalid_request"),
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "authorization_code", "code": "x"}, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, "unauthorized_client"),
        ({**GRANT, "resource": "https://elsewhere.test"}, "invalid_target"),
        ({**GRANT, "scope": "lab-messages.send patients.read"}, "invalid_scope"),
        ({**GRANT, "client_secret": "a second time"}, "invalid_request"),
        ({**GRANT, "client_id": "lab-other"}, "invalid_request"),
    ):
        answer = await ask(network, form, ("lab-test", lab["client_secret"]))
        assert (answer.status_code, answer.json()["error"]) == (400, error), form
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"] == "application/json"
        assert lab["client_secret"] not in answer.text


async def test_a_client_that_is_not_known_is_challenged(network: Network, lab: dict[str, Any]) -> None:
    strangers = [("lab-test", "wrong"), ("lab-unknown", "wrong"), ("lab-test", ""), ("", "")]
    for credentials in strangers:
        answer = await ask(network, GRANT, credentials)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    denied = [r for r in await network.audit(outcome="4") if r["entity"]["type"] == "Client"]
    assert [r["entity"]["id"] for r in denied] == [lab["id"], None, lab["id"], None]


async def test_no_credentials_at_all_are_an_unknown_client(network: Network) -> None:
    answer = await ask(network, GRANT)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_a_malformed_header_is_a_bad_request(network: Network) -> None:
    not_text = "Basic " + base64.b64encode(b"\xff\xfe").decode()
    for authorization in ("Basic ???", not_text, "Bearer abc"):
        answer = await ask(network, GRANT, Authorization=authorization)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), authorization


async def test_a_malformed_form_is_a_bad_request(network: Network) -> None:
    twice = b"grant_type=client_credentials&grant_type=password"
    for body in (twice, b"\xff\xfe", b"no form", b"grant_type=a%00b", b"a=b&" * 30):
        answer = await network.identity.http.post(
            "/oauth2/token", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), body


async def test_json_is_not_a_form(network: Network) -> None:
    answer = await network.identity.http.post("/oauth2/token", json=GRANT)
    assert answer.status_code == 415


async def test_lab_integration_hears_of_a_lab_and_the_digest_of_its_secret(
    network: Network, lab: dict[str, Any]
) -> None:
    [event] = await network.identity.events("identity.lab-registered.v1")
    assert event.data["partner_id"] == lab["id"]
    assert event.data["client_id"] == "lab-test"
    assert event.private == {"secret_digests": [digest(lab["client_secret"])]}
    assert lab["client_secret"] not in str(event.data) + str(event.private) + str(await network.audit())


async def test_a_replaced_secret_works_until_the_overlap_is_over(
    network: Network, lab: dict[str, Any], clock: Any
) -> None:
    rotated = await network.post(f"/v1/clients/{lab['id']}/rotate-secret", {"overlap_seconds": 600})
    assert rotated.status_code == 200, rotated.text
    old, new = lab["client_secret"], rotated.json()["client_secret"]
    assert [(await ask(network, GRANT, ("lab-test", s))).status_code for s in (old, new)] == [200, 200]
    clock.advance(seconds=599)
    assert await network.identity.fire_timers() == 0
    clock.advance(seconds=1)
    assert [(await ask(network, GRANT, ("lab-test", s))).status_code for s in (old, new)] == [401, 200]
    assert await network.identity.fire_timers() == 1
    changed = await network.identity.events("identity.lab-changed.v1")
    assert [event.private["secret_digests"] for event in changed] == [
        [digest(new), digest(old)],
        [digest(new)],
    ]
    assert [event.data["version"] for event in changed] == [2, 3]


async def test_a_secret_replaced_twice_is_retired_by_its_own_timer_only(
    network: Network, lab: dict[str, Any], clock: Any
) -> None:
    path = f"/v1/clients/{lab['id']}/rotate-secret"
    await network.post(path, {"overlap_seconds": 600})
    clock.advance(seconds=300)
    second = (await network.post(path, {"overlap_seconds": 600})).json()["client_secret"]
    third = (await network.post(path, {"overlap_seconds": 600})).json()["client_secret"]
    clock.advance(seconds=300)
    assert await network.identity.fire_timers() == 1  # the first one's, too late to matter
    assert [(await ask(network, GRANT, ("lab-test", s))).status_code for s in (second, third)] == [200, 200]


async def test_a_leaked_secret_can_be_replaced_without_overlap(network: Network, lab: dict[str, Any]) -> None:
    await network.post(f"/v1/clients/{lab['id']}/rotate-secret", {"overlap_seconds": 0})
    assert (await ask(network, GRANT, ("lab-test", lab["client_secret"]))).status_code == 401


async def test_a_deactivated_client_is_out_for_good(network: Network, lab: dict[str, Any]) -> None:
    gone = await network.post(f"/v1/clients/{lab['id']}/deactivate")
    assert (gone.status_code, gone.json()["active"]) == (200, False)
    assert (await ask(network, GRANT, ("lab-test", lab["client_secret"]))).status_code == 401
    [changed] = await network.identity.events("identity.lab-changed.v1")
    assert changed.data["active"] is False
    [revoked] = await network.identity.events("identity.session-revoked.v1")
    assert (revoked.data["principal_kind"], revoked.data["principal_id"]) == ("client", lab["id"])
    for action in ("deactivate", "rotate-secret"):
        assert (await network.post(f"/v1/clients/{lab['id']}/{action}")).status_code == 409
        assert (await network.post(f"/v1/clients/{uuid7()}/{action}")).status_code == 404


async def test_an_app_has_the_scopes_it_was_given_and_may_ask_for_fewer(network: Network) -> None:
    body = {"kind": "app", "name": "Test app", "scopes": ["slots.read", "catalogue.read"], "network": True}
    app = (await network.post("/v1/clients", body)).json()
    assert app["client_id"].startswith("app-")
    basic = (app["client_id"], app["client_secret"])
    assert (await ask(network, GRANT, basic)).json()["scope"] == "catalogue.read slots.read"
    fewer = await ask(network, {**GRANT, "scope": "slots.read"}, basic)
    assert fewer.json()["scope"] == "slots.read"
    assert claims_in(fewer.json()["access_token"])["scope"] == "slots.read"
    assert await network.identity.events("identity.lab-registered.v1") == []


async def test_a_client_that_makes_no_sense_is_refused(network: Network) -> None:
    app = {"kind": "app", "name": "Test app"}
    for body, problem in (
        ({**LAB, "scopes": ["patients.read"]}, "invalid-request"),
        ({**LAB, "network": True}, "invalid-request"),
        (app, "invalid-request"),
        ({**app, "scopes": ["everything"]}, "unknown-reference"),
        ({**app, "scopes": ["slots.read"], "centre_ids": [str(uuid7())]}, "unknown-reference"),
    ):
        answer = await network.post("/v1/clients", body)
        assert (answer.status_code, answer.json()["type"]) == (422, f"/problems/{problem}"), body


async def test_a_rule_between_the_fields_of_a_client_is_told_in_words(network: Network) -> None:
    request = {"kind": "app", "name": "Portal", "public": True, "redirect_uris": ["https://app.example/back"]}
    refused = await network.post("/v1/clients", request)
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {
            "in": "body",
            "pointer": "",
            "code": "value_error",
            "message": "redirect_uris and user_scopes come together",
        }
    ]


async def test_of_many_clients_with_one_id_one_is_registered(network: Network) -> None:
    answers = await asyncio.gather(*(network.post("/v1/clients", LAB) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    listed = (await network.get("/v1/clients")).json()["items"]
    assert [client["client_id"] for client in listed] == ["lab-test"]
    assert "client_secret" not in listed[0]


async def test_clients_are_registered_by_those_who_work_everywhere(network: Network) -> None:
    local = network.identity.principal("system-administrator", network=False)
    assert (await network.post("/v1/clients", LAB, by=local)).status_code == 403
