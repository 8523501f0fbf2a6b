"""Passkeys as Chromium makes and uses them: its virtual authenticator stands where somebody's key would."""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from clinic_shared.principal import Principal

from .authenticators import VirtualKey
from .chromium import FOREIGN, Browser, Page, ScriptError
from .conftest import ADMIN_LOGIN, Clinic

OPTIONS_FOR_LOGIN = "/v1/auth/mfa/passkey/options"
OPTIONS_FOR_STEP_UP = "/v1/auth/step-up/passkey/options"


@dataclass
class Person:
    """Somebody with a passkey, in front of a page of the clinic's site."""

    clinic: Clinic
    key: VirtualKey
    login: str = ADMIN_LOGIN

    async def register(self, token: str) -> httpx.Response:
        options = await self.clinic.post("/v1/me/mfa/passkeys/options", token=token)
        assert options.status_code == 200, options.text
        return await self.add(token, await self.key.create(options.json()))

    async def add(self, token: str, credential: dict[str, Any]) -> httpx.Response:
        body = {"label": "My key", "credential": credential}
        return await self.clinic.post("/v1/me/mfa/passkeys", body, token)

    async def options(self, ticket: str, **changes: Any) -> dict[str, Any]:
        answer = await self.clinic.post(OPTIONS_FOR_LOGIN, {"ticket": ticket})
        assert answer.status_code == 200, answer.text
        return answer.json() | changes

    async def finish(self, ticket: str, credential: dict[str, Any]) -> httpx.Response:
        return await self.clinic.post("/v1/auth/mfa/passkey", {"ticket": ticket, "credential": credential})

    async def log_in(self) -> httpx.Response:
        ticket = await self.clinic.ticket_of(self.login)
        return await self.finish(ticket, await self.key.get(await self.options(ticket)))


@pytest.fixture
async def admin(clinic: Clinic, page: Page) -> Person:
    """The administrator, who has just added a passkey."""
    await page.open(f"{clinic.url}/welcome")
    person = Person(clinic, await VirtualKey.plugged_in(page))
    added = await person.register(await clinic.session_of())
    assert added.status_code == 201, added.text
    return person


async def claims_of(clinic: Clinic, answer: httpx.Response) -> Principal:
    assert answer.status_code == 200, answer.text
    return await clinic.identity.runtime.verifier.verify(answer.json()["access_token"])


def is_refused(answer: httpx.Response) -> bool:
    return (answer.status_code, answer.json()["type"]) == (401, "/problems/invalid-second-factor")


async def test_a_passkey_made_by_a_browser_finishes_a_login(clinic: Clinic, admin: Person) -> None:
    principal = await claims_of(clinic, await admin.log_in())
    assert (principal.acr, "hwk" in principal.amr) == ("aal2", True)
    assert (await admin.key.credential())["signCount"] > 1


async def test_a_passkey_steps_a_session_up(clinic: Clinic, admin: Person) -> None:
    token = (await admin.log_in()).json()["access_token"]
    later = clinic.identity.clock.advance(seconds=200)
    asked = await clinic.post(OPTIONS_FOR_STEP_UP, token=token)
    assert asked.status_code == 200, asked.text
    shown = {"method": "passkey", "credential": await admin.key.get(asked.json())}
    stepped = await clinic.post("/v1/auth/step-up", shown, token)
    assert (await claims_of(clinic, stepped)).authenticated_at == later.replace(microsecond=0)


async def test_the_key_that_is_known_is_not_registered_again(clinic: Clinic, admin: Person) -> None:
    token = (await admin.log_in()).json()["access_token"]
    with pytest.raises(ScriptError) as refused:
        await admin.register(token)
    assert refused.value.name == "InvalidStateError"


async def test_an_answer_counts_once_and_for_its_own_login(clinic: Clinic, admin: Person) -> None:
    one, other = await clinic.ticket_of(), await clinic.ticket_of()
    shown = await admin.key.get(await admin.options(one))
    await admin.options(other)
    assert is_refused(await admin.finish(other, shown))
    assert (await admin.finish(one, shown)).status_code == 200
    assert is_refused(await admin.finish(one, shown))


async def test_a_key_that_does_not_verify_its_user_opens_nothing(
    clinic: Clinic, admin: Person, page: Page
) -> None:
    """The browser keeps to what we ask for. A page can ask for less; we look at the answer."""
    credential = await admin.key.credential()
    await admin.key.unplug()
    admin.key = await VirtualKey.plugged_in(page, hasUserVerification=False, isUserVerified=False)
    await admin.key.put(credential)
    ticket = await clinic.ticket_of()
    with pytest.raises(ScriptError) as refused:
        await admin.key.get(await admin.options(ticket, timeout=1000))
    assert refused.value.name == "NotAllowedError"
    unverified = await admin.key.get(await admin.options(ticket, userVerification="discouraged"))
    assert is_refused(await admin.finish(ticket, unverified))


async def test_a_key_that_does_not_verify_its_user_is_not_added(clinic: Clinic, page: Page) -> None:
    await page.open(f"{clinic.url}/welcome")
    key = await VirtualKey.plugged_in(page, hasUserVerification=False, isUserVerified=False)
    token = await clinic.session_of()
    options = (await clinic.post("/v1/me/mfa/passkeys/options", token=token)).json()
    options["authenticatorSelection"]["userVerification"] = "discouraged"
    assert is_refused(await Person(clinic, key).add(token, await key.create(options)))


async def test_a_copy_of_a_key_that_counts_from_the_beginning_is_refused(
    clinic: Clinic, admin: Person, page: Page
) -> None:
    for _ in range(2):
        assert (await admin.log_in()).status_code == 200
    copy = await admin.key.credential() | {"signCount": 1}
    await admin.key.unplug()
    admin.key = await VirtualKey.plugged_in(page)
    await admin.key.put(copy)
    assert is_refused(await admin.log_in())


async def test_another_persons_key_and_a_key_that_nobody_registered_are_refused(
    clinic: Clinic, browser: Browser, admin: Person
) -> None:
    login, password = await add_doctor(clinic)
    async with browser.page() as page:
        await page.open(f"{clinic.url}/welcome")
        other = Person(clinic, await VirtualKey.plugged_in(page), login)
        token = await clinic.session_of(login, password)
        options = await clinic.post("/v1/me/mfa/passkeys/options", token=token)
        made = await other.key.create(options.json())
        for register in (False, True):
            if register:
                assert (await other.add(token, made)).status_code == 201
            ticket = await clinic.ticket_of()
            # Whatever key is plugged in answers.
            shown = await other.key.get(await admin.options(ticket, allowCredentials=[]))
            assert shown["id"] == made["id"]
            assert is_refused(await admin.finish(ticket, shown))


async def add_doctor(clinic: Clinic) -> tuple[str, str]:
    """Return the login and password of a new member of staff."""
    body = {
        "name": {"family": "Vracheva", "given": "Testina"},
        "login": "testina.vracheva@example.org",
        "roles": ["doctor"],
        "practitioner": True,
        "specialty": "dermatology",
    }
    headers = clinic.identity.headers(clinic.identity.principal("system-administrator"))
    made = await clinic.identity.http.post("/v1/staff", json=body, headers=headers)
    assert made.status_code == 201, made.text
    return made.json()["login"], made.json()["initial_password"]


async def test_without_its_own_key_the_browser_has_nothing_to_answer(
    clinic: Clinic, browser: Browser, admin: Person
) -> None:
    async with browser.page() as page:
        await page.open(f"{clinic.url}/welcome")
        key = await VirtualKey.plugged_in(page)
        with pytest.raises(ScriptError) as refused:
            await key.get(await admin.options(await clinic.ticket_of(), timeout=1000))
        assert refused.value.name == "NotAllowedError"


async def test_a_page_at_another_port_gets_an_answer_that_we_refuse(
    clinic: Clinic, admin: Person, page: Page
) -> None:
    """To browsers ports are one site, whose passkeys all its pages may ask for; ours are listed."""
    await page.open(f"{clinic.other_url}/welcome")
    ticket = await clinic.ticket_of()
    shown = await admin.key.get(await admin.options(ticket))
    assert is_refused(await admin.finish(ticket, shown))


async def test_pages_of_other_sites_get_no_answer_from_the_browser(
    clinic: Clinic, admin: Person, page: Page
) -> None:
    port = clinic.url.rpartition(":")[2]
    options = await admin.options(await clinic.ticket_of())
    await page.open(f"http://127.0.0.1:{port}/welcome")
    with pytest.raises(ScriptError) as refused:
        await admin.key.get(options)
    assert refused.value.name == "SecurityError"
    await page.open(f"http://{FOREIGN}:{port}/welcome")
    assert await page.run("isSecureContext") is False
    assert await page.run("typeof navigator.credentials") == "undefined"
