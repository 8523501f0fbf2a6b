"""The first administrator's link, and what its page does."""

import asyncio
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from clinic_identity.bootstrap import invite_first_administrator
from clinic_identity.domain import FirstAdministratorExistsError, InvalidLoginError
from clinic_shared.testing import FixedClock, ServiceHarness

from .conftest import ADMIN_LOGIN, Installation, Network
from .factors import enrol_app, ticket_of

PASSWORD = "correct horse battery staple"


@pytest.fixture
async def empty(installation: Installation) -> Any:
    nobody = {"bootstrap_admin_login": None, "bootstrap_admin_password": None}
    async with installation.start(**nobody) as running:
        yield running


async def invite(identity: ServiceHarness, login: str = ADMIN_LOGIN) -> str:
    return await invite_first_administrator(identity.runtime.database, login)


async def accept(identity: ServiceHarness, token: str, password: str = PASSWORD) -> httpx.Response:
    body = {"token": token, "new_password": password}
    return await identity.http.post("/v1/auth/access-links/accept", json=body)


async def log_in(identity: ServiceHarness, password: str = PASSWORD) -> int:
    network = Network(identity, identity.principal())
    return (await network.log_in(ADMIN_LOGIN, password)).status_code


async def test_the_link_sets_the_password_of_an_administrator(empty: ServiceHarness) -> None:
    token = await invite(empty)
    assert (await accept(empty, token)).status_code == 204
    network = Network(empty, empty.principal())
    session = (await network.log_in(ADMIN_LOGIN, PASSWORD)).json()
    me = (await network.with_token("GET", "/v1/me", session["access_token"])).json()
    assert me["roles"] == ["system-administrator"]
    assert not me["must_change_password"]


async def test_the_link_works_once(empty: ServiceHarness) -> None:
    token = await invite(empty)
    answers = await asyncio.gather(*(accept(empty, token, f"{PASSWORD} {n}") for n in range(4)))
    assert sorted(answer.status_code for answer in answers) == [204, 410, 410, 410]
    assert (await accept(empty, token)).json()["type"].endswith("/link-not-valid")


async def test_before_the_link_is_used_nobody_can_log_in(empty: ServiceHarness) -> None:
    await invite(empty)
    assert [await log_in(empty, guess) for guess in (PASSWORD, "!", " ")] == [401, 401, 401]


async def test_a_newer_link_replaces_the_older_one(empty: ServiceHarness) -> None:
    older, newer = await invite(empty), await invite(empty)
    assert (await accept(empty, older)).status_code == 410
    assert (await accept(empty, newer)).status_code == 204


async def test_the_link_expires(empty: ServiceHarness, clock: FixedClock) -> None:
    token = await invite(empty)
    clock.advance(hours=24, seconds=1)
    assert (await accept(empty, token)).status_code == 410


async def test_a_weak_password_leaves_the_link_as_it_is(empty: ServiceHarness) -> None:
    token = await invite(empty)
    assert (await accept(empty, token, "short")).status_code == 422
    assert (await accept(empty, token)).status_code == 204


async def test_once_there_is_an_administrator_no_link_is_made(
    empty: ServiceHarness, identity: ServiceHarness
) -> None:
    with pytest.raises(FirstAdministratorExistsError):
        await invite(identity)
    with pytest.raises(InvalidLoginError):
        await invite(empty, "not an address")


async def test_two_operators_at_once_make_one_administrator(empty: ServiceHarness) -> None:
    tokens = await asyncio.gather(*(invite(empty) for _ in range(4)))
    answers = [(await accept(empty, token)).status_code for token in tokens]
    assert sorted(answers) == [204, 410, 410, 410]


class _Fields(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "input" and found.get("name"):
            self.values[str(found["name"])] = found.get("value") or ""


async def test_the_page_leads_to_a_password(empty: ServiceHarness) -> None:
    token = await invite(empty)
    page = await empty.http.get("/welcome", params={"token": token})
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    form = _Fields(page.text).values
    differing = await empty.http.post("/welcome", data={**form, "password": PASSWORD, "again": "other"})
    assert "differ" in differing.text
    weak = await empty.http.post("/welcome", data={**form, "password": "short", "again": "short"})
    assert "too short" in weak.text
    done = await empty.http.post("/welcome", data={**form, "password": PASSWORD, "again": PASSWORD})
    assert "log in" in done.text
    assert await log_in(empty) == 200
    again = await empty.http.post("/welcome", data={**form, "password": PASSWORD, "again": PASSWORD})
    assert again.status_code == 410


async def test_what_stands_in_the_link_cannot_become_markup(empty: ServiceHarness) -> None:
    page = await empty.http.get("/welcome", params={"token": '"><script>alert(1)</script>'})
    assert "<script>" not in page.text


async def test_a_link_to_hand_over_belongs_to_the_configured_site_whatever_the_request_says(
    installation: Installation, clock: Any
) -> None:
    async with installation.start(url="https://clinic.example") as running:
        network = Network(running, running.principal("system-administrator"))
        member = await network.add_member()
        headers = network.identity.headers(network.admin) | {
            "Host": "evil.example",
            "X-Forwarded-Host": "evil.example",
        }
        path = f"/v1/staff/{member['staff_id']}/access-link"
        made = await running.http.post(path, headers=headers, json={})
        assert made.status_code == 200, made.text
        assert made.json()["url"].startswith("https://clinic.example/welcome?token=al_")
        assert made.json()["expires_at"] == "2026-03-05T06:00:00Z"  # an invitation: three days
        token = made.json()["url"].partition("token=")[2]
        accepted = await accept(network.identity, token, "a passphrase of my own")
        assert accepted.status_code == 204, accepted.text
        reset = (await running.http.post(path, headers=headers, json={})).json()
        assert reset["expires_at"] == "2026-03-02T06:15:00Z"  # a reset: a quarter of an hour
        clock.advance(minutes=15)
        late = await accept(
            network.identity, reset["url"].partition("token=")[2], "another passphrase of mine"
        )
        assert late.status_code == 410


async def test_a_link_replaces_the_password_and_not_the_second_factor(network: Network) -> None:
    member = await network.add_member()
    session = await network.session_of(member["login"], member["initial_password"])
    await enrol_app(network, session["access_token"])
    made = (await network.post(f"/v1/staff/{member['staff_id']}/access-link")).json()
    token = made["url"].partition("token=")[2]
    assert (await accept(network.identity, token, "a passphrase of my own")).status_code == 204
    await ticket_of(network, member["login"], "a passphrase of my own")


async def test_a_password_of_names_and_common_words_is_refused(network: Network) -> None:
    member = await network.add_member()
    made = (await network.post(f"/v1/staff/{member['staff_id']}/access-link")).json()
    answer = await accept(network.identity, made["url"].partition("token=")[2], "Vracheva-Testina-2026")
    assert (answer.status_code, answer.json()["reasons"]) == (422, ["guessable"])
