"""Introspection and revocation: a client hears of its own tokens only."""

from typing import Any

import httpx
import pytest

from .apps import PUBLIC_APP, App
from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Network
from .test_login import claims_in

INACTIVE = {"active": False}
LENT = {"login": ADMIN_LOGIN, "password": ADMIN_PASSWORD}


async def register(network: Network, client_id: str, **changes: Any) -> App:
    body = {**PUBLIC_APP, "client_id": client_id, "user_scopes": ["staff.read"], "public": False, **changes}
    made = await network.post("/v1/clients", body)
    assert made.status_code == 201, made.text
    return App(network, client_id=client_id, secret=made.json()["client_secret"])


async def ask(app: App, path: str, **form: str) -> httpx.Response:
    data = {"client_id": app.client_id, **({"client_secret": app.secret} if app.secret else {}), **form}
    return await app.network.identity.http.post(f"/oauth2/{path}", data=data)


async def introspected(app: App, token: str) -> dict[str, Any]:
    answer = await ask(app, "introspect", token=token)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store"), answer.text
    return dict(answer.json())


@pytest.fixture
async def app(network: Network) -> App:
    return await register(network, "app-web")


@pytest.fixture
async def tokens(app: App) -> dict[str, Any]:
    return await app.tokens(**LENT, scope="openid offline_access staff.read")


async def test_a_client_learns_what_its_tokens_are_good_for(app: App, tokens: dict[str, Any]) -> None:
    access = claims_in(tokens["access_token"])
    told = await introspected(app, tokens["access_token"])
    assert told["active"]
    assert told["token_type"] == "Bearer"
    assert {name: told[name] for name in ("sub", "sid", "exp", "jti")} == {
        name: access[name] for name in ("sub", "sid", "exp", "jti")
    }
    assert (told["scope"], told["client_id"]) == ("staff.read", "app-web")
    told = await introspected(app, tokens["refresh_token"])
    assert (told["active"], told["token_type"], told["sub"]) == (True, "refresh_token", access["sub"])


async def test_of_others_tokens_and_of_invented_ones_it_learns_nothing(
    network: Network, app: App, tokens: dict[str, Any]
) -> None:
    other = await register(network, "app-other")
    own = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    strange = [tokens["access_token"], tokens["refresh_token"]]
    assert [await introspected(other, token) for token in strange] == [INACTIVE, INACTIVE]
    unknown = [own["access_token"], own["refresh_token"], tokens["id_token"], "rt_unknown", "a.b.c", "x"]
    assert [await introspected(app, token) for token in unknown] == [INACTIVE] * len(unknown)


async def test_what_was_used_has_expired_or_ended_is_not_active(
    network: Network, app: App, tokens: dict[str, Any], clock: Any
) -> None:
    renewed = (await app.refresh(tokens["refresh_token"])).json()
    assert await introspected(app, tokens["refresh_token"]) == INACTIVE
    clock.advance(seconds=311)
    assert await introspected(app, renewed["access_token"]) == INACTIVE
    assert (await introspected(app, renewed["refresh_token"]))["active"]
    sid = claims_in(renewed["access_token"])["sid"]
    headers = network.identity.headers(network.admin)
    assert (await network.identity.http.delete(f"/v1/sessions/{sid}", headers=headers)).status_code == 204
    assert await introspected(app, renewed["refresh_token"]) == INACTIVE


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_a_revoked_token_ends_its_session_at_once(
    network: Network, app: App, tokens: dict[str, Any], kind: str
) -> None:
    assert (await ask(app, "revoke", token=tokens[kind])).status_code == 200
    [revoked] = await network.identity.events("identity.session-revoked.v1")
    assert revoked.data["reason_code"] == "revoked-by-app"
    assert [await introspected(app, tokens[name]) for name in ("access_token", "refresh_token")] == [
        INACTIVE
    ] * 2
    assert (await ask(app, "revoke", token=tokens[kind])).status_code == 200


async def test_nobody_revokes_what_isnt_theirs(network: Network, app: App, tokens: dict[str, Any]) -> None:
    other = await register(network, "app-other", public=True)
    for token in (tokens["access_token"], tokens["refresh_token"], "rt_unknown", "x"):
        assert (await ask(other, "revoke", token=token)).status_code == 200
    assert await network.identity.events("identity.session-revoked.v1") == []


async def test_a_clients_own_token_is_told_of_but_not_revoked(network: Network) -> None:
    lab = await network.post(
        "/v1/clients", {"kind": "lab", "name": "Test laboratory", "client_id": "lab-test"}
    )
    client = App(network, client_id="lab-test", secret=lab.json()["client_secret"])
    token = (await client.ask("client_credentials")).json()["access_token"]
    assert (await introspected(client, token))["scope"] == "lab-messages.send"
    refused = await ask(client, "revoke", token=token)
    assert (refused.status_code, refused.json()["error"]) == (400, "unsupported_token_type")


async def test_who_doesnt_prove_who_they_are_is_refused(network: Network, app: App) -> None:
    public = await register(network, "app-public", public=True)
    stranger = App(network, client_id="app-web", secret="wrong")
    for client, path in ((stranger, "introspect"), (stranger, "revoke"), (public, "introspect")):
        answer = await ask(client, path, token="x")
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    for path in ("introspect", "revoke"):
        assert (await ask(app, path)).json()["error"] == "invalid_request"
