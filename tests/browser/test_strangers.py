"""What pages of other sites try with our pages, cookies and API, when a real browser runs them."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from html import escape
from urllib.parse import quote, urlsplit

import pytest
from clinic_local.fakes.in_process import serving
from clinic_shared import browser_cookie
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from .chromium import FOREIGN, Browser, Page, ScriptError
from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Clinic

OURS = (
    "/welcome",
    "/docs",
    "/docs/events",
    "/problems",
    "/problems/not-found",
    "/oauth2/authorize?client_id=x",
)
CANARY = "\"'><script>canary=1</script><img src=x onerror=canary=1>"
ASK = "fetch({url}, {options}).then(async (r) => [r.status, await r.text()])"


@dataclass
class Stranger:
    """A site of somebody else, with a page of whatever is put there."""

    html: str = ""
    url: str = ""
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        return HTMLResponse(f"<!doctype html><title>stranger</title>{self.html}")


@pytest.fixture
async def stranger() -> AsyncIterator[Stranger]:
    made = Stranger()
    async with serving(Starlette(routes=[Route("/{path:path}", made.answer)])) as url:
        made.url = f"http://{FOREIGN}:{urlsplit(url).port}"
        yield made


async def fetch(page: Page, url: str, **options: object) -> list[object]:
    """Do as a script of the page's site; returns status and text."""
    return list(await page.run(ASK.format(url=json.dumps(url), options=json.dumps(options))))


async def log_in(page: Page) -> list[object]:
    body = json.dumps({"login": ADMIN_LOGIN, "password": ADMIN_PASSWORD})
    return await fetch(
        page, "/v1/browser/login", method="POST", body=body, headers={"Content-Type": "application/json"}
    )


@pytest.fixture
async def inside(clinic: Clinic, page: Page) -> str:
    """Log the page's browser in; returns the CSRF token."""
    await page.open(f"{clinic.url}/healthz")
    status, text = await log_in(page)
    assert status == 200, text
    return str(json.loads(str(text))["csrf_token"])


async def names_of_cookies(page: Page, url: str) -> set[str]:
    kept = await page.call("Network.getCookies", urls=[url])
    return {cookie["name"] for cookie in kept["cookies"]}


async def test_no_page_of_ours_shows_in_a_frame(clinic: Clinic, stranger: Stranger, browser: Browser) -> None:
    async with browser.page() as page:
        # Without the guard it would: the frame is there, and shows what may be framed.
        stranger.html = f"<iframe src='{clinic.url}/healthz'></iframe>"
        await page.open(f"{stranger.url}/")
        await page.answered(f"{clinic.url}/healthz")
        assert page.blocked == []
    for path in OURS:
        async with browser.page() as page:
            stranger.html = f"<iframe src='{clinic.url}{path}'></iframe>"
            await page.open(f"{stranger.url}/")
            await page.was_blocked(f"{clinic.url}{path}")


async def test_our_pages_break_none_of_their_own_rules(clinic: Clinic, page: Page) -> None:
    for path in OURS:
        await page.open(f"{clinic.url}{path}")
        assert await page.run("document.querySelector('h1').textContent"), path
        # Set by the policy's own style: a page without it would be as wide as the window.
        assert await page.run("getComputedStyle(document.body).maxWidth") != "none", path
    assert page.violations == page.dialogs == []


async def test_what_stands_in_an_address_or_a_form_is_never_run(clinic: Clinic, page: Page) -> None:
    said = quote(CANARY)
    paths = (
        f"/welcome?token={said}",
        f"/oauth2/authorize?client_id={said}&state={said}",
        f"/problems/{said}",
        f"/v1/{said}",
        f"/docs?{said}#{said}",
        f"/{said}",
    )
    for path in paths:
        await page.open(f"{clinic.url}{path}")
        assert await page.run("typeof canary") == "undefined", path
        assert await page.run("document.querySelectorAll('script, img').length") == 0, path
    await page.open(f"{clinic.url}/welcome?token={said}")
    await page.run(
        f"document.getElementById('password').value = {json.dumps(CANARY)},"
        " document.getElementById('again').value = 'another', document.querySelector('form button').click()"
    )
    await page.until("document.querySelector('[role=alert]')")
    assert await page.run("document.querySelectorAll('script, img').length") == 0
    assert page.violations == page.dialogs == []


async def test_after_logging_out_the_back_button_shows_nothing(
    clinic: Clinic, page: Page, inside: str
) -> None:
    await page.open(f"{clinic.url}/v1/me")
    assert ADMIN_LOGIN in await page.text()
    await page.open(f"{clinic.url}/healthz")
    headers = {browser_cookie.CSRF_HEADER: inside}
    assert await fetch(page, "/v1/browser/logout", method="POST", headers=headers) == [204, ""]
    await page.run("history.back()")
    await page.until("location.pathname === '/v1/me' && document.body.innerText.includes('unauthenticated')")
    assert ADMIN_LOGIN not in await page.text()


async def test_the_session_s_cookie_is_kept_where_it_is_safe_and_nowhere_else(
    clinic: Clinic, browser: Browser, page: Page, inside: str
) -> None:
    assert browser_cookie.NAME in await names_of_cookies(page, clinic.url)
    assert await page.run("document.cookie") == ""
    plain = f"http://{FOREIGN}:{urlsplit(clinic.url).port}"
    async with browser.page() as other:
        await other.open(f"{plain}/healthz")
        assert (await log_in(other))[0] == 200
        assert await names_of_cookies(other, plain) == set()
        assert (await fetch(other, "/v1/browser/session"))[0] == 401
        await other.run(f"document.cookie = '{browser_cookie.NAME}=planted; Path=/'")
        await other.run(
            f"document.cookie = '{browser_cookie.NAME}=planted; Path=/; Secure; Domain={FOREIGN}'"
        )
        assert await names_of_cookies(other, plain) == set()


async def test_a_script_of_another_site_reads_and_changes_nothing(
    clinic: Clinic, page: Page, stranger: Stranger, inside: str
) -> None:
    await page.open(f"{stranger.url}/")
    json_body = {"Content-Type": "application/json"}
    for options in (
        {"credentials": "include"},
        {"method": "POST", "credentials": "include", "headers": json_body, "body": "{}"},
        {"method": "DELETE", "credentials": "include", "headers": {browser_cookie.CSRF_HEADER: inside}},
        {"headers": {"Authorization": "Bearer x"}},
    ):
        for path in ("/v1/me", "/v1/sessions", "/v1/browser/logout"):
            with pytest.raises(ScriptError) as refused:
                await fetch(page, f"{clinic.url}{path}", **options)
            assert refused.value.name == "TypeError", (path, options)
    await page.open(f"{clinic.url}/healthz")
    assert (await fetch(page, "/v1/browser/session"))[0] == 200


async def test_a_form_of_another_site_logs_nobody_in_or_out(
    clinic: Clinic, page: Page, stranger: Stranger, inside: str
) -> None:
    # Sent as text the form is JSON.
    typed = escape(json.dumps({"login": ADMIN_LOGIN, "password": ADMIN_PASSWORD, "x": ""})[:-2])
    for path in ("/v1/browser/logout", "/v1/browser/login"):
        stranger.html = (
            f"<form method=post enctype=text/plain action='{clinic.url}{path}'>"
            f"<input name='{typed}' value='&quot;}}'></form>"
        )
        await page.open(f"{stranger.url}/")
        page.answers.clear()
        await page.run("document.forms[0].submit()")
        await page.answered(f"{clinic.url}{path}")
        [answer] = [one for one in page.answers if one["url"] == f"{clinic.url}{path}"]
        assert answer["status"] in (401, 403), path
    await page.open(f"{clinic.url}/healthz")
    assert (await fetch(page, "/v1/browser/session"))[0] == 200


async def test_no_address_of_ours_leads_elsewhere(clinic: Clinic, page: Page, stranger: Stranger) -> None:
    there = stranger.url.removeprefix("http:")
    for path in (
        f"/{there}",
        f"/\\{there[2:]}",
        f"/%5c{there[2:]}",
        f"/welcome?next={quote(stranger.url)}",
        f"/v1/browser/sso/start?next={quote(stranger.url)}",
        f"/oauth2/authorize?response_type=code&client_id=x&redirect_uri={quote(stranger.url)}",
    ):
        await page.open(f"{clinic.url}{path}")
        assert await page.run("location.origin") == clinic.url, path
    assert stranger.asked == []
