"""The page on which people log in for an app, as they meet it: in Chromium, by keyboard, with scripts and without."""

import base64
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from clinic_identity.totp import code_of_step, step_at
from clinic_shared.encryption.one_way import seal_for
from clinic_shared.ids import uuid7

from .authenticators import VirtualKey
from .chromium import Page
from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Clinic

PATIENT_LOGIN = "anna.testova@example.org"
PASSWORD = "a passphrase of my own"
NUMBER, CODE = "+70000000001", "493817"
VERIFIER_DIGEST = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # RFC 7636, appendix B


@dataclass
class LoginPage:
    """An app's login page in a browser, and the app's own page, to which it goes back."""

    clinic: Clinic
    page: Page

    @property
    def callback(self) -> str:
        return f"http://127.0.0.1:{urlsplit(self.clinic.url).port}/healthz"

    async def open(self) -> None:
        asked = {
            "response_type": "code",
            "client_id": "app-web",
            "redirect_uri": self.callback,
            "scope": "openid",
            "state": "state of the app",
            "nonce": "nonce of the app",
            "code_challenge": VERIFIER_DIGEST,
            "code_challenge_method": "S256",
        }
        await self.page.open(f"{self.clinic.url}/oauth2/authorize?{urlencode(asked)}")

    async def give_password(self, login: str, password: str) -> None:
        """Type both without touching the mouse."""
        await self.page.until("document.activeElement.id === 'login'")
        await self.page.type(login)
        await self.page.press_tab()
        await self.page.type(password)
        await self.page.press_enter()

    async def give_code(self, field: str, code: str) -> None:
        await self.page.until(f"document.activeElement.id === '{field}'")
        await self.page.type(code)
        await self.page.press_enter()

    async def heading(self, text: str) -> None:
        await self.page.until(f"document.querySelector('h1')?.textContent === {json.dumps(text)}")

    async def came_back(self) -> dict[str, list[str]]:
        """Wait until the browser is at the app again; return what it was told."""
        await self.page.until(f"location.href.startsWith({json.dumps(self.callback)})")
        return parse_qs(urlsplit(await self.page.run("location.href")).query)


@pytest.fixture
async def login_page(clinic: Clinic, page: Page) -> LoginPage:
    app = {
        "kind": "app",
        "name": "Test <img src=x onerror=alert(1)>",
        "client_id": "app-web",
        "public": True,
        "redirect_uris": ["http://127.0.0.1/healthz"],
        "user_scopes": ["appointments.read"],
    }
    assert (await as_role(clinic, "system-administrator", "/v1/clients", app)).status_code == 201
    return LoginPage(clinic, page)


async def as_role(clinic: Clinic, role: str, path: str, body: Any) -> httpx.Response:
    identity = clinic.identity
    return await identity.http.post(path, json=body, headers=identity.headers(identity.principal(role)))


@pytest.fixture
async def key(clinic: Clinic, login_page: LoginPage) -> VirtualKey:
    """The administrator's only second factor."""
    await login_page.page.open(f"{clinic.url}/welcome")
    made = await VirtualKey.plugged_in(login_page.page)
    token = await clinic.session_of()
    options = await clinic.post("/v1/me/mfa/passkeys/options", token=token)
    body = {"label": "My key", "credential": await made.create(options.json())}
    added = await clinic.post("/v1/me/mfa/passkeys", body, token)
    assert added.status_code == 201, added.text
    return made


async def text_message(clinic: Clinic, code: str = CODE) -> None:
    """Do as notifications does when a message with a code leaves."""
    asked = (await clinic.identity.events("identity.one-time-code-requested.v1"))[-1].data
    content = json.dumps({"code": code, "number": NUMBER}).encode()
    box = seal_for(asked["public_key"], content, f"one-time-code:{asked['request_id']}")
    await clinic.identity.deliver_example(
        "notifications.one-time-code-attempted.v1",
        request_id=asked["request_id"],
        version=1,
        box=base64.b64encode(box).decode(),
    )


@pytest.fixture
async def patient_with_phone(clinic: Clinic) -> str:
    """Return the login of a patient whose logins ask for a code by SMS."""
    patient_id = str(uuid7())
    await clinic.identity.deliver_example("patients.patient-registered.v1", patient_id=patient_id)
    invitation = {"patient_id": patient_id, "login": PATIENT_LOGIN}
    assert (await as_role(clinic, "registrar", "/v1/users/patients", invitation)).status_code == 201
    path = f"/v1/users/patients/{patient_id}/access-link"
    link = (await as_role(clinic, "registrar", path, {})).json()["url"].partition("token=")[2]
    accept = {"token": link, "new_password": PASSWORD}
    assert (await clinic.post("/v1/auth/access-links/accept", accept)).status_code == 204
    token = await clinic.session_of(PATIENT_LOGIN, PASSWORD)
    assert (await clinic.post("/v1/me/mfa/sms", token=token)).status_code == 202
    await text_message(clinic)
    confirmed = await clinic.post("/v1/me/mfa/sms/confirm", {"code": CODE}, token)
    assert confirmed.status_code == 200, confirmed.text
    clinic.identity.clock.advance(minutes=20)  # as if days had passed
    return PATIENT_LOGIN


async def test_somebody_with_a_passkey_alone_gets_in_by_keyboard(
    clinic: Clinic, login_page: LoginPage, key: VirtualKey
) -> None:
    await login_page.open()
    await login_page.give_password(ADMIN_LOGIN, ADMIN_PASSWORD)
    await login_page.heading("One more step")
    await login_page.page.until("document.activeElement.textContent === 'Use your passkey'")
    await login_page.page.press_enter()
    told = await login_page.came_back()
    assert (told["state"], told["code"][0][:3]) == (["state of the app"], "ac_")
    assert login_page.page.violations == login_page.page.dialogs == []


async def test_who_cancels_the_passkey_can_try_again(login_page: LoginPage, key: VirtualKey) -> None:
    await login_page.open()
    await login_page.give_password(ADMIN_LOGIN, ADMIN_PASSWORD)
    await login_page.heading("One more step")
    await key.verify_user(verified=False)
    await login_page.page.until("document.activeElement.textContent === 'Use your passkey'")
    await login_page.page.press_enter()
    await login_page.page.until("document.getElementById('passkey-problem').checkVisibility()")
    await login_page.page.until("document.activeElement.textContent === 'Use your passkey'")
    await key.verify_user(verified=True)
    await login_page.page.press_enter()
    assert "code" in await login_page.came_back()


async def test_without_scripts_a_passkey_is_no_dead_end_where_there_is_an_app_too(
    clinic: Clinic, login_page: LoginPage, key: VirtualKey
) -> None:
    ticket = await clinic.ticket_of()
    options = (await clinic.post("/v1/auth/mfa/passkey/options", {"ticket": ticket})).json()
    shown = {"ticket": ticket, "credential": await key.get(options)}
    token = (await clinic.post("/v1/auth/mfa/passkey", shown)).json()["access_token"]
    begun = (await clinic.post("/v1/me/mfa/totp", {"label": "My phone"}, token)).json()
    secret = base64.b32decode(begun["secret"])
    confirm = {"code": code_of_step(secret, step_at(clinic.identity.clock.now()))}
    path = f"/v1/me/mfa/totp/{begun['factor_id']}/confirm"
    assert (await clinic.post(path, confirm, token)).status_code == 200
    clinic.identity.clock.advance(seconds=60)
    await login_page.page.call("Emulation.setScriptExecutionDisabled", value=True)
    await login_page.open()
    await login_page.give_password(ADMIN_LOGIN, ADMIN_PASSWORD)
    await login_page.heading("One more step")
    text = await login_page.page.text()
    assert "Your passkey can't be used here" in text
    assert "Use your passkey" not in text
    await login_page.page.run("document.getElementById('totp').focus()")
    code = code_of_step(secret, step_at(clinic.identity.clock.now()))
    await login_page.give_code("totp", f"{code[:3]} {code[3:]}")
    assert "code" in await login_page.came_back()


async def test_a_patient_with_codes_by_sms_gets_in_without_scripts(
    clinic: Clinic, login_page: LoginPage, patient_with_phone: str
) -> None:
    await login_page.page.call("Emulation.setScriptExecutionDisabled", value=True)
    await login_page.open()
    await login_page.give_password(patient_with_phone, PASSWORD)
    await login_page.heading("One more step")
    await login_page.page.until("document.activeElement.textContent === 'Send me a code'")
    await login_page.page.press_enter()
    await login_page.page.until("document.activeElement.id === 'sms'")
    await text_message(clinic)
    await login_page.give_code("sms", "000000")
    await login_page.page.until("document.querySelector('[role=alert]')?.textContent.includes('newest')")
    await login_page.give_code("sms", CODE)
    assert "code" in await login_page.came_back()
    assert login_page.page.violations == []


async def test_a_second_code_has_to_wait_and_the_page_stays(
    clinic: Clinic, login_page: LoginPage, patient_with_phone: str
) -> None:
    await login_page.open()
    await login_page.give_password(patient_with_phone, PASSWORD)
    await login_page.page.until("document.activeElement.textContent === 'Send me a code'")
    await login_page.page.press_enter()
    await login_page.page.until("document.activeElement.id === 'sms'")
    await text_message(clinic)
    await login_page.page.run("document.querySelector('main form button[name=send]').click()")
    await login_page.page.until("document.querySelector('[role=alert]')?.textContent.includes('30 seconds')")
    await login_page.give_code("sms", CODE)
    assert "code" in await login_page.came_back()


async def test_the_page_fits_a_narrow_screen_and_runs_nothing_that_it_shows(
    login_page: LoginPage, key: VirtualKey
) -> None:
    """320 pixels are a window of 1280 at 400 % (WCAG 2.2, 1.4.10)."""
    page = login_page.page
    await page.call(
        "Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=True
    )
    await login_page.open()
    assert "onerror" in await page.text()
    assert await page.run("document.documentElement.scrollWidth") <= 320
    await login_page.give_password("<script>alert(1)</script>", "wrong")
    await page.until("document.querySelector('[role=alert]')?.textContent.includes('wrong')")
    await page.until("document.activeElement.id === 'password'")
    await page.run("document.getElementById('login').value = '', document.getElementById('login').focus()")
    await login_page.give_password(ADMIN_LOGIN, ADMIN_PASSWORD)
    await login_page.heading("One more step")
    assert await page.run("document.documentElement.scrollWidth") <= 320
    assert page.violations == page.dialogs == []
