"""Browsers: a cookie in place of a token, and what a page of another site makes a browser send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from clinic_shared import browser_cookie

from .conftest import token_of

if TYPE_CHECKING:
    import httpx

    from .conftest import Bearer, Clinic, Reply, Seen, StartClinic

COOKIE = "bs_fictitious"
EXCHANGE = "/internal/browser-sessions/token"
CSRF = browser_cookie.csrf_token_of(browser_cookie.digest_of(COOKIE))


def cookie(value: str = COOKIE, **headers: str) -> dict[str, str]:
    return {"cookie": f"other=1; {browser_cookie.NAME}={value}; more=2", **headers}


def from_page(**headers: str) -> dict[str, str]:
    """What a browser sends for a page of this site that knows the CSRF token."""
    return cookie(**{"sec-fetch-site": "same-origin", "x-csrf-token": CSRF, **headers})


class Sessions:
    """Identity's answers for the cookies that it knows."""

    def __init__(self, clinic: Clinic, reply: type[Reply]) -> None:
        self.clinic = clinic
        self.reply = reply
        self.claims: dict[str, Any] = {"subject": uuid4(), "session_id": uuid4()}
        self.wait: asyncio.Event | None = None
        self.asked = 0
        clinic["identity"].pages[EXCHANGE] = self.answer

    def answer(self, seen: Seen) -> Reply:
        self.asked += 1
        if json.loads(seen.body) != {"cookie": COOKIE}:
            return self.reply(status=401, document={})
        return self.reply(
            document={"access_token": token_of(**self.claims), "expires_in": 300}, wait_for=self.wait
        )


@pytest.fixture
async def sessions(start_clinic: StartClinic, reply: type[Reply]) -> AsyncIterator[Sessions]:
    async with start_clinic("identity", "patients") as clinic:
        yield Sessions(clinic, reply)


def slug(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).removeprefix("/problems/")


async def test_a_service_gets_the_token_behind_the_cookie_and_never_the_cookie(sessions: Sessions) -> None:
    answer = await sessions.clinic.http.get("/v1/patients", headers=cookie())
    assert answer.status_code == 200, answer.text
    (seen,) = sessions.clinic["patients"].seen
    assert (seen.header("authorization") or "").startswith("Bearer ey")
    assert seen.header("cookie") == "other=1; more=2"
    assert COOKIE not in str(seen)


async def test_identity_is_asked_once_for_many_requests_at_once_and_after(sessions: Sessions) -> None:
    sessions.wait = asyncio.Event()
    asking = [
        asyncio.create_task(sessions.clinic.http.get("/v1/patients", headers=cookie())) for _ in range(5)
    ]
    while not sessions.asked:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    sessions.wait.set()
    assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200] * 5
    assert (await sessions.clinic.http.get("/v1/patients", headers=cookie())).status_code == 200
    assert sessions.asked == 1


async def test_an_unknown_cookie_opens_nothing(sessions: Sessions) -> None:
    answer = await sessions.clinic.http.get("/v1/patients", headers=cookie("bs_unknown"))
    assert (answer.status_code, slug(answer)) == (401, "unauthenticated")
    assert sessions.clinic["patients"].seen == []


async def test_a_session_that_ended_is_refused_at_once(sessions: Sessions) -> None:
    assert (await sessions.clinic.http.get("/v1/patients", headers=cookie())).status_code == 200
    until = datetime.now(UTC) + timedelta(seconds=310)
    sessions.clinic.revocations.revoke_session(sessions.claims["session_id"], until=until)
    assert (await sessions.clinic.http.get("/v1/patients", headers=cookie())).status_code == 401
    sessions.claims["session_id"] = uuid4()
    assert (await sessions.clinic.http.get("/v1/patients", headers=cookie())).status_code == 200


async def test_cookie_and_token_at_once_are_refused_wherever_they_come(
    sessions: Sessions, bearer: Bearer
) -> None:
    for path in ("/v1/patients", "/v1/auth/login", "/v1/stream", "/v1/ops/ledger"):
        answer = await sessions.clinic.http.get(path, headers=cookie() | bearer())
        assert (answer.status_code, slug(answer)) == (400, "two-credentials"), path
    twice = {"cookie": f"{browser_cookie.NAME}=a; {browser_cookie.NAME}=b"}
    assert slug(await sessions.clinic.http.get("/v1/patients", headers=twice)) == "two-credentials"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-csrf-token": ""},
        {"x-csrf-token": "wrong"},
        {"x-csrf-token": COOKIE},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ],
)
async def test_what_another_site_makes_a_browser_send_changes_nothing(
    sessions: Sessions, headers: dict[str, str]
) -> None:
    answer = await sessions.clinic.http.post("/v1/patients", json={}, headers=from_page(**headers))
    assert (answer.status_code, slug(answer)) == (403, "forged-request")
    assert sessions.clinic["patients"].seen == []


async def test_a_page_of_this_site_may_change_things(sessions: Sessions) -> None:
    answer = await sessions.clinic.http.post("/v1/patients", json={}, headers=from_page())
    assert answer.status_code == 200, answer.text


async def test_an_older_browser_is_judged_by_the_origin(sessions: Sessions) -> None:
    host = sessions.clinic.http.base_url
    own = f"http://{host.host}:{host.port}"
    for origin, status in ((own, 200), ("https://evil.example.org", 403), ("null", 403)):
        headers = cookie(**{"x-csrf-token": CSRF, "origin": origin})
        answer = await sessions.clinic.http.post("/v1/patients", json={}, headers=headers)
        assert answer.status_code == status, origin


async def test_a_sibling_site_reads_nothing_either(sessions: Sessions) -> None:
    for site, status in (("same-site", 403), ("cross-site", 403), ("none", 200), ("same-origin", 200)):
        headers = cookie(**{"sec-fetch-site": site})
        assert (await sessions.clinic.http.get("/v1/patients", headers=headers)).status_code == status, site


async def test_another_site_logs_nobody_in(sessions: Sessions) -> None:
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        headers = {"sec-fetch-site": site}
        answer = await sessions.clinic.http.post("/v1/browser/login", json={}, headers=headers)
        assert answer.status_code == status, site


async def test_no_token_reaches_the_page(sessions: Sessions) -> None:
    answer = await sessions.clinic.http.post("/v1/auth/step-up", json={}, headers=from_page())
    assert (answer.status_code, slug(answer)) == (409, "token-not-handed-out")
    assert (
        await sessions.clinic.http.post("/v1/browser/step-up", json={}, headers=from_page())
    ).status_code == 200


async def test_a_gateway_that_starts_anew_and_any_other_replica_know_the_cookie(
    start_clinic: StartClinic, reply: type[Reply]
) -> None:
    for _ in range(2):
        async with start_clinic("identity", "patients") as clinic:
            Sessions(clinic, reply)
            assert (await clinic.http.get("/v1/patients", headers=cookie())).status_code == 200


async def test_while_identity_is_away_a_session_lasts_as_long_as_its_token_is_kept(
    start_clinic: StartClinic,
) -> None:
    async with start_clinic("patients", down=("identity",)) as clinic:
        answer = await clinic.http.get("/v1/patients", headers=cookie())
        assert (answer.status_code, slug(answer)) == (503, "service-down")
