"""Sessions of browsers: a cookie that the gateway exchanges for access tokens."""

from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from clinic_shared import browser_cookie

from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Network
from .factors import enrol_app
from .test_login import claims_in

LOGIN = {"login": ADMIN_LOGIN, "password": ADMIN_PASSWORD}


def cookies_in(answer: httpx.Response) -> dict[str, str]:
    made: dict[str, str] = {}
    for header in answer.headers.get_list("Set-Cookie"):
        made |= {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    return made


def cookie_in(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return cookies_in(answer)[browser_cookie.NAME]


async def post(network: Network, path: str, body: Any = None, **options: Any) -> httpx.Response:
    network.identity.http.cookies.clear()
    return await network.identity.http.post(path, json=body or {}, **options)


async def exchange(network: Network, cookie: str) -> httpx.Response:
    return await post(network, "/internal/browser-sessions/token", {"cookie": cookie})


async def token_of(network: Network, cookie: str) -> str:
    answer = await exchange(network, cookie)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def holding(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def cookie(network: Network) -> str:
    return cookie_in(await post(network, "/v1/browser/login", LOGIN))


async def test_a_login_brings_a_cookie_that_no_script_reads_and_no_token(network: Network) -> None:
    answer = await post(network, "/v1/browser/login", LOGIN)
    value = cookie_in(answer)
    [header] = [h for h in answer.headers.get_list("Set-Cookie") if h.startswith(browser_cookie.NAME)]
    assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= set(header.split("; "))
    assert "Domain" not in header
    assert "Max-Age" not in header
    told = answer.json()
    assert "token" not in " ".join(name for name in told if name != "csrf_token")
    assert told["csrf_token"] == browser_cookie.csrf_token_of(browser_cookie.digest_of(value))
    assert value not in answer.text


async def test_the_gateway_gets_tokens_of_the_session_for_it(network: Network, cookie: str) -> None:
    first, second = await token_of(network, cookie), await token_of(network, cookie)
    assert claims_in(first)["sid"] == claims_in(second)["sid"]
    me = await network.with_token("GET", "/v1/me", first)
    assert me.json()["login"] == ADMIN_LOGIN
    [listed] = (await network.with_token("GET", "/v1/sessions", first)).json()
    assert listed["session_id"] == claims_in(first)["sid"]
    assert (await exchange(network, "bs_unknown")).status_code == 401


async def test_using_it_keeps_the_session_alive_and_idling_ends_it(
    network: Network, cookie: str, clock: Any
) -> None:
    for _ in range(3):
        clock.advance(minutes=14)
        await token_of(network, cookie)
    clock.advance(minutes=15)
    assert (await exchange(network, cookie)).status_code == 401


async def test_logging_out_ends_the_session_and_takes_the_cookie_away(network: Network, cookie: str) -> None:
    token = await token_of(network, cookie)
    answer = await post(network, "/v1/browser/logout", headers=holding(token))
    assert answer.status_code == 204
    assert cookies_in(answer) == {browser_cookie.NAME: ""}
    assert "storage" in answer.headers["Clear-Site-Data"]
    assert (await exchange(network, cookie)).status_code == 401
    [revoked] = await network.identity.events("identity.session-revoked.v1")
    assert revoked.data["session_id"] == claims_in(token)["sid"]


async def test_a_page_that_was_loaded_anew_learns_its_csrf_token(network: Network, cookie: str) -> None:
    token = await token_of(network, cookie)
    told = await network.with_token("GET", "/v1/browser/session", token)
    assert told.json()["csrf_token"] == browser_cookie.csrf_token_of(browser_cookie.digest_of(cookie))


async def test_a_session_without_a_cookie_gets_none(network: Network) -> None:
    own = (await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD))["access_token"]
    assert (await network.with_token("GET", "/v1/browser/session", own)).status_code == 404
    assert (await network.with_token("POST", "/v1/browser/renew", own, {})).status_code == 404


async def test_a_second_factor_finishes_the_login_and_a_step_up_changes_the_cookie(network: Network) -> None:
    session = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    phone, _ = await enrol_app(network, session["access_token"])
    clock = network.identity.clock
    clock.advance(seconds=30)
    asked = await post(network, "/v1/browser/login", LOGIN)
    assert (asked.status_code, asked.json()["type"]) == (401, "/problems/mfa-required")
    assert browser_cookie.NAME not in cookies_in(asked)
    shown = {"ticket": asked.json()["ticket"], "method": "totp"}
    assert (await post(network, "/v1/browser/mfa", {**shown, "code": "000000"})).status_code == 401
    cookie = cookie_in(await post(network, "/v1/browser/mfa", {**shown, "code": phone.code()}))
    token = await token_of(network, cookie)
    assert claims_in(token)["acr"] == "aal2"
    clock.advance(seconds=290)
    again = {"method": "totp", "code": phone.code()}
    fresh = cookie_in(await post(network, "/v1/browser/step-up", again, headers=holding(token)))
    assert fresh != cookie
    assert (await exchange(network, cookie)).status_code == 401
    renewed = claims_in(await token_of(network, fresh))
    assert renewed["auth_time"] == claims_in(token)["auth_time"] + 290
    assert renewed["sid"] == claims_in(token)["sid"]


async def test_a_renewed_cookie_replaces_the_one_before(network: Network, cookie: str) -> None:
    token = await token_of(network, cookie)
    renewed = cookie_in(await post(network, "/v1/browser/renew", headers=holding(token)))
    assert (await exchange(network, cookie)).status_code == 401
    assert claims_in(await token_of(network, renewed))["sid"] == claims_in(token)["sid"]


async def test_the_cookie_of_a_session_that_ended_is_not_renewed(network: Network, cookie: str) -> None:
    token = await token_of(network, cookie)
    await post(network, "/v1/browser/logout", headers=holding(token))
    assert (await post(network, "/v1/browser/renew", headers=holding(token))).status_code == 401


async def test_a_known_browser_is_known_by_its_own_cookie(network: Network) -> None:
    first = await post(network, "/v1/browser/login", LOGIN)
    device = cookies_in(first)["__Host-clinic-device"]
    again = await post(
        network, "/v1/browser/login", LOGIN, headers={"Cookie": f"__Host-clinic-device={device}"}
    )
    assert cookies_in(again).keys() == {browser_cookie.NAME}
