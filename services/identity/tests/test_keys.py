"""Signing keys: files, their rotation, and what others read about us."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from clinic_identity.keys import KeyRing, SigningKeyMissingError
from clinic_identity.settings import IdentitySettings
from clinic_shared import contracts
from joserfc.jwk import ECKey
from pydantic import ValidationError

from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Installation, Network


def settings(folder: Path | None, **changes: Any) -> IdentitySettings:
    given = {
        "database_url": "postgresql://nowhere?sslmode=verify-full",
        "amqp_url": "amqps://nowhere",
        "token_issuer": "https://clinic.example.org",
        "secrets_dir": folder,
    }
    return IdentitySettings(**{"environment": "development", **given, **changes})


def test_development_makes_a_key_that_nobody_else_can_read(tmp_path: Path) -> None:
    first = KeyRing.load(settings(tmp_path / "secrets"))
    file = tmp_path / "secrets" / "signing-key.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert KeyRing.load(settings(tmp_path / "secrets")).signer.key_id == first.signer.key_id
    assert [one.name for one in file.parent.iterdir()] == ["signing-key.pem"]


def test_processes_that_start_together_agree_on_the_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        rings = list(threads.map(lambda _: KeyRing.load(settings(tmp_path)), range(16)))
    assert len({ring.signer.key_id for ring in rings}) == 1


@pytest.mark.parametrize("folder", [True, False])
def test_production_refuses_to_start_without_a_key(tmp_path: Path, folder: bool) -> None:
    with pytest.raises(SigningKeyMissingError):
        KeyRing.load(settings(tmp_path if folder else None, environment="production"))
    assert list(tmp_path.iterdir()) == []


def test_production_refuses_passwords_that_are_cheap_to_guess(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        settings(tmp_path, environment="production", password_memory_kib=1024)


def test_half_a_first_administrator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        settings(tmp_path, bootstrap_admin_login="admin@example.org")


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "signing-key.pem").write_bytes(ECKey.generate_key("P-384").as_pem(private=True))
    with pytest.raises(ValueError, match="P-256"):
        KeyRing.load(settings(tmp_path))


async def test_tokens_of_the_previous_key_count_until_it_is_withdrawn(
    installation: Installation, tmp_path: Path
) -> None:
    old, new = (ECKey.generate_key("P-256").as_pem(private=True) for _ in range(2))
    (tmp_path / "signing-key.pem").write_bytes(old)
    async with installation.start(secrets_dir=tmp_path) as running:
        network = Network(running, running.principal())
        session = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    (tmp_path / "signing-key-previous.pem").write_bytes(old)
    (tmp_path / "signing-key.pem").write_bytes(new)
    async with installation.start(secrets_dir=tmp_path) as running:
        network = Network(running, running.principal())
        keys = (await running.http.get("/.well-known/jwks.json")).json()["keys"]
        assert len({key["kid"] for key in keys}) == 2
        assert (await network.with_token("GET", "/v1/me", session["access_token"])).status_code == 200
        fresh = (await network.refresh(session["refresh_token"])).json()
    (tmp_path / "signing-key-previous.pem").unlink()
    async with installation.start(secrets_dir=tmp_path) as running:
        network = Network(running, running.principal())
        assert (await network.with_token("GET", "/v1/me", session["access_token"])).status_code == 401
        assert (await network.with_token("GET", "/v1/me", fresh["access_token"])).status_code == 200


async def test_the_public_keys_are_public_and_nothing_else(network: Network) -> None:
    answer = await network.identity.http.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    [key] = answer.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert (key["kid"], key["alg"]) == (network.identity.signer.key.thumbprint(), "ES256")


async def test_clients_read_where_tokens_come_from(network: Network) -> None:
    document = (await network.identity.http.get("/.well-known/smart-configuration")).json()
    assert document["token_endpoint"] == "https://clinic.test/oauth2/token"
    assert set(document["scopes_supported"]) >= contracts.load().scopes()
