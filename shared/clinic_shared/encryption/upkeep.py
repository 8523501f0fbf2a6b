"""Bringing a process its key-encryption keys: before it works, when the file of keys changes, before a lease ends.

A key service that can't be reached stops nothing until the lease is over; from then on what needs a key is refused
for the time being, and nothing is stored unencrypted instead.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import structlog

from clinic_shared.encryption.key_store import (
    FILE,
    DataKeysMissingError,
    StoredKeys,
    find_keys,
    unwrapped,
    unwrapped_index,
)
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.encryption.kms import Credentials, Kms
from clinic_shared.encryption.providers import FileProvider, KeyProvider, ProviderError
from clinic_shared.encryption.vault import Vault
from clinic_shared.health import Health
from clinic_shared.loops import pause
from clinic_shared.settings import KeySettings

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

log = structlog.get_logger()

NAME = "data keys"
POLL_SECONDS = 2.0
TIMEOUT_SECONDS = 5.0


@asynccontextmanager
async def provider_of(name: str, settings: KeySettings) -> AsyncIterator[KeyProvider]:
    """Yield the provider that a file of keys names, for as long as it is asked. Raises DataKeysMissingError."""
    if name == FileProvider.name:
        yield FileProvider()
        return
    url, secret, key = settings.key_service_url, settings.key_service_secret, settings.key_service_key
    if url is None or secret is None or key is None:
        raise DataKeysMissingError(
            f"{FILE} names {name}: CLINIC_KEY_SERVICE_URL, _KEY and _SECRET are needed"
        )
    if settings.environment == "production" and not url.startswith("https://"):
        raise DataKeysMissingError("production asks its key service over https")
    lease = settings.key_lease_seconds
    # Not through a proxy of the environment: what comes back are keys.
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False) as http:
        if name == Vault.name:
            yield Vault(http, key=key, token=secret.get_secret_value(), lease_seconds=lease)
        else:
            credentials = Credentials.read(secret.get_secret_value())
            region = settings.key_service_region
            yield Kms(http, key=key, credentials=credentials, region=region, lease_seconds=lease)


async def bring_keys(keyring: Keyring, settings: KeySettings, service: str) -> float | None:
    """Read and unwrap the keys; returns their lease. Raises DataKeysMissingError, ProviderError."""
    stored = find_keys(settings)
    name = stored.provider if stored else FileProvider.name
    async with provider_of(name, settings) as provider:
        keys = await unwrapped(stored, provider, service=service)
        index_key = await unwrapped_index(stored, provider, service=service)
        keyring.take(keys, index_key=index_key, lease_seconds=provider.lease_seconds)
        return provider.lease_seconds


async def unwrapped_keyring(stored: StoredKeys, settings: KeySettings, *, service: str) -> Keyring:
    """Return the keys of a file for a tool, which has them until it ends. Raises DataKeysMissingError, ProviderError."""
    async with provider_of(stored.provider, settings) as provider:
        keys = await unwrapped(stored, provider, service=service)
        return Keyring(keys, index_key=await unwrapped_index(stored, provider, service=service))


async def follow_keys(runtime: "Runtime", stop: asyncio.Event) -> None:
    """Keep a process's keys current until told to stop. What can't be used is named, and what there is stays."""
    folder = runtime.settings.secrets_dir
    if folder is None:
        return
    health, keyring = Health.of(runtime), runtime.database.keyring
    seen, due_at = _stamp(folder), time.monotonic()
    while not stop.is_set():
        await pause(stop, POLL_SECONDS)
        now = _stamp(folder)
        if now == seen and time.monotonic() < due_at:
            continue
        try:
            lease = await bring_keys(keyring, runtime.settings, runtime.service.name)
        except (DataKeysMissingError, ProviderError) as error:
            health.report(NAME, str(error))
            log.error("data_keys_refused", error_class=type(error).__name__)  # noqa: TRY400  # it says enough
            due_at = 0.0
            continue
        health.report(NAME, None)
        # Well before the lease ends: the key service may be away for a while.
        seen, due_at = now, time.monotonic() + (lease / 2 if lease is not None else float("inf"))


def _stamp(folder: Path) -> tuple[int, int, int] | None:
    try:
        status = (folder / FILE).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
