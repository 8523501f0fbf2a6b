"""The port through which an event's `private` part passes on its way out and in.

Today the seal only marks the part; encrypting it with the patient's key changes this module alone.
"""

from collections.abc import Mapping
from typing import Any

from clinic_shared.encryption.ciphers import WRAPPED_KEY_BYTES, Place
from clinic_shared.encryption.keyring import Keyring

MARKED = "none"


def seal(private: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, str | None]:
    """Return the part as it is stored and sent, with the name of its seal."""
    return private, MARKED if private is not None else None


class UnknownSealError(Exception):
    """The part was sealed by a newer version of the platform."""


def unseal(private: Mapping[str, Any] | None, seal_name: str | None) -> Mapping[str, Any]:
    """Return the readable part; an erased or absent part reads as empty."""
    if private is None:
        return {}
    if seal_name not in {None, MARKED}:
        raise UnknownSealError(seal_name)
    return private


_MARKED_BYTES = b"\x00"
_ENCRYPTED_BYTES = b"\x01"
_COLUMN = "sealed"


def seal_bytes(keyring: Keyring, place: Place, content: bytes) -> bytes:
    """Return content as it is stored; its first byte names the seal, its data key stands before it."""
    sealed = keyring.seal_row(place, {_COLUMN: content})
    value = sealed.values[_COLUMN] or b""
    return _MARKED_BYTES + value if sealed.data_key is None else _ENCRYPTED_BYTES + sealed.data_key + value


def unseal_bytes(keyring: Keyring, place: Place, sealed: bytes) -> bytes:
    """Return the readable content. Raises UnknownSealError, SealBrokenError, KeysUnavailableError."""
    mark, stored = sealed[:1], sealed[1:]
    if mark == _MARKED_BYTES:
        return stored
    if mark != _ENCRYPTED_BYTES:
        raise UnknownSealError(mark.hex())
    data_key, value = stored[:WRAPPED_KEY_BYTES], stored[WRAPPED_KEY_BYTES:]
    return keyring.open_row(place, data_key, {_COLUMN: value})[_COLUMN] or b""
