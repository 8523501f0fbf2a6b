"""Second factors: adding them, finishing a login with them, what forgers and thieves try, losing them."""

import asyncio
import json
from typing import Any

import pytest
from clinic_identity.secret_box import BrokenSealError, SecretBox
from clinic_identity.tables import recovery_code, second_factor
from clinic_shared.ids import uuid7
from sqlalchemy import select

from .authenticator import ORIGIN, RP_ID, Authenticator
from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Installation, Network
from .factors import App, enrol_app, finish, ticket_of

PASSKEYS = {"passkey_rp_id": RP_ID, "passkey_origins": ORIGIN}


@pytest.fixture
def installation(installation: Installation) -> Installation:
    installation.settings |= PASSKEYS
    return installation


@pytest.fixture
async def session(network: Network) -> dict[str, Any]:
    return await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)


@pytest.fixture
async def app(network: Network, session: dict[str, Any]) -> App:
    """The administrator's app; its last code was used half a minute ago."""
    made, _ = await enrol_app(network, session["access_token"])
    network.identity.clock.advance(seconds=60)
    return made


async def ticket(network: Network) -> str:
    return await ticket_of(network, ADMIN_LOGIN, ADMIN_PASSWORD)


async def claims_of_session(network: Network, tokens: dict[str, Any]) -> Any:
    return await network.identity.runtime.verifier.verify(tokens["access_token"])


# -- authenticator apps


async def test_with_an_app_the_password_alone_opens_nothing(network: Network, app: App) -> None:
    asked = await network.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)
    assert asked.status_code == 401
    assert asked.json()["methods"] == ["recovery-code", "totp"]
    assert "access_token" not in asked.text
    done = await finish(network, "totp", asked.json()["ticket"], code=app.code())
    assert done.status_code == 200, done.text
    principal = await claims_of_session(network, done.json())
    assert (principal.acr, principal.amr) == ("aal2", ("pwd", "otp", "mfa"))
    assert principal.authenticated_at == network.identity.clock.now()


async def test_a_ticket_is_no_access_token(network: Network, app: App) -> None:
    answer = await network.with_token("GET", "/v1/me", await ticket(network))
    assert answer.status_code == 401


async def test_a_code_counts_once(network: Network, app: App) -> None:
    assert (await finish(network, "totp", await ticket(network), code=app.code())).status_code == 200
    again = await finish(network, "totp", await ticket(network), code=app.code())
    assert again.status_code == 401
    assert again.json()["type"] == "/problems/invalid-second-factor"
    earlier = await finish(network, "totp", await ticket(network), code=app.code(-1))
    assert earlier.status_code == 401  # the app has moved on, and so have we


async def test_of_two_logins_with_one_code_at_once_one_gets_in(network: Network, app: App) -> None:
    tickets = [await ticket(network), await ticket(network)]
    answers = await asyncio.gather(*(finish(network, "totp", one, code=app.code()) for one in tickets))
    assert sorted(answer.status_code for answer in answers) == [200, 401]


async def test_of_two_uses_of_one_ticket_at_once_one_gets_in(network: Network, app: App) -> None:
    one = await ticket(network)
    codes = [app.code(), app.code(1)]
    answers = await asyncio.gather(*(finish(network, "totp", one, code=code) for code in codes))
    assert sorted(answer.status_code for answer in answers) == [200, 401]


async def test_a_ticket_ends_after_five_minutes(network: Network, app: App, clock: Any) -> None:
    one = await ticket(network)
    clock.advance(minutes=5)
    assert (await finish(network, "totp", one, code=app.code())).status_code == 401


async def test_a_ticket_ends_with_a_change_of_the_password(network: Network, app: App) -> None:
    one, two = await ticket(network), await ticket(network)
    inside = (await finish(network, "totp", one, code=app.code())).json()
    change = {"current_password": ADMIN_PASSWORD, "new_password": "quite another passphrase"}
    changed = await network.with_token("POST", "/v1/me/password", inside["access_token"], change)
    assert changed.status_code == 204, changed.text
    assert (await finish(network, "totp", two, code=app.code(1))).status_code == 401


async def test_guesses_at_codes_wait_whatever_ticket_they_come_with(
    network: Network, app: App, clock: Any
) -> None:
    wrong = str((int(app.code()) + 1) % 10**6).zfill(6)
    statuses = [
        (await finish(network, "totp", await ticket(network), code=wrong)).status_code for _ in range(6)
    ]
    assert statuses == [401] * 5 + [429]
    clock.advance(seconds=1)
    assert (await finish(network, "totp", await ticket(network), code=wrong)).status_code == 401
    blocked = await finish(network, "totp", await ticket(network), code=app.code())
    assert (blocked.status_code, blocked.headers["Retry-After"]) == (429, "2")


async def test_a_ticket_takes_five_guesses(network: Network, app: App, clock: Any) -> None:
    one = await ticket(network)
    for _ in range(5):
        assert (await finish(network, "recovery-code", one, code="AAAA-BBBB")).status_code == 401
    assert (await finish(network, "totp", one, code=app.code())).status_code == 401


async def test_a_secret_is_sealed_for_its_place(network: Network, app: App) -> None:
    async with network.identity.runtime.database.transaction() as tx:
        row = (await tx.execute(select(second_factor))).one()
    assert app.secret not in row.secret
    box = SecretBox(b"k" * 32)
    sealed = box.seal(b"a secret", place="here")
    assert box.open(sealed, place="here") == b"a secret"
    for wrong, place in ((sealed, "there"), (sealed[:-1], "here"), (b"", "here")):
        with pytest.raises(BrokenSealError):
            box.open(wrong, place=place)
    for position in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[position] ^= 1
        with pytest.raises(BrokenSealError):
            box.open(bytes(flipped), place="here")


def test_what_an_earlier_key_sealed_still_opens() -> None:
    sealed = SecretBox(b"1" * 32).seal(b"a secret", place="here")
    rotated = SecretBox(b"2" * 32, [b"1" * 32])
    assert rotated.open(sealed, place="here") == b"a secret"
    assert not rotated.is_current(sealed)
    assert rotated.is_current(rotated.seal(b"a secret", place="here"))


async def test_an_app_that_was_never_confirmed_is_no_factor(
    network: Network, session: dict[str, Any]
) -> None:
    token = session["access_token"]
    for _ in range(2):
        begun = await network.with_token("POST", "/v1/me/mfa/totp", token, {"label": "My phone"})
        assert begun.status_code == 201, begun.text
    assert (await network.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)).status_code == 200
    path = f"/v1/me/mfa/totp/{begun.json()['factor_id']}/confirm"
    assert (await network.with_token("POST", path, token, {"code": "000000"})).status_code == 401
    async with network.identity.runtime.database.transaction() as tx:
        assert len((await tx.execute(select(second_factor))).all()) == 1


async def test_a_factor_ends_the_sessions_that_were_opened_without_it(
    network: Network, session: dict[str, Any]
) -> None:
    other = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    await enrol_app(network, session["access_token"])
    assert (await network.refresh(other["refresh_token"])).status_code == 401
    own = await network.refresh(session["refresh_token"])
    assert (await claims_of_session(network, own.json())).acr == "aal2"


# -- recovery codes


async def test_a_recovery_code_works_once(network: Network, session: dict[str, Any]) -> None:
    _, codes = await enrol_app(network, session["access_token"])
    assert len(set(codes)) == 10
    typed = codes[0].lower().replace("-", " ")
    assert (await finish(network, "recovery-code", await ticket(network), code=typed)).status_code == 200
    again = await finish(network, "recovery-code", await ticket(network), code=codes[0])
    assert again.status_code == 401
    left = await network.with_token("GET", "/v1/me/mfa", session["access_token"])
    assert left.json()["recovery_codes_left"] == 9


async def test_new_recovery_codes_void_the_old_ones_and_none_is_kept_in_clear(
    network: Network, session: dict[str, Any]
) -> None:
    _, old = await enrol_app(network, session["access_token"])
    token = (await network.refresh(session["refresh_token"])).json()["access_token"]
    renewed = await network.with_token("POST", "/v1/me/mfa/recovery-codes", token, {})
    assert renewed.status_code == 200, renewed.text
    assert (await finish(network, "recovery-code", await ticket(network), code=old[0])).status_code == 401
    new = renewed.json()["recovery_codes"]
    assert (await finish(network, "recovery-code", await ticket(network), code=new[0])).status_code == 200
    async with network.identity.runtime.database.transaction() as tx:
        kept = str((await tx.execute(select(recovery_code))).all())
    assert not any(code in kept or code.replace("-", "") in kept for code in [*old, *new])


# -- passkeys


async def enrol_passkey(network: Network, token: str, key: Authenticator) -> Any:
    options = await network.with_token("POST", "/v1/me/mfa/passkeys/options", token, {})
    assert options.status_code == 200, options.text
    body = {"label": "My key", "credential": key.create(options.json())}
    return await network.with_token("POST", "/v1/me/mfa/passkeys", token, body)


@pytest.fixture
async def key(network: Network, session: dict[str, Any]) -> Authenticator:
    """The administrator's only factor."""
    made = Authenticator()
    added = await enrol_passkey(network, session["access_token"], made)
    assert added.status_code == 201, added.text
    return made


async def options_for(network: Network, one: str) -> Any:
    answer = await network.identity.http.post("/v1/auth/mfa/passkey/options", json={"ticket": one})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_passkey_finishes_a_login(network: Network, key: Authenticator) -> None:
    one = await ticket(network)
    options = await options_for(network, one)
    assert options["userVerification"] == "required"
    done = await finish(network, "passkey", one, credential=key.get(options))
    assert done.status_code == 200, done.text
    principal = await claims_of_session(network, done.json())
    assert (principal.acr, principal.amr) == ("aal2", ("pwd", "hwk", "user", "mfa"))


FORGERIES: dict[str, dict[str, Any]] = {
    "another origin": {"origin": "https://clinic.test.evil.example"},
    "another site": {"rp_id": "evil.example"},
    "a user who wasn't verified": {"verifies_user": False},
    "a counter that went back": {"sign_count": -1},
    "another key": {"key": Authenticator().key},
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
async def test_a_forged_passkey_is_refused(
    network: Network, key: Authenticator, forgery: dict[str, Any]
) -> None:
    first = await ticket(network)
    used = await finish(network, "passkey", first, credential=key.get(await options_for(network, first)))
    assert used.status_code == 200
    forged = Authenticator(**{**vars(key), **forgery})
    one = await ticket(network)
    answer = await finish(network, "passkey", one, credential=forged.get(await options_for(network, one)))
    assert answer.status_code == 401
    assert answer.json()["type"] == "/problems/invalid-second-factor"


async def test_an_answer_can_be_sent_once_and_for_its_own_login_only(
    network: Network, key: Authenticator
) -> None:
    one, two = await ticket(network), await ticket(network)
    answer = key.get(await options_for(network, one))
    await options_for(network, two)
    assert (await finish(network, "passkey", two, credential=answer)).status_code == 401
    assert (await finish(network, "passkey", one, credential=answer)).status_code == 200
    three = await ticket(network)
    assert (await finish(network, "passkey", three, credential=answer)).status_code == 401


@pytest.mark.parametrize(
    "nonsense",
    [{}, {"id": "x"}, {"id": "x", "rawId": "x", "type": "public-key", "response": {"clientDataJSON": "%"}}],
)
async def test_what_no_browser_sends_is_refused_without_an_error(
    network: Network, key: Authenticator, nonsense: dict[str, Any]
) -> None:
    one = await ticket(network)
    await options_for(network, one)
    assert (await finish(network, "passkey", one, credential=nonsense)).status_code == 401


async def test_a_passkey_that_did_not_verify_its_user_is_not_added(
    network: Network, session: dict[str, Any]
) -> None:
    answer = await enrol_passkey(network, session["access_token"], Authenticator(verifies_user=False))
    assert answer.status_code == 401
    assert (await network.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)).status_code == 200


async def test_a_passkey_belongs_to_one_account(network: Network, key: Authenticator) -> None:
    member = await network.add_member()
    own = await network.session_of(member["login"], member["initial_password"])
    answer = await enrol_passkey(network, own["access_token"], key)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/factor-exists")


async def test_without_a_site_passkeys_are_not_offered(installation: Installation) -> None:
    async with installation.start(passkey_rp_id="") as running:
        network = Network(running, running.principal())
        token = (await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD))["access_token"]
        answer = await network.with_token("POST", "/v1/me/mfa/passkeys/options", token, {})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/passkeys-not-offered")


# -- changing factors needs one


async def test_who_has_a_factor_shows_it_before_adding_another(
    network: Network, app: App, session: dict[str, Any], clock: Any
) -> None:
    clock.advance(minutes=6)
    stale = (await network.refresh(session["refresh_token"])).json()["access_token"]
    refused = await network.with_token("POST", "/v1/me/mfa/totp", stale, {"label": "Another"})
    assert refused.status_code == 401
    challenge = refused.headers["WWW-Authenticate"]
    assert challenge == ('Bearer error="insufficient_user_authentication", acr_values="aal2", max_age=300')
    shown = {"method": "totp", "code": app.code()}
    fresh = await network.with_token("POST", "/v1/auth/step-up", stale, shown)
    assert fresh.status_code == 200, fresh.text
    again = await network.with_token(
        "POST", "/v1/me/mfa/totp", fresh.json()["access_token"], {"label": "Another"}
    )
    assert again.status_code == 201, again.text


async def test_a_stolen_token_cannot_add_or_remove_a_factor(
    network: Network, app: App, session: dict[str, Any], clock: Any
) -> None:
    clock.advance(minutes=6)
    stolen = (await network.refresh(session["refresh_token"])).json()["access_token"]
    factors = (await network.with_token("GET", "/v1/me/mfa", stolen)).json()["factors"]
    for method, path, body in (
        ("POST", "/v1/me/mfa/passkeys/options", {}),
        ("POST", "/v1/me/mfa/recovery-codes", {}),
        ("DELETE", f"/v1/me/mfa/{factors[0]['factor_id']}", None),
    ):
        assert (await network.with_token(method, path, stolen, body)).status_code == 401, path
    guess = {"method": "totp", "code": app.code(5)}
    assert (await network.with_token("POST", "/v1/auth/step-up", stolen, guess)).status_code == 401


async def test_the_last_factor_stays_where_a_role_needs_one(
    network: Network, app: App, session: dict[str, Any]
) -> None:
    token = (await network.refresh(session["refresh_token"])).json()["access_token"]
    [only] = (await network.with_token("GET", "/v1/me/mfa", token)).json()["factors"]
    path = f"/v1/me/mfa/{only['factor_id']}"
    kept = await network.with_token("DELETE", path, token)
    assert (kept.status_code, kept.json()["type"]) == (409, "/problems/last-factor")


# -- where the policy is enforced


@pytest.fixture
async def strict(installation: Installation) -> Any:
    async with installation.start(enforce_sign_in_policy=True) as running:
        yield Network(running, running.principal("system-administrator"))


async def test_an_administrator_without_a_factor_may_only_add_one(strict: Network) -> None:
    session = await strict.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    assert session["must_enrol"] is True
    token = session["access_token"]
    assert (await strict.with_token("GET", "/v1/staff", token)).status_code == 403
    await enrol_app(strict, token)
    full = (await strict.refresh(session["refresh_token"])).json()
    assert full["must_enrol"] is False
    assert (await strict.with_token("GET", "/v1/staff", full["access_token"])).status_code == 200


async def test_a_factor_cannot_be_added_for_ever_with_the_password_alone(strict: Network, clock: Any) -> None:
    await strict.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    clock.advance(hours=73)
    late = await strict.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)
    assert (late.status_code, late.json()["type"]) == (403, "/problems/enrolment-closed")


async def test_others_have_days_of_grace(strict: Network, clock: Any) -> None:
    clerk = strict.identity.principal("system-administrator", acr="aal2", authenticated_at=clock.now())
    answer = await strict.post("/v1/staff", strict.member(), by=clerk)
    assert answer.status_code == 201, answer.text
    member = answer.json()
    first = await strict.session_of(member["login"], member["initial_password"])
    assert first["must_enrol"] is False
    assert first["second_factor_due_at"] is not None
    clock.advance(hours=71)
    assert (await strict.log_in(member["login"], member["initial_password"])).json()["must_enrol"] is False


@pytest.mark.parametrize(
    ("acr", "minutes_ago", "status"), [("aal2", 4, 201), ("aal2", 6, 401), ("aal1", 0, 401), (None, 0, 401)]
)
async def test_giving_roles_needs_two_factors_shown_just_now(
    strict: Network, clock: Any, acr: str | None, minutes_ago: int, status: int
) -> None:
    shown_at = clock.now()
    clock.advance(minutes=minutes_ago)
    caller = strict.identity.principal("system-administrator", acr=acr, authenticated_at=shown_at)
    answer = await strict.post("/v1/staff", strict.member(), by=caller)
    assert answer.status_code == status, answer.text
    if status == 401:
        assert answer.json()["type"] == "/problems/insufficient-user-authentication"


# -- losing them


async def reset_requested(network: Network, account_id: str, by: Any) -> Any:
    path = f"/v1/users/{account_id}/factor-resets"
    return await network.post(path, {"reason": "Lost the phone, seen in person"}, by=by)


async def test_two_people_reset_what_a_third_one_lost(network: Network, app: App, clock: Any) -> None:
    me = (await finish(network, "totp", await ticket(network), code=app.code())).json()
    account_id = (await network.with_token("GET", "/v1/me", me["access_token"])).json()["account_id"]
    one, two = (network.identity.principal("privacy-officer") for _ in range(2))
    asked = await reset_requested(network, account_id, one)
    assert asked.status_code == 201, asked.text
    path = f"/v1/users/factor-resets/{asked.json()['reset_id']}/decision"
    own = await network.post(path, {"approve": True}, by=one)
    assert (own.status_code, own.json()["type"]) == (409, "/problems/own-reset")
    assert len((await network.get("/v1/users/factor-resets", by=two)).json()) == 1
    decided = await network.post(path, {"approve": True}, by=two)
    assert decided.status_code == 200, decided.text
    assert (await network.refresh(me["refresh_token"])).status_code == 401
    assert (await network.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)).status_code == 200
    twice = await network.post(path, {"approve": True}, by=two)
    assert (twice.status_code, twice.json()["type"]) == (409, "/problems/reset-decided")
    reasons = [r["reason"] for r in await network.audit() if r["entity"]["type"] == "SecondFactor"]
    assert reasons[-2:] == ["factor-reset-requested", "factor-reset-approved"]


async def test_nobody_decides_about_themselves(network: Network, app: App) -> None:
    me = (await finish(network, "totp", await ticket(network), code=app.code())).json()
    subject = (await network.with_token("GET", "/v1/me", me["access_token"])).json()["account_id"]
    myself = network.identity.principal("system-administrator", subject=subject)
    assert (await reset_requested(network, subject, myself)).status_code == 409
    asked = await reset_requested(network, subject, network.identity.principal("privacy-officer"))
    path = f"/v1/users/factor-resets/{asked.json()['reset_id']}/decision"
    assert (await network.post(path, {"approve": True}, by=myself)).status_code == 409


async def test_a_reset_that_nobody_decided_on_expires(network: Network, app: App, clock: Any) -> None:
    me = (await finish(network, "totp", await ticket(network), code=app.code())).json()
    subject = (await network.with_token("GET", "/v1/me", me["access_token"])).json()["account_id"]
    officers = [network.identity.principal("privacy-officer") for _ in range(2)]
    asked = await reset_requested(network, subject, officers[0])
    clock.advance(hours=24)
    path = f"/v1/users/factor-resets/{asked.json()['reset_id']}/decision"
    late = await network.post(path, {"approve": True}, by=officers[1])
    assert (late.status_code, late.json()["type"]) == (409, "/problems/reset-decided")
    assert (await reset_requested(network, str(uuid7()), officers[0])).status_code == 404


async def test_nothing_secret_is_in_the_audit_or_the_events(
    network: Network, session: dict[str, Any]
) -> None:
    app, codes = await enrol_app(network, session["access_token"])
    one = await ticket(network)
    done = await finish(network, "totp", one, code=app.code(1))
    told = json.dumps(await network.audit()) + str(await network.identity.events())
    secrets = [one, done.json()["access_token"], done.json()["refresh_token"], *codes]
    assert not any(secret in told for secret in secrets)
