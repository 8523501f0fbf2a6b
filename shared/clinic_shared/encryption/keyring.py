"""The key-encryption keys that a process has in memory, and the data keys it makes and opens with them.

Nothing here goes over the network: keys are brought before they are needed (`key_files.py`, `upkeep.py`), so that
a transaction never waits for a key service. Keys of a remote provider are kept for a lease and no longer.
"""

import hmac
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clinic_shared.encryption.ciphers import (
    KEY_BYTES,
    DataKey,
    KeyEncryptionKey,
    KeyId,
    Place,
    key_id_of,
)
from clinic_shared.errors import TemporarilyUnavailableError

if TYPE_CHECKING:
    from clinic_shared.event_sealing import EventKey


class KeysUnavailableError(TemporarilyUnavailableError):
    """The keys aren't at hand: the key service is away, or a key was withdrawn."""


@dataclass(frozen=True)
class SealedRow:
    """A row's values as they are stored. Without a `data_key` they are as they came."""

    data_key: bytes | None
    values: Mapping[str, bytes | None]


class Keyring:
    """The keys of one service. Without a current key nothing is encrypted; what is, opens all the same."""

    def __init__(
        self,
        keys: Iterable[KeyEncryptionKey] = (),
        *,
        encrypting: bool = True,
        index_key: bytes | None = None,
        lease_seconds: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.encrypting = encrypting
        self._monotonic = monotonic
        self._keys: dict[KeyId, KeyEncryptionKey] = {}
        self._current: KeyEncryptionKey | None = None
        self._until: float | None = None
        self._index_key = index_key
        self.event_key: EventKey | None = None
        """The data key that events are sealed with for a while (`event_sealing.py`)."""
        self.take(keys, index_key=index_key, lease_seconds=lease_seconds)

    def take(
        self,
        keys: Iterable[KeyEncryptionKey],
        *,
        index_key: bytes | None = None,
        lease_seconds: float | None = None,
    ) -> None:
        """Go on with these keys, of which the last one is current. Without a lease they stay."""
        ordered = list(keys)
        self._keys = {key.key_id: key for key in ordered}
        self._current = ordered[-1] if ordered else None
        self._index_key = index_key or self._index_key
        self._until = None if lease_seconds is None else self._monotonic() + lease_seconds

    @property
    def current_id(self) -> KeyId:
        """Raises KeysUnavailableError."""
        return self._wrapping().key_id

    def new_key(self, place: Place) -> tuple[DataKey, bytes]:
        """Make a data key; returns it with how it is stored. Raises KeysUnavailableError."""
        key = os.urandom(KEY_BYTES)
        return DataKey(key), self._wrapping().wrap(key, place)

    def data_key(self, wrapped: bytes, place: Place) -> DataKey:
        """Raises KeysUnavailableError, SealBrokenError."""
        return DataKey(self._unwrap(wrapped, place))

    def rewrap(self, wrapped: bytes, place: Place) -> bytes:
        """Return a data key under the current key; what it sealed stays as it is."""
        return self._wrapping().wrap(self._unwrap(wrapped, place), place)

    def seal_row(self, place: Place, values: Mapping[str, bytes | None]) -> SealedRow:
        """Seal a row's values with a data key of its own, unless encryption is switched off."""
        if not self.encrypting:
            return SealedRow(None, values)
        key, wrapped = self.new_key(place)
        sealed = {
            column: None if value is None else key.seal(value, place, column)
            for column, value in values.items()
        }
        return SealedRow(wrapped, sealed)

    def open_row(
        self, place: Place, data_key: bytes | None, values: Mapping[str, bytes | None]
    ) -> dict[str, bytes | None]:
        """Return a row's values as they came. Raises KeysUnavailableError, SealBrokenError."""
        plain = {column: None if value is None else bytes(value) for column, value in values.items()}
        if data_key is None:
            return plain
        key = self.data_key(bytes(data_key), place)
        return {
            column: None if value is None else key.open(value, place, column)
            for column, value in plain.items()
        }

    def blind(self, purpose: str, value: str) -> bytes:
        """Return a blind index of a value: HMAC-SHA256 under a key that encrypts nothing. Raises KeysUnavailableError.

        Only for values that are looked for as a whole, and too many to be listed.
        """
        self._check_lease()
        if self._index_key is None:
            raise KeysUnavailableError
        return hmac.digest(self._index_key, f"{purpose}\x1f{value}".encode(), "sha256")

    def _wrapping(self) -> KeyEncryptionKey:
        self._check_lease()
        if self._current is None:
            raise KeysUnavailableError
        return self._current

    def _unwrap(self, wrapped: bytes, place: Place) -> bytes:
        self._check_lease()
        key = self._keys.get(key_id_of(wrapped, place))
        if key is None:
            raise KeysUnavailableError
        return key.unwrap(wrapped, place)

    def _check_lease(self) -> None:
        if self._until is not None and self._monotonic() > self._until:
            raise KeysUnavailableError
