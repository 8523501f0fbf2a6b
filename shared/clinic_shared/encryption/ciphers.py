"""AES-256-GCM (NIST SP 800-38D) for values that belong to one place. Who keeps the keys stands elsewhere.

The place (service, table, column, row) is additional authenticated data, so that a value which was altered, or
moved to another column or row, does not open. The first byte of everything names its algorithm.
"""

import os
from dataclasses import dataclass
from typing import NewType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from clinic_shared.metrics import SEALS_BROKEN

KeyId = NewType("KeyId", bytes)
"""Of a key-encryption key; stands in clear before each data key that it wraps."""

KEY_BYTES = 32
KEY_ID_BYTES = 8
NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = 1 + NONCE_BYTES + TAG_BYTES
"""How much longer a sealed value is than the value itself."""
WRAPPED_KEY_BYTES = KEY_ID_BYTES + KEY_BYTES + OVERHEAD_BYTES

_AES_256_GCM = b"\x01"
_KEY_COLUMN = "data_key"


class SealBrokenError(Exception):
    """The stored bytes were altered, or belong to another place. Never says what they are."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row's values belong. `row` is the row's own name, which never changes."""

    service: str
    table: str
    row: str

    def column(self, name: str) -> bytes:
        return f"{self.service}\x1f{self.table}\x1f{name}\x1f{self.row}".encode()


class DataKey:
    """What the values of one row, or of one patient, are sealed with."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, value: bytes, place: Place, column: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return _AES_256_GCM + nonce + self._cipher.encrypt(nonce, value, place.column(column))

    def open(self, sealed: bytes, place: Place, column: str) -> bytes:
        """Raises SealBrokenError."""
        return _decrypt(self._cipher, sealed, place, column)


class KeyEncryptionKey:
    """Wraps data keys. A wrapped key is `algorithm, id of this key, nonce, ciphertext, tag`: WRAPPED_KEY_BYTES."""

    def __init__(self, key_id: KeyId, key: bytes) -> None:
        self.key_id = key_id
        self._cipher = AESGCM(key)

    def wrap(self, key: bytes, place: Place) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, key, place.column(_KEY_COLUMN))
        return _AES_256_GCM + self.key_id + nonce + sealed

    def unwrap(self, wrapped: bytes, place: Place) -> bytes:
        """Raises SealBrokenError."""
        return _decrypt(self._cipher, _AES_256_GCM + wrapped[1 + KEY_ID_BYTES :], place, _KEY_COLUMN)


def key_id_of(wrapped: bytes, place: Place) -> KeyId:
    """Return which key wrapped a data key. Raises SealBrokenError for what is no wrapped key."""
    if wrapped[:1] != _AES_256_GCM or len(wrapped) <= 1 + KEY_ID_BYTES:
        raise _broken(place)
    return KeyId(wrapped[1 : 1 + KEY_ID_BYTES])


def _decrypt(cipher: AESGCM, sealed: bytes, place: Place, column: str) -> bytes:
    if sealed[:1] != _AES_256_GCM or len(sealed) < OVERHEAD_BYTES:
        raise _broken(place)
    nonce, content = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    try:
        return cipher.decrypt(nonce, content, place.column(column))
    except InvalidTag:
        raise _broken(place) from None


def _broken(place: Place) -> SealBrokenError:
    # Counted wherever it happens: it is an alarm, whoever catches the error.
    SEALS_BROKEN.labels(table=place.table).inc()
    return SealBrokenError()
