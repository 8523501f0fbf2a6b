"""Codes by SMS: for patients alone, to a number they verified, for one login; what guessers and thieves try."""

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_identity import tables
from clinic_identity.sign_in_policy import SignInPolicy
from clinic_identity.totp import code_of_step, step_at
from clinic_shared import contracts
from clinic_shared.encryption.one_way import seal_for
from clinic_shared.events import audit_outbox
from clinic_shared.testing import FixedClock, ServiceHarness
from sqlalchemy import select, update

from .conftest import Network
from .factors import enrol_app, finish, ticket_of

REQUESTED = "identity.one-time-code-requested.v1"
ATTEMPTED = "notifications.one-time-code-attempted.v1"
PASSWORD = "a passphrase of my own"
NUMBER, OTHER_NUMBER = "+70000000001", "+70000000002"
CODE, OTHER_CODE = "493817", "160275"


async def last_request(identity: ServiceHarness) -> dict[str, Any]:
    return (await identity.events(REQUESTED))[-1].data


async def send(
    identity: ServiceHarness,
    asked: dict[str, Any],
    *,
    code: str = CODE,
    number: str = NUMBER,
    version: int = 1,
) -> None:
    """Do as notifications does when a message with a code leaves."""
    content = json.dumps({"code": code, "number": number}).encode()
    box = seal_for(asked["public_key"], content, f"one-time-code:{asked['request_id']}")
    told = {"request_id": asked["request_id"], "version": version, "box": base64.b64encode(box).decode()}
    await identity.deliver_example(ATTEMPTED, **told)


@dataclass
class Anna:
    """A patient with a password, and with a number once it is verified."""

    network: Network
    patient_id: UUID
    login: str = "anna.testova@example.org"
    session: dict[str, Any] = field(default_factory=dict)
    recovery_codes: list[str] = field(default_factory=list)

    async def begin(self) -> httpx.Response:
        return await self.network.with_token("POST", "/v1/me/mfa/sms", self.token)

    async def confirm(self, code: str = CODE) -> httpx.Response:
        body = {"code": code}
        return await self.network.with_token("POST", "/v1/me/mfa/sms/confirm", self.token, body)

    async def verify(self) -> None:
        assert (await self.begin()).status_code == 202
        await send(self.network.identity, await last_request(self.network.identity))
        confirmed = await self.confirm()
        assert confirmed.status_code == 200, confirmed.text
        self.recovery_codes = confirmed.json()["recovery_codes"]
        self.network.identity.clock.advance(minutes=20)  # as if days had passed

    @property
    def token(self) -> str:
        return str(self.session["access_token"])

    async def ticket(self) -> str:
        return await ticket_of(self.network, self.login, PASSWORD)

    async def ask(self, ticket: str) -> dict[str, Any]:
        """Ask for a code; return what notifications hears."""
        answer = await ask_for_code(self.network, ticket)
        assert (answer.status_code, answer.content) == (202, b"")
        return await last_request(self.network.identity)


async def ask_for_code(network: Network, ticket: str) -> httpx.Response:
    return await network.identity.http.post("/v1/auth/mfa/sms/send", json={"ticket": ticket})


@pytest.fixture
async def anna(network: Network) -> Anna:
    patient_id = await network.know_patient()
    made = Anna(network, patient_id)
    registrar = network.identity.principal("registrar")
    body = {"patient_id": str(patient_id), "login": made.login}
    assert (await network.post("/v1/users/patients", body, by=registrar)).status_code == 201
    link = await network.post(f"/v1/users/patients/{patient_id}/access-link", by=registrar)
    accept = {"token": link.json()["url"].partition("token=")[2], "new_password": PASSWORD}
    assert (await network.identity.http.post("/v1/auth/access-links/accept", json=accept)).status_code == 204
    made.session = await network.session_of(made.login, PASSWORD)
    return made


@pytest.fixture
async def verified(anna: Anna) -> Anna:
    await anna.verify()
    return anna


async def test_with_a_verified_number_a_login_asks_for_its_code(network: Network, verified: Anna) -> None:
    asked = await network.log_in(verified.login, PASSWORD)
    assert (asked.status_code, asked.json()["methods"]) == (401, ["recovery-code", "sms"])
    ticket = asked.json()["ticket"]
    await send(network.identity, await verified.ask(ticket))
    done = await finish(network, "sms", ticket, code=CODE)
    assert done.status_code == 200, done.text
    principal = await network.identity.runtime.verifier.verify(done.json()["access_token"])
    assert (principal.acr, principal.amr) == ("aal1", ("pwd", "sms"))
    assert principal.patient_id == verified.patient_id


async def test_a_browser_finishes_its_login_with_one(network: Network, verified: Anna) -> None:
    ticket = await verified.ticket()
    await send(network.identity, await verified.ask(ticket))
    body = {"ticket": ticket, "method": "sms", "code": CODE}
    done = await network.identity.http.post("/v1/browser/mfa", json=body)
    assert done.status_code == 200, done.text


async def test_until_a_number_is_verified_nothing_is_asked_for(network: Network, anna: Anna) -> None:
    assert (await anna.begin()).status_code == 202
    await send(network.identity, await last_request(network.identity))
    assert (await network.log_in(anna.login, PASSWORD)).status_code == 200
    assert (await anna.confirm(OTHER_CODE)).status_code == 401
    assert (await network.log_in(anna.login, PASSWORD)).status_code == 200


async def test_staff_get_no_codes(network: Network, verified: Anna) -> None:
    member = await network.add_member()
    session = await network.session_of(member["login"], member["initial_password"])
    before = len(await network.identity.events(REQUESTED))
    refused = await network.with_token("POST", "/v1/me/mfa/sms", session["access_token"])
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/sms-not-allowed")
    await enrol_app(network, session["access_token"])
    ticket = await ticket_of(network, member["login"], member["initial_password"])
    assert (await ask_for_code(network, ticket)).status_code == 401
    assert (await finish(network, "sms", ticket, code=CODE)).status_code == 401
    assert len(await network.identity.events(REQUESTED)) == before


def test_no_role_of_staff_may_use_them() -> None:
    roles = contracts.load().taxonomy("roles")["roles"]
    policy = SignInPolicy.load(contracts.CONTRACTS_DIR, enforced=True)
    allowed = {code for code in roles if policy.rules_of([code]).sms_allowed}
    assert allowed == {"patient"}
    assert not policy.rules_of([]).sms_allowed


async def test_a_code_counts_once(network: Network, verified: Anna) -> None:
    ticket = await verified.ticket()
    await send(network.identity, await verified.ask(ticket))
    assert (await finish(network, "sms", ticket, code=CODE)).status_code == 200
    assert (await finish(network, "sms", ticket, code=CODE)).status_code == 401
    assert (await finish(network, "sms", await verified.ticket(), code=CODE)).status_code == 401


async def test_a_code_counts_for_its_own_login_alone(network: Network, verified: Anna) -> None:
    mine, thiefs = await verified.ticket(), await verified.ticket()
    await send(network.identity, await verified.ask(mine))
    assert (await finish(network, "sms", thiefs, code=CODE)).status_code == 401
    assert (await finish(network, "sms", mine, code=CODE)).status_code == 200


async def test_a_code_ends_after_five_minutes(network: Network, verified: Anna, clock: FixedClock) -> None:
    ticket = await verified.ticket()
    await send(network.identity, await verified.ask(ticket))
    clock.advance(minutes=5)
    assert (await finish(network, "sms", ticket, code=CODE)).status_code == 401


async def test_five_wrong_guesses_end_the_login_and_a_new_code_gives_no_more(
    network: Network, verified: Anna, clock: FixedClock
) -> None:
    ticket = await verified.ticket()
    await send(network.identity, await verified.ask(ticket))
    for _ in range(3):
        assert (await finish(network, "sms", ticket, code="000000")).status_code == 401
    clock.advance(seconds=30)
    await send(network.identity, await verified.ask(ticket))
    for _ in range(2):
        assert (await finish(network, "sms", ticket, code="000000")).status_code == 401
    clock.advance(seconds=30)
    assert (await finish(network, "sms", ticket, code=CODE)).status_code == 401


async def test_where_no_code_would_count_any_more_none_is_sent(
    network: Network, anna: Anna, clock: FixedClock
) -> None:
    assert (await anna.begin()).status_code == 202
    async with network.identity.runtime.database.transaction() as tx:
        await tx.execute(update(tables.one_time_code).values(failures=5))
    clock.advance(seconds=30)
    refused = await anna.begin()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "270")
    clock.advance(seconds=270)
    assert (await anna.begin()).status_code == 202
    await send(network.identity, await last_request(network.identity))
    assert (await anna.confirm()).status_code == 200


async def test_a_number_is_sealed_anew_under_a_new_key(
    network: Network, verified: Anna, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stored() -> bytes:
        async with network.identity.runtime.database.transaction() as tx:
            return bytes((await tx.execute(select(tables.sms_factor.c.sealed_number))).scalar_one())

    before = await stored()
    ticket = await verified.ticket()
    assert await stored() == before
    monkeypatch.setattr("clinic_identity.secret_box.SecretBox.is_current", lambda *_: False)
    await send(network.identity, await verified.ask(ticket))
    assert await stored() != before
    assert (await finish(network, "sms", ticket, code=CODE)).status_code == 200


async def test_whoever_has_only_the_phone_gets_no_link_to_a_new_password(
    network: Network, verified: Anna
) -> None:
    answer = await network.identity.http.post("/v1/auth/access-links", json={"login": verified.login})
    assert answer.status_code == 202
    await network.identity.fire_timers()
    assert await network.identity.events("identity.access-link-requested.v1") == []


async def test_guesses_wait_whatever_login_they_come_with(network: Network, verified: Anna) -> None:
    statuses = [
        (await finish(network, "sms", await verified.ticket(), code="000000")).status_code for _ in range(6)
    ]
    assert statuses == [401] * 5 + [429]


async def test_after_a_resend_the_newest_code_counts(
    network: Network, verified: Anna, clock: FixedClock
) -> None:
    ticket = await verified.ticket()
    first = await verified.ask(ticket)
    await send(network.identity, first)
    assert (await ask_for_code(network, ticket)).status_code == 429
    clock.advance(seconds=30)
    await send(network.identity, await verified.ask(ticket), code=OTHER_CODE)
    await send(network.identity, first, version=9)  # comes late, of what was replaced
    assert (await finish(network, "sms", ticket, code=CODE)).status_code == 401
    assert (await finish(network, "sms", ticket, code=OTHER_CODE)).status_code == 200


async def test_three_codes_are_sent_in_a_quarter_of_an_hour(
    network: Network, verified: Anna, clock: FixedClock
) -> None:
    for _ in range(3):
        await verified.ask(await verified.ticket())
        clock.advance(seconds=31)
    refused = await ask_for_code(network, await verified.ticket())
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 900
    clock.advance(minutes=15)
    await verified.ask(await verified.ticket())


async def test_a_code_that_went_to_another_number_than_the_verified_one_opens_nothing(
    network: Network, verified: Anna
) -> None:
    ticket = await verified.ticket()
    await send(network.identity, await verified.ask(ticket), number=OTHER_NUMBER)
    assert (await finish(network, "sms", ticket, code=CODE)).status_code == 401


async def test_a_forged_box_opens_nothing(network: Network, verified: Anna) -> None:
    ticket = await verified.ticket()
    asked = await verified.ask(ticket)
    elsewhere = {**asked, "request_id": str(verified.patient_id)}
    content = json.dumps({"code": CODE, "number": NUMBER}).encode()
    for context in (f"one-time-code:{elsewhere['request_id']}", ""):
        box = base64.b64encode(seal_for(asked["public_key"], content, context)).decode()
        await network.identity.deliver_example(
            ATTEMPTED, request_id=asked["request_id"], version=1 + len(context), box=box
        )
        assert (await finish(network, "sms", ticket, code=CODE)).status_code == 401


async def test_what_wants_two_factors_does_not_take_a_code_by_sms(network: Network, verified: Anna) -> None:
    ticket = await verified.ticket()
    await send(network.identity, await verified.ask(ticket))
    inside = (await finish(network, "sms", ticket, code=CODE)).json()
    body = {"method": "sms", "code": CODE}
    refused = await network.with_token("POST", "/v1/auth/step-up", inside["access_token"], body)
    assert refused.status_code == 422


async def test_a_recovery_code_lets_in_whoever_lost_the_phone(network: Network, verified: Anna) -> None:
    first, second = verified.recovery_codes[:2]
    done = await finish(network, "recovery-code", await verified.ticket(), code=first)
    assert done.status_code == 200, done.text
    principal = await network.identity.runtime.verifier.verify(done.json()["access_token"])
    assert principal.acr == "aal1"
    assert (await finish(network, "recovery-code", await verified.ticket(), code=first)).status_code == 401
    token = done.json()["access_token"]
    renewed = await network.with_token("POST", "/v1/me/mfa/recovery-codes", token)
    assert renewed.status_code == 200, renewed.text
    assert (await finish(network, "recovery-code", await verified.ticket(), code=second)).status_code == 401
    assert (await network.with_token("DELETE", "/v1/me/mfa/sms", token)).status_code == 204
    assert (await network.with_token("GET", "/v1/me/mfa", token)).json()["recovery_codes_left"] == 0


async def test_an_app_takes_the_place_of_codes_by_sms(
    network: Network, verified: Anna, clock: FixedClock
) -> None:
    ticket = await verified.ticket()
    await send(network.identity, await verified.ask(ticket))
    inside = (await finish(network, "sms", ticket, code=CODE)).json()
    app, _ = await enrol_app(network, inside["access_token"])
    clock.advance(minutes=1)
    asked = await network.log_in(verified.login, PASSWORD)
    assert asked.json()["methods"] == ["recovery-code", "totp"]
    ticket = asked.json()["ticket"]
    assert (await ask_for_code(network, ticket)).status_code == 401
    code = code_of_step(app.secret, step_at(clock.now()))
    assert (await finish(network, "totp", ticket, code=code)).status_code == 200


async def test_with_the_password_alone_nobody_takes_the_number_away(network: Network, verified: Anna) -> None:
    """The session from before has been idle for long; a new one takes the code."""
    gone = await network.with_token("DELETE", "/v1/me/mfa/sms", verified.token)
    assert gone.status_code == 401
    ticket = await verified.ticket()
    await send(network.identity, await verified.ask(ticket))
    inside = (await finish(network, "sms", ticket, code=CODE)).json()["access_token"]
    assert (await network.with_token("GET", "/v1/me/mfa", inside)).json()["sms"]
    assert (await network.with_token("DELETE", "/v1/me/mfa/sms", inside)).status_code == 204
    assert (await network.log_in(verified.login, PASSWORD)).status_code == 200


async def test_neither_code_nor_number_is_kept_in_clear(
    network: Network, verified: Anna, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    ticket = await verified.ticket()
    await send(network.identity, await verified.ask(ticket))
    async with network.identity.runtime.database.transaction() as tx:
        kept = [
            bytes(value) if isinstance(value, memoryview) else value
            for table in (tables.one_time_code, tables.sms_factor, tables.second_factor, audit_outbox)
            for row in await tx.fetch_all(select(table))
            for value in row
        ]
    assert (await finish(network, "sms", ticket, code=CODE)).status_code == 200
    events = [(event.data, event.private) for event in await network.identity.events()]
    everything = f"{kept}{events}{caplog.text}{capsys.readouterr()}"
    assert re.search(rf"(?<=[=\s'\"]){CODE}(?=[\s'\"])", everything) is None  # ids hold any six digits
    assert NUMBER not in everything


async def test_a_reset_by_two_people_takes_the_number_too(network: Network, verified: Anna) -> None:
    account = next(
        record["entity"]["id"] for record in await network.audit() if record["reason"] == "second-factor-sms"
    )
    first, second = (network.identity.principal("system-administrator") for _ in range(2))
    asked = await network.post(
        f"/v1/users/{account}/factor-resets", {"reason": "Lost the phone, seen in person"}, by=first
    )
    assert asked.status_code == 201, asked.text
    path = f"/v1/users/factor-resets/{asked.json()['reset_id']}/decision"
    assert (await network.post(path, {"approve": True}, by=second)).status_code == 200
    assert (await network.log_in(verified.login, PASSWORD)).status_code == 200
