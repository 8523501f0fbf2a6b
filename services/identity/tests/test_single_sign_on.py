"""Single sign-on at the operator's own identity provider, a small one of which runs here."""

import asyncio
import base64
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import uvicorn
from clinic_shared import browser_cookie, strict_json
from clinic_shared.ids import uuid7
from clinic_shared.testing import ISSUER, ServiceHarness
from joserfc import jws
from joserfc.jwk import ECKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .conftest import Installation, Network
from .factors import enrol_app
from .test_login import claims_in

CLIENT_ID, SECRET = "clinic", "fictitious:secret"
SIGN_ON_COOKIE = "__Host-clinic-sign-on"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class Provider:
    """An identity provider that says what a test tells it, for codes that a test made up."""

    clock: Any
    url: str = ""
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "one"}))
    signing: ECKey | None = None
    header: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    forms: list[dict[str, str]] = field(default_factory=list)
    asked: dict[str, str] = field(default_factory=dict)
    keys_read: int = 0

    def app(self) -> Starlette:
        routes = [
            Route("/.well-known/openid-configuration", self._configuration),
            Route("/keys", self._keys),
            Route("/token", self._token, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    async def _configuration(self, _: Request) -> Response:
        document = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        }
        return JSONResponse(document | self.metadata)

    async def _keys(self, _: Request) -> Response:
        self.keys_read += 1
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})

    async def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        self.forms.append(form)
        basic = base64.b64encode(b"clinic:fictitious%3Asecret").decode()
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if request.headers["authorization"] != f"Basic {basic}" or challenge != self.asked["code_challenge"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse({"access_token": "unused", "token_type": "Bearer", "id_token": self._id_token()})

    def _id_token(self) -> str:
        now = int(self.clock.now().timestamp())
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 60,
            "nonce": self.asked["nonce"],
        }
        claims |= self.claims
        signing = self.signing or self.key
        header = {"alg": "ES256", "kid": signing.kid, **self.header}
        return jws.serialize_compact(header, strict_json.dumps(claims), signing, algorithms=["ES256"])


@asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@pytest.fixture
async def provider(clock: Any) -> AsyncIterator[Provider]:
    made = Provider(clock, claims={"sub": "stranger"})
    async with serving(made.app()) as made.url:
        yield made


@pytest.fixture
async def identity(installation: Installation, provider: Provider) -> AsyncIterator[ServiceHarness]:
    settings = {"sso_issuer": provider.url, "sso_client_id": CLIENT_ID, "sso_client_secret": SECRET}
    async with installation.start(**settings) as running:
        yield running


@dataclass
class Browser:
    network: Network
    provider: Provider
    jar: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **query: str) -> httpx.Response:
        http = self.network.identity.http
        http.cookies.clear()
        kept = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        answer = await http.get(path, params=query, headers={"Cookie": kept} if kept else {})
        for header in answer.headers.get_list("Set-Cookie"):
            self.jar |= {name: morsel.value for name, morsel in SimpleCookie(header).items()}
        return answer

    async def start(self, **query: str) -> None:
        """Go to the provider, which sees what it is asked."""
        answer = await self.get("/v1/browser/sso/start", **query)
        assert answer.status_code == 303, answer.text
        parts = urlsplit(answer.headers["Location"])
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.provider.url}/authorize"
        self.provider.asked = {name: values[0] for name, values in parse_qs(parts.query).items()}

    async def come_back(self, **changes: str) -> httpx.Response:
        told = {"code": "fictitious", "state": self.provider.asked["state"], **changes}
        return await self.get("/v1/browser/sso/callback", **told)

    async def log_in(self, **query: str) -> httpx.Response:
        await self.start(**query)
        return await self.come_back()

    async def claims(self) -> dict[str, Any]:
        """Return the claims of the token behind the browser's cookie."""
        body = {"cookie": self.jar[browser_cookie.NAME]}
        answer = await self.network.identity.http.post("/internal/browser-sessions/token", json=body)
        assert answer.status_code == 200, answer.text
        return claims_in(answer.json()["access_token"])


@pytest.fixture
def browser(network: Network, provider: Provider) -> Browser:
    return Browser(network, provider)


@pytest.fixture
async def member(network: Network) -> dict[str, Any]:
    return await network.add_member()


async def invitation(network: Network, member: dict[str, Any]) -> str:
    link = await network.post(f"/v1/staff/{member['staff_id']}/access-link")
    assert link.status_code == 200, link.text
    return parse_qs(urlsplit(link.json()["url"]).query)["token"][0]


@pytest.fixture
async def linked(network: Network, browser: Browser, member: dict[str, Any]) -> dict[str, Any]:
    """Somebody whose account is bound to `sub` of the provider, logged out."""
    browser.provider.claims["sub"] = "testina"
    answer = await browser.log_in(invitation=await invitation(network, member))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/"), answer.text
    browser.jar.clear()
    return member


async def test_whoever_was_invited_comes_back_with_a_session_of_their_own(
    browser: Browser, linked: dict[str, Any]
) -> None:
    answer = await browser.log_in()
    assert (answer.status_code, answer.headers["Location"]) == (303, "/"), answer.text
    claims = await browser.claims()
    assert (claims["sub"], claims["amr"], claims["acr"]) == (linked["staff_id"], ["fed"], "aal1")
    assert browser.provider.asked["redirect_uri"] == f"{ISSUER}/v1/browser/sso/callback"
    assert (browser.provider.asked["code_challenge_method"], browser.provider.asked["scope"]) == (
        "S256",
        "openid",
    )


async def test_the_page_of_an_invitation_leads_there(
    network: Network, browser: Browser, member: dict[str, Any]
) -> None:
    token = await invitation(network, member)
    page = await browser.get("/welcome", token=token)
    assert f'href="/v1/browser/sso/start?invitation={token}"' in page.text


async def test_nobody_gets_in_by_having_an_address_there(
    network: Network, browser: Browser, member: dict[str, Any]
) -> None:
    browser.provider.claims |= {"email": "testina.vracheva@example.org", "email_verified": True}
    answer = await browser.log_in()
    assert (answer.status_code, browser_cookie.NAME in browser.jar) == (403, False)
    denied = [r for r in await network.audit(outcome="4") if r["entity"]["type"] == "Login"]
    assert len(denied) == 1


async def test_an_invitation_binds_once(network: Network, browser: Browser, member: dict[str, Any]) -> None:
    token = await invitation(network, member)
    assert (await browser.log_in(invitation=token)).status_code == 303
    browser.provider.claims["sub"] = "somebody else"
    assert (await browser.log_in(invitation=token)).status_code == 410
    assert (await browser.log_in()).status_code == 403


async def test_who_has_an_account_gets_no_second_one(
    network: Network, browser: Browser, linked: dict[str, Any]
) -> None:
    other = await network.add_member(login="other@example.org")
    token = await invitation(network, other)
    assert (await browser.log_in(invitation=token)).status_code == 410
    browser.provider.claims["sub"] = "other"
    assert (await browser.log_in(invitation=token)).status_code == 303


async def test_a_deactivated_account_stays_closed(
    network: Network, browser: Browser, linked: dict[str, Any]
) -> None:
    gone = await network.post(f"/v1/staff/{linked['staff_id']}/deactivate")
    assert gone.status_code == 200, gone.text
    assert (await browser.log_in()).status_code == 403


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"iss": "https://evil.example.org"},
        {"aud": "another"},
        {"aud": [CLIENT_ID, "another"]},
        {"azp": "another"},
        {"sub": ""},
        {"sub": 7},
        {"exp": 0},
        {"exp": "2099"},
        {"iat": 0},
        {"iat": 2**39},
    ],
    ids=str,
)
async def test_a_token_that_was_not_made_for_this_login_opens_nothing(
    browser: Browser, linked: dict[str, Any], claims: dict[str, Any]
) -> None:
    browser.provider.claims |= claims
    answer = await browser.log_in()
    assert (answer.status_code, browser_cookie.NAME in browser.jar) == (401, False)


async def test_a_token_of_a_strangers_key_opens_nothing(browser: Browser, linked: dict[str, Any]) -> None:
    for kid in ("one", "two"):
        browser.provider.signing = ECKey.generate_key("P-256", {"kid": kid})
        assert (await browser.log_in()).status_code == 401
    evil = ECKey.generate_key("P-256", {"kid": "three"})
    browser.provider.signing, browser.provider.header = evil, {"jwk": evil.as_dict(private=False)}
    assert (await browser.log_in()).status_code == 401
    assert browser.provider.keys_read == 1  # invented key ids make nobody ask again and again


async def test_an_answer_belongs_to_the_browser_that_asked_and_counts_once(
    network: Network, browser: Browser, linked: dict[str, Any]
) -> None:
    await browser.start()
    stranger = Browser(network, browser.provider)
    assert (await stranger.come_back()).status_code == 401
    assert (await browser.come_back(state="invented")).status_code == 401
    await browser.start()
    kept = browser.jar[SIGN_ON_COOKIE]
    assert (await browser.come_back()).status_code == 303
    browser.jar[SIGN_ON_COOKIE] = kept
    assert (await browser.come_back()).status_code == 401


async def test_an_answer_comes_within_ten_minutes(
    browser: Browser, linked: dict[str, Any], clock: Any
) -> None:
    await browser.start()
    clock.advance(seconds=600)
    assert (await browser.come_back()).status_code == 401


async def test_an_answer_of_another_issuer_is_refused(browser: Browser, linked: dict[str, Any]) -> None:
    await browser.start()
    assert (await browser.come_back(iss="https://evil.example.org")).status_code == 401
    await browser.start()
    assert (await browser.come_back(iss=browser.provider.url)).status_code == 303


async def test_the_providers_refusal_is_shown(browser: Browser, linked: dict[str, Any]) -> None:
    await browser.start()
    answer = await browser.get(
        "/v1/browser/sso/callback", error="access_denied", state=browser.provider.asked["state"]
    )
    assert answer.status_code == 401
    assert "<script" not in answer.text


async def test_a_factor_that_was_added_here_is_not_gone_around(
    network: Network, browser: Browser, linked: dict[str, Any]
) -> None:
    await browser.log_in()
    body = {"cookie": browser.jar[browser_cookie.NAME]}
    exchanged = await network.identity.http.post("/internal/browser-sessions/token", json=body)
    await enrol_app(network, exchanged.json()["access_token"])
    assert (await browser.log_in()).status_code == 403
    browser.provider.claims["amr"] = ["pwd", "mfa"]
    assert (await browser.log_in()).status_code == 303
    claims = await browser.claims()
    assert (claims["amr"], claims["acr"]) == (["fed", "mfa"], "aal2")


async def test_the_time_of_the_login_is_the_providers(
    browser: Browser, linked: dict[str, Any], clock: Any
) -> None:
    earlier = int(clock.now().timestamp()) - 3600
    browser.provider.claims["auth_time"] = earlier
    await browser.log_in()
    assert (await browser.claims())["auth_time"] == earlier


async def test_a_provider_that_is_away_or_somebody_else_is_told(
    installation: Installation, provider: Provider
) -> None:
    async def status(**settings: Any) -> int:
        async with installation.start(**settings) as running:
            return (await running.http.get("/v1/browser/sso/start")).status_code

    ours = {"sso_client_id": CLIENT_ID, "sso_issuer": provider.url}
    provider.metadata["issuer"] = "https://evil.example.org"
    assert await status(**ours) == 503
    provider.metadata = {"token_endpoint": 7}
    assert await status(**ours) == 503
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert await status(sso_client_id=CLIENT_ID, sso_issuer=away) == 503
    assert await status() == 409


async def test_the_password_to_begin_with_is_gone_once_it_isnt_needed(
    network: Network, browser: Browser, linked: dict[str, Any]
) -> None:
    password = linked.get("initial_password", str(uuid7()))
    assert (await network.log_in("testina.vracheva@example.org", password)).status_code == 401
