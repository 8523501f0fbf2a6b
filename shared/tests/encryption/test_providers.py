"""Keys that a key service guards: wrapped there, used here for a lease, and never anything else sent."""

import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from clinic_local.fakes.key_services import KeyManagementService, TransitEngine
from clinic_shared.encryption.ciphers import KEY_BYTES
from clinic_shared.encryption.key_store import (
    FILE,
    DataKeysMissingError,
    new_file,
    read_file,
    unwrapped,
    wrapped_anew,
    write_file,
)
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.encryption.kms import Credentials, Kms, signed
from clinic_shared.encryption.providers import FileProvider, KeyProvider, ProviderError
from clinic_shared.encryption.upkeep import bring_keys, provider_of
from clinic_shared.encryption.vault import Vault
from clinic_shared.settings import ServiceSettings
from starlette.applications import Starlette

KEY = "polyclinic-test"
CREDENTIALS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
PURPOSE = "billing/encryption"


def client(fake: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=Starlette(routes=fake.routes()))
    return httpx.AsyncClient(transport=transport, base_url="https://keys.example.org")


@pytest.fixture
def engine() -> TransitEngine:
    return TransitEngine(key=KEY, token="token")


@pytest.fixture
async def vault(engine: TransitEngine) -> AsyncIterator[Vault]:
    async with client(engine) as http:
        yield Vault(http, key=KEY, token="token", lease_seconds=300)


@pytest.fixture
def service() -> KeyManagementService:
    return KeyManagementService(key=KEY, credentials=CREDENTIALS, region="eu-test-1")


@pytest.fixture
async def kms(service: KeyManagementService) -> AsyncIterator[Kms]:
    async with client(service) as http:
        yield Kms(http, key=KEY, credentials=CREDENTIALS, region="eu-test-1", lease_seconds=300)


@pytest.fixture(params=["vault", "kms"])
def provider(request: pytest.FixtureRequest) -> KeyProvider:
    return request.getfixturevalue(request.param)


async def test_a_wrapped_key_opens_for_the_same_purpose_only(provider: KeyProvider) -> None:
    key = os.urandom(KEY_BYTES)
    wrapped = await provider.wrap(key, purpose=PURPOSE)
    assert key.hex() not in wrapped
    assert await provider.unwrap(wrapped, purpose=PURPOSE) == key
    with pytest.raises(ProviderError):
        await provider.unwrap(wrapped, purpose="patients/encryption")


async def test_what_an_older_version_of_vaults_key_wrapped_still_opens(
    vault: Vault, engine: TransitEngine
) -> None:
    key = os.urandom(KEY_BYTES)
    wrapped = await vault.wrap(key, purpose=PURPOSE)
    engine.rotate()
    assert await vault.unwrap(wrapped, purpose=PURPOSE) == key
    assert (await vault.wrap(key, purpose=PURPOSE)).startswith("vault:v2:")


async def test_a_refusal_says_its_status_and_nothing_of_a_key(vault: Vault, engine: TransitEngine) -> None:
    key = os.urandom(KEY_BYTES)
    engine.sealed = True
    with pytest.raises(ProviderError, match="503") as refusal:
        await vault.wrap(key, purpose=PURPOSE)
    assert key.hex() not in str(refusal.value)
    async with client(engine) as http:
        engine.sealed = False
        with pytest.raises(ProviderError, match="403"):
            await Vault(http, key=KEY, token="stolen", lease_seconds=1).wrap(key, purpose=PURPOSE)


async def test_kms_refuses_a_request_that_others_signed(service: KeyManagementService) -> None:
    thief = Credentials("AKIDEXAMPLE", "guessed")
    async with client(service) as http:
        with pytest.raises(ProviderError, match="403"):
            await Kms(http, key=KEY, credentials=thief, region="eu-test-1", lease_seconds=1).wrap(
                b"x", purpose=PURPOSE
            )


def test_a_signature_is_that_of_the_published_example() -> None:
    """AWS's test suite for Signature Version 4, get-vanilla."""
    authorization = signed(
        "GET",
        {"Host": "example.amazonaws.com", "X-Amz-Date": "20150830T123600Z"},
        b"",
        credentials=CREDENTIALS,
        region="us-east-1",
        service="service",
    )
    assert authorization.endswith("5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")


async def test_keys_move_to_a_key_service_and_open_the_same(provider: KeyProvider, tmp_path: Any) -> None:
    file = tmp_path / FILE
    file.write_text(new_file())
    before = Keyring(await unwrapped(read_file(file), FileProvider(), service="billing"))
    write_file(file, await wrapped_anew(read_file(file), FileProvider(), provider, service="billing"))
    moved = read_file(file)
    after = Keyring(await unwrapped(moved, provider, service="billing"))
    assert (moved.provider, after.current_id) == (provider.name, before.current_id)
    with pytest.raises(ProviderError):
        await unwrapped(moved, provider, service="patients")


def settings(folder: Any, **more: Any) -> ServiceSettings:
    return ServiceSettings(
        secrets_dir=folder,
        database_url="postgresql://fictitious.example.org/none",
        amqp_url="amqp://fictitious.example.org",
        **more,
    )


async def test_a_key_service_that_is_named_but_not_given_is_refused(vault: Vault, tmp_path: Any) -> None:
    file = tmp_path / FILE
    file.write_text(new_file())
    write_file(file, await wrapped_anew(read_file(file), FileProvider(), vault, service="billing"))
    with pytest.raises(DataKeysMissingError, match="CLINIC_KEY_SERVICE_URL"):
        await bring_keys(Keyring(), settings(tmp_path), "billing")


async def test_production_asks_over_https_only(tmp_path: Any) -> None:
    insecure = settings(
        tmp_path, key_service_url="http://vault:8200", key_service_key=KEY, key_service_secret="x"
    ).model_copy(update={"environment": "production"})
    with pytest.raises(DataKeysMissingError, match="https"):
        async with provider_of("vault", insecure):
            pass
