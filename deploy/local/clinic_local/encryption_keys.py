"""A service's file of keys, as the operator's commands use it: keys that Vault or a KMS wraps are unwrapped there."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from clinic_shared.encryption.key_store import (
    DataKeysMissingError,
    StoredKeys,
    read_file,
    with_new_key,
    wrapped_anew,
    write_file,
)
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.encryption.providers import ProviderError
from clinic_shared.encryption.upkeep import provider_of, unwrapped_keyring
from clinic_shared.secret_files import SECRETS_DIR
from clinic_shared.settings import KeySettings

from clinic_local.errors import SetupError

ProviderName = Literal["file", "vault", "kms"]
Result = TypeVar("Result")


@dataclass(frozen=True)
class KeyFile:
    """A service's file of keys. Everything here raises SetupError, which never says what stands in the file."""

    service: str
    file: Path

    def read(self) -> StoredKeys:
        try:
            return read_file(self.file)
        except DataKeysMissingError as error:
            raise SetupError(
                "keys", f"{self.service}: {error}", "Make one with: clinic secrets init"
            ) from None

    def keyring(self) -> Keyring:
        """Return the keys to open with what is stored, for as long as the command runs."""
        stored = self.read()
        return self._asking(lambda settings: unwrapped_keyring(stored, settings, service=self.service))

    def announce_key(self) -> None:
        """Add a key that opens from now on and isn't used yet."""
        stored = self.read()

        async def announced(settings: KeySettings) -> StoredKeys:
            async with provider_of(stored.provider, settings) as provider:
                return await with_new_key(stored, provider, service=self.service)

        write_file(self.file, self._asking(announced))

    def wrap_by(self, name: ProviderName) -> bool:
        """Have another provider wrap the same keys; returns whether it was another."""
        stored = self.read()
        if stored.provider == name:
            return False

        async def moved(settings: KeySettings) -> StoredKeys:
            async with provider_of(stored.provider, settings) as old, provider_of(name, settings) as new:
                return await wrapped_anew(stored, old, new, service=self.service)

        write_file(self.file, self._asking(moved))
        return True

    def _asking(self, ask: Callable[[KeySettings], Coroutine[Any, Any, Result]]) -> Result:
        settings = KeySettings(_secrets_dir=os.environ.get(SECRETS_DIR))
        try:
            return asyncio.run(ask(settings))
        except (DataKeysMissingError, ProviderError) as error:
            raise SetupError("keys", f"{self.service}: {error}") from None
