"""The second page of a login for an app: a passkey, and what strangers send in its place."""

import json
from typing import Any

import httpx
import pytest

from .apps import PUBLIC_APP, App, Form, Page, answer_to_app
from .authenticator import ORIGIN, RP_ID, Authenticator
from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Installation, Network
from .test_login import claims_in


@pytest.fixture
def installation(installation: Installation) -> Installation:
    installation.settings |= {"passkey_rp_id": RP_ID, "passkey_origins": ORIGIN}
    return installation


@pytest.fixture
async def key(network: Network) -> Authenticator:
    """The administrator's only second factor."""
    token = (await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD))["access_token"]
    options = await network.with_token("POST", "/v1/me/mfa/passkeys/options", token, {})
    made = Authenticator()
    body = {"label": "My key", "credential": made.create(options.json())}
    added = await network.with_token("POST", "/v1/me/mfa/passkeys", token, body)
    assert added.status_code == 201, added.text
    return made


@pytest.fixture
async def app(network: Network) -> App:
    assert (await network.post("/v1/clients", PUBLIC_APP)).status_code == 201
    return App(network)


@pytest.fixture
async def form(app: App, key: Authenticator) -> Form:
    return passkey_form(await app.log_in(ADMIN_LOGIN, ADMIN_PASSWORD))


def passkey_form(answer: httpx.Response) -> Form:
    return next(one for one in Page(answer).forms if one.fields.get("method") == "passkey")


async def test_one_script_alone_may_run(app: App, key: Authenticator) -> None:
    answer = await app.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)
    assert answer.text.count("<script>") == 1
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"].startswith("'sha256-")
    assert " " not in policy["script-src"]


async def test_a_passkey_lets_an_app_in(network: Network, app: App, key: Authenticator) -> None:
    page = await app.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)
    shown = key.get(Page(page).options)
    done = await app.submit(passkey_form(page), credential=json.dumps(shown))
    tokens = (await app.redeem(answer_to_app(done)["code"])).json()
    assert claims_in(tokens["access_token"])["acr"] == "aal2"


async def test_what_was_refused_is_asked_for_again_with_another_challenge(
    app: App, key: Authenticator
) -> None:
    page = await app.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)
    shown = key.get(Page(page).options)
    forged = {**shown, "response": {**shown["response"], "signature": "AAAA"}}
    again = await app.submit(passkey_form(page), credential=json.dumps(forged))
    assert (again.status_code, "wasn&#x27;t accepted" in again.text) == (422, True)
    assert Page(again).options["challenge"] != Page(page).options["challenge"]
    replayed = await app.submit(passkey_form(again), credential=json.dumps(shown))
    assert replayed.status_code == 422
    right = key.get(Page(replayed).options)
    assert "code" in answer_to_app(await app.submit(passkey_form(replayed), credential=json.dumps(right)))


@pytest.mark.parametrize(
    "typed",
    [
        {"credential": "[" * 5000},
        {"credential": "[]"},
        {"credential": '{"id": 1}'},
        {"credential": ""},
        {"credential": "{}", "method": "retina"},
        {"method": "sms", "code": "123456"},
        {"method": "sms", "send": "true"},
        {"method": "totp", "code": "½" * 64},
    ],
)
async def test_nonsense_is_refused_on_the_page(app: App, form: Form, typed: dict[str, Any]) -> None:
    answer = await app.submit(form, **typed)
    assert answer.status_code == 422
    assert "One more step" in answer.text


async def test_a_login_that_is_over_begins_again(app: App, form: Form, network: Network) -> None:
    network.identity.clock.advance(minutes=5)
    answer = await app.submit(form, credential="{}")
    assert (answer.status_code, "This login is over" in answer.text) == (422, True)
    assert [one.fields for one in Page(answer).forms] == [{}]  # the way back alone
