"""A service never sees a caller's token: it gets one made for it, of the same caller, for a minute."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from clinic_gateway.token_exchange import KEY_FILE, TokenExchange, new_key, public_keys, read_key
from clinic_shared import strict_json
from clinic_shared.auth import TokenVerifier, claims_in, claims_of
from clinic_shared.contracts import CONTRACTS_DIR
from clinic_shared.internal_tokens import ISSUER as GATEWAY
from clinic_shared.internal_tokens import ServiceVerifier, audience_of
from clinic_shared.principal import Principal
from clinic_shared.testing import eventually

from .conftest import ISSUER, SIGNER, Bearer, Clinic, StartClinic


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / KEY_FILE).write_bytes(new_key())
    return tmp_path


def verifier_of(folder: Path, service: str) -> ServiceVerifier:
    keys: Any = strict_json.loads(public_keys((folder / KEY_FILE).read_bytes()).encode())
    external = TokenVerifier.static(SIGNER.public_jwks(), issuer=ISSUER)
    return ServiceVerifier(external, service=service, gateway_keys=keys, internal_only=True)


def token_seen(clinic: Clinic, service: str) -> str:
    header = clinic[service].seen[-1].header("authorization") or ""
    return header.removeprefix("Bearer ")


async def test_a_service_gets_a_token_of_its_own_with_all_that_the_callers_said(
    start_clinic: StartClinic, bearer: Bearer, folder: Path
) -> None:
    caller: dict[str, Any] = {
        "subject": uuid4(),
        "roles": frozenset({"doctor"}),
        "scopes": frozenset({"profile.read", "chart.read"}),
        "centre_ids": frozenset({uuid4()}),
        "session_id": uuid4(),
        "acr": "aal2",
        "amr": ("pwd", "otp", "mfa"),
        "authenticated_at": datetime.now(UTC).replace(microsecond=0),
    }
    headers = bearer(**caller)
    async with start_clinic("identity", "patients", secrets_dir=folder) as clinic:
        assert (await clinic.http.get("/v1/patients", headers=headers)).status_code == 200
        sent = token_seen(clinic, "patients")
    theirs, own = claims_in(headers["authorization"].removeprefix("Bearer ")), claims_in(sent)
    assert (own["iss"], own["aud"], own["act"]) == (GATEWAY, audience_of("patients"), {"sub": "gateway"})
    assert own["exp"] - own["iat"] == 60
    changed = {"iss", "aud", "iat", "nbf", "exp", "act"}
    assert {name: own[name] for name in own if name not in changed} == {
        name: theirs[name] for name in theirs if name not in changed
    }
    principal = await verifier_of(folder, "patients").verify(sent)
    assert {name: getattr(principal, name) for name in caller} == caller


async def test_one_tokens_exchange_serves_many_requests_and_each_service_its_own(
    start_clinic: StartClinic, bearer: Bearer, folder: Path
) -> None:
    headers = bearer()
    async with start_clinic("identity", "patients", "scheduling", secrets_dir=folder) as clinic:
        for path in ("/v1/patients", "/v1/patients", "/v1/slots"):
            await clinic.http.get(path, headers=headers)
        first, second = (one.header("authorization") for one in clinic["patients"].seen)
        assert first == second
        assert token_seen(clinic, "scheduling") != token_seen(clinic, "patients")


async def test_operations_ask_each_service_with_its_own_token(
    start_clinic: StartClinic, bearer: Bearer, folder: Path
) -> None:
    headers = bearer(scopes=frozenset({"ops.read"}))
    async with start_clinic("identity", "patients", secrets_dir=folder) as clinic:
        await clinic.http.get("/v1/ops/ledger", headers=headers)
        audiences = {name: claims_in(token_seen(clinic, name))["aud"] for name in ("identity", "patients")}
    assert audiences == {name: audience_of(name) for name in audiences}


async def test_a_laboratorys_basic_credentials_pass_as_they_are(
    start_clinic: StartClinic, folder: Path
) -> None:
    headers = {"authorization": "Basic bGFiOng=", "content-type": "text/plain"}
    async with start_clinic("identity", "lab-integration", secrets_dir=folder) as clinic:
        await clinic.http.post("/v1/lab/messages", content=b"MSH|", headers=headers)
        assert clinic["lab-integration"].seen[0].header("authorization") == "Basic bGFiOng="


async def test_another_key_is_taken_without_a_restart(
    start_clinic: StartClinic, bearer: Bearer, folder: Path
) -> None:
    headers = bearer()
    async with start_clinic(
        "identity", "patients", secrets_dir=folder, amqp_url="amqp://127.0.0.1:1", contracts_dir=CONTRACTS_DIR
    ) as clinic:
        await clinic.http.get("/v1/patients", headers=headers)
        before = token_seen(clinic, "patients")
        (folder / "draft").write_bytes(new_key())
        (folder / "draft").replace(folder / KEY_FILE)

        async def is_renewed() -> bool:
            await clinic.http.get("/v1/patients", headers=headers)
            return token_seen(clinic, "patients") != before

        await eventually(is_renewed, within_seconds=60)
        await verifier_of(folder, "patients").verify(token_seen(clinic, "patients"))


def test_what_is_handed_out_has_half_a_minute_left_and_ends_with_the_callers_own(folder: Path) -> None:
    now = [1_800_000_000.0]
    exchange = TokenExchange(read_key(folder, production=True), clock=lambda: now[0])
    principal = Principal(subject=uuid4(), kind="staff")
    issued_at = datetime.fromtimestamp(now[0], UTC)
    token = SIGNER.sign(claims_of(principal, issued_at=issued_at, lifetime_seconds=100))
    first = exchange.exchanged(token, "patients")
    now[0] += 29
    assert exchange.exchanged(token, "patients") == first
    now[0] += 1
    second = exchange.exchanged(token, "patients")
    assert claims_in(second)["exp"] - claims_in(first)["exp"] == 30
    now[0] += 60
    last = claims_in(exchange.exchanged(token, "patients"))
    assert last["exp"] == int((issued_at + timedelta(seconds=100)).timestamp())


def test_a_key_made_for_development_is_refused_in_production(tmp_path: Path) -> None:
    from clinic_shared.key_files import marked_for_development

    (tmp_path / KEY_FILE).write_bytes(marked_for_development(new_key()))
    assert read_key(tmp_path, production=False) is not None
    with pytest.raises(ValueError, match="refused in production"):
        read_key(tmp_path, production=True)
