"""The port through which an event's `private` part passes on its way out and in.

Today the seal only marks the part; encrypting it with the patient's key changes this module alone.
"""

from collections.abc import Mapping
from typing import Any

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


def seal_bytes(content: bytes) -> bytes:
    """Return content as it is stored; its first byte names the seal."""
    return _MARKED_BYTES + content


def unseal_bytes(sealed: bytes) -> bytes:
    """Return the readable content. Raises UnknownSealError."""
    if sealed[:1] != _MARKED_BYTES:
        raise UnknownSealError(sealed[:1].hex())
    return sealed[1:]
