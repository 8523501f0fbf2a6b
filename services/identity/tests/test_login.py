"""Logging in: the token, the same answer for everybody who fails, and waiting after failures."""

import asyncio
import base64
import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from clinic_identity.passwords import PasswordHasher
from clinic_identity.tables import account, attempt_counter
from clinic_shared import contracts
from clinic_shared.auth import TokenVerifier
from clinic_shared.errors import TemporarilyUnavailableError
from clinic_shared.ids import uuid7
from clinic_shared.metrics import REGISTRY
from clinic_shared.testing import ISSUER
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from sqlalchemy import select, update

from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Installation, Network

WRONG = "not the password"


def without_request_id(answer: httpx.Response) -> dict[str, Any]:
    return {k: v for k, v in answer.json().items() if k not in {"request_id", "instance"}}


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def claims_in(token: str) -> dict[str, Any]:
    return dict(json.loads(decoded(token.split(".")[1])))


async def fail(network: Network, times: int, login: str = ADMIN_LOGIN, **more: Any) -> list[int]:
    return [(await network.log_in(login, WRONG, **more)).status_code for _ in range(times)]


async def test_the_administrator_of_the_settings_logs_in(network: Network) -> None:
    session = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    me = await network.with_token("GET", "/v1/me", session["access_token"])
    assert me.status_code == 200, me.text
    assert me.json()["roles"] == ["system-administrator"]
    assert me.json()["login"] == ADMIN_LOGIN
    assert me.json()["network"] is True
    assert session["expires_in"] == 300
    assert session["must_change_password"] is False


async def test_logins_are_counted_by_outcome(network: Network) -> None:
    def counted(outcome: str) -> float:
        return REGISTRY.get_sample_value("clinic_sign_ins_total", {"outcome": outcome}) or 0

    outcomes = ("success", "invalid-credentials", "too-many-attempts")
    before = [counted(outcome) for outcome in outcomes]
    await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    statuses = await fail(network, 6)
    refused = statuses.count(401)
    now = [counted(outcome) - earlier for outcome, earlier in zip(outcomes, before, strict=True)]
    assert now == [1, refused, len(statuses) - refused]
    assert 0 < refused < len(statuses)


async def test_the_token_is_what_every_service_verifies(network: Network, clock: Any) -> None:
    session = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    jwks = (await network.identity.http.get("/.well-known/jwks.json")).json()
    verifier = TokenVerifier.static(jwks, issuer=ISSUER, clock=clock)
    principal = await verifier.verify(session["access_token"])
    assert principal.roles == {"system-administrator"}
    assert principal.scopes == set(contracts.scopes_by_role()["system-administrator"])
    assert str(principal.session_id) == session["session_id"]


async def test_the_token_is_a_signed_jwt_for_an_independent_reader_too(network: Network) -> None:
    session = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    header, payload, signature = session["access_token"].split(".")
    [key] = (await network.identity.http.get("/.well-known/jwks.json")).json()["keys"]
    assert json.loads(decoded(header)) == {"alg": "ES256", "typ": "at+jwt", "kid": key["kid"]}
    x, y = (int.from_bytes(decoded(key[name])) for name in "xy")
    r, s = (int.from_bytes(half) for half in (decoded(signature)[:32], decoded(signature)[32:]))
    ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key().verify(
        encode_dss_signature(r, s), f"{header}.{payload}".encode(), ec.ECDSA(hashes.SHA256())
    )
    claims = json.loads(decoded(payload))
    assert claims["iss"] == ISSUER
    assert claims["aud"] == "clinic-api"
    assert claims["exp"] - claims["iat"] == 300


async def test_the_token_says_nothing_personal(network: Network) -> None:
    member = await network.add_member()
    session = await network.session_of(member["login"], member["initial_password"])
    claims = json.dumps(claims_in(session["access_token"])).lower()
    assert not any(word in claims for word in ("vracheva", "testina", "example.org", "+7"))


async def test_a_wrong_password_and_a_login_that_nobody_has_get_the_same_answer(network: Network) -> None:
    wrong = await network.log_in(ADMIN_LOGIN, WRONG)
    unknown = await network.log_in("nobody@example.org", WRONG)
    assert wrong.status_code == unknown.status_code == 401
    assert without_request_id(wrong) == without_request_id(unknown)
    assert wrong.json()["type"].endswith("/invalid-credentials")
    ignored = {"x-request-id", "x-correlation-id", "content-length"}
    assert {k: v for k, v in wrong.headers.items() if k not in ignored} == {
        k: v for k, v in unknown.headers.items() if k not in ignored
    }


async def test_a_login_that_nobody_has_takes_the_same_time(installation: Installation) -> None:
    """With real parameters a hash takes far longer than the rest, so leaving it out would show."""

    async def fastest(network: Network, login: str) -> float:
        taken = []
        for _ in range(3):
            started_at = time.perf_counter()
            await network.log_in(login, WRONG)
            taken.append(time.perf_counter() - started_at)
        return min(taken)

    async with installation.start(password_memory_kib=47_104, password_iterations=2) as real:
        network = Network(real, real.principal())
        wrong, unknown = await fastest(network, ADMIN_LOGIN), await fastest(network, "nobody@example.org")
    assert 0.4 < unknown / wrong < 2.5


async def test_who_was_deactivated_gets_the_same_answer_as_a_stranger(network: Network) -> None:
    member = await network.add_member()
    assert (await network.post(f"/v1/staff/{member['staff_id']}/deactivate")).status_code == 200
    gone = await network.log_in(member["login"], member["initial_password"])
    unknown = await network.log_in("nobody@example.org", WRONG)
    assert gone.status_code == 401
    assert without_request_id(gone) == without_request_id(unknown)


@pytest.mark.parametrize("login", [ADMIN_LOGIN, "nobody@example.org"])
async def test_after_the_fifth_failure_an_account_waits_longer_and_longer(
    network: Network, clock: Any, login: str
) -> None:
    assert await fail(network, 5, login) == [401] * 5
    for wait in (1, 2, 4):
        blocked = await network.log_in(login, ADMIN_PASSWORD)
        assert (blocked.status_code, blocked.headers["Retry-After"]) == (429, str(wait))
        assert blocked.json()["type"].endswith("/too-many-attempts")
        clock.advance(seconds=wait)
        assert await fail(network, 1, login) == [401]


async def test_a_success_forgets_the_failures_before_it(network: Network, clock: Any) -> None:
    assert await fail(network, 5) == [401] * 5
    clock.advance(seconds=1)
    assert (await network.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)).status_code == 200
    assert await fail(network, 5) == [401] * 5


async def test_waiting_survives_a_new_process(installation: Installation) -> None:
    async with installation.start() as first:
        assert await fail(Network(first, first.principal()), 5) == [401] * 5
    async with installation.start() as second:
        answer = await Network(second, second.principal()).log_in(ADMIN_LOGIN, ADMIN_PASSWORD)
    assert answer.status_code == 429


async def test_many_guesses_at_once_gain_nothing(network: Network) -> None:
    guesses = [network.log_in(ADMIN_LOGIN, WRONG, address=f"203.0.113.{n}") for n in range(30)]
    statuses = Counter(answer.status_code for answer in await asyncio.gather(*guesses))
    assert statuses == {401: 10, 429: 20}


async def test_an_address_that_tries_many_accounts_has_to_wait(network: Network, clock: Any) -> None:
    for number in range(20):
        assert await fail(network, 1, f"nobody-{number}@example.org", address="203.0.113.66") == [401]
    blocked = await network.log_in(ADMIN_LOGIN, ADMIN_PASSWORD, address="203.0.113.66")
    assert (blocked.status_code, blocked.headers["Retry-After"]) == (429, "300")
    elsewhere = await network.log_in(ADMIN_LOGIN, ADMIN_PASSWORD, address="203.0.113.67")
    assert elsewhere.status_code == 200
    clock.advance(minutes=5)
    later = await network.log_in(ADMIN_LOGIN, ADMIN_PASSWORD, address="203.0.113.66")
    assert later.status_code == 200


async def test_what_was_typed_as_a_login_is_not_kept(network: Network) -> None:
    await network.log_in("my-secret-in-the-wrong-field", WRONG)
    async with network.identity.runtime.database.transaction() as tx:
        rows = await tx.fetch_all(select(attempt_counter))
    assert rows
    assert b"my-secret" not in b"".join(row.subject for row in rows)
    assert "my-secret" not in json.dumps(await network.audit())


async def test_successes_and_failures_are_audited(network: Network) -> None:
    await network.log_in(ADMIN_LOGIN, WRONG)
    await network.log_in("nobody@example.org", WRONG)
    session = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    records = [r for r in await network.audit(action="E") if r["entity"]["type"] == "Login"]
    assert [(r["outcome"], r["entity"]["id"] is None) for r in records] == [
        ("4", False),
        ("4", True),
        ("0", False),
    ]
    assert records[-1]["details"] == {"session": session["session_id"], "methods": "pwd"}


async def test_the_same_keys_on_another_keyboard_are_the_same_password(network: Network) -> None:
    member = await network.add_member()
    session = await network.session_of(member["login"], member["initial_password"])
    change = {"current_password": member["initial_password"], "new_password": "cafe\u0301 crème brûlée"}
    changed = await network.with_token("POST", "/v1/me/password", session["access_token"], change)
    assert changed.status_code == 204, changed.text
    assert (await network.log_in(member["login"], "café cre\u0300me brûlée")).status_code == 200


async def test_stronger_parameters_reach_a_stored_password_with_the_next_login(
    installation: Installation,
) -> None:
    async def stored_hash(harness: Any) -> str:
        async with harness.runtime.database.transaction() as tx:
            return str((await tx.execute(select(account.c.password_hash))).scalar_one())

    async with installation.start() as weak:
        assert "m=8,t=1" in await stored_hash(weak)
    async with installation.start(password_memory_kib=16, password_iterations=2) as strong:
        network = Network(strong, strong.principal())
        await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
        assert "m=16,t=2" in await stored_hash(strong)
        await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)


async def stored_hashes(network: Network) -> dict[str, str]:
    async with network.identity.runtime.database.transaction() as tx:
        rows = (await tx.execute(select(account.c.login, account.c.password_hash))).all()
    return {row.login: row.password_hash for row in rows}


async def test_stored_passwords_are_sealed_with_their_next_login_and_again_under_another_key(
    installation: Installation, secrets_dir: Path, tmp_path: Path
) -> None:
    async with installation.start() as before:
        assert (await stored_hashes(Network(before, before.principal())))[ADMIN_LOGIN].startswith(
            "$argon2id$"
        )
    async with installation.start(seal_passwords=True) as sealing:
        network = Network(sealing, sealing.principal())
        await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
        sealed = (await stored_hashes(network))[ADMIN_LOGIN]
        assert sealed.startswith("sealed:")
        assert "argon2" not in sealed
        await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
        assert (await stored_hashes(network))[ADMIN_LOGIN] == sealed
    shutil.copytree(secrets_dir, tmp_path / "rotated")
    (tmp_path / "rotated" / "sealing-key").rename(tmp_path / "rotated" / "sealing-key-previous")
    async with installation.start(seal_passwords=True, secrets_dir=tmp_path / "rotated") as rotated:
        network = Network(rotated, rotated.principal())
        await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
        assert (await stored_hashes(network))[ADMIN_LOGIN] != sealed


async def test_a_sealed_password_opens_its_own_account_only(installation: Installation) -> None:
    async with installation.start(seal_passwords=True) as sealing:
        network = Network(sealing, sealing.principal("system-administrator"))
        member = await network.add_member()
        assert (await network.log_in(member["login"], member["initial_password"])).status_code == 200
        async with sealing.runtime.database.transaction() as tx:
            own = select(account.c.password_hash).where(account.c.login == member["login"]).scalar_subquery()
            await tx.execute(update(account).where(account.c.login == ADMIN_LOGIN).values(password_hash=own))
        assert (await network.log_in(ADMIN_LOGIN, member["initial_password"])).status_code == 401


async def test_logins_beyond_the_queue_are_sent_away_at_once() -> None:
    hasher = PasswordHasher(iterations=1, memory_kib=8, threads=1, queue=1)
    outcomes = await asyncio.gather(
        *(hasher.hash("twelve chars", place=uuid7()) for _ in range(4)), return_exceptions=True
    )
    refused = [one for one in outcomes if isinstance(one, TemporarilyUnavailableError)]
    assert len(refused) == 2
    assert await hasher.hash("twelve chars", place=uuid7())  # and the door opens again


async def test_a_body_that_is_no_login_is_refused_without_repeating_it(network: Network) -> None:
    answer = await network.identity.http.post(
        "/v1/auth/login", json={"login": ADMIN_LOGIN, "password": "hunter2-hunter2", "extra": 1}
    )
    assert answer.status_code == 422
    assert "hunter2" not in answer.text
