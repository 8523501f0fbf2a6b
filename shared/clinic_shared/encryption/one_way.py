"""Sealing for one reader: whoever has the public key can seal, only the private key opens (X25519, HKDF, AES-256-GCM).

For what travels and is copied on the way: once the private key is destroyed, no copy opens any more. The context is
bound to each box, so that one doesn't open in the place of another.
"""

import base64

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from clinic_shared.encryption.ciphers import SealBrokenError
from clinic_shared.metrics import SEALS_BROKEN

_ALGORITHM = b"\x01"
_POINT_BYTES = 32
# Each box has a key of its own, from a key pair that is thrown away: its nonce can't come twice.
_NONCE = bytes(12)


def new_key_pair() -> tuple[bytes, str]:
    """Return a private key, and its public half as it is written in text."""
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    return private.private_bytes_raw(), base64.urlsafe_b64encode(public).rstrip(b"=").decode()


def seal_for(public_key: str, content: bytes, context: str) -> bytes:
    """Seal for the holder of the private key. Raises ValueError for what is no public key."""
    reader = base64.urlsafe_b64decode(public_key + "=" * (-len(public_key) % 4))
    once = X25519PrivateKey.generate()
    point = once.public_key().public_bytes_raw()
    shared = once.exchange(X25519PublicKey.from_public_bytes(reader))
    return (
        _ALGORITHM
        + point
        + _cipher(shared, point, reader).encrypt(_NONCE, content, _ALGORITHM + context.encode())
    )


def open_sealed(private_key: bytes, box: bytes, context: str) -> bytes:
    """Raises SealBrokenError."""
    private = X25519PrivateKey.from_private_bytes(private_key)
    point, sealed = box[1 : 1 + _POINT_BYTES], box[1 + _POINT_BYTES :]
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(point))
        cipher = _cipher(shared, point, private.public_key().public_bytes_raw())
        return cipher.decrypt(_NONCE, sealed, box[:1] + context.encode())
    except (InvalidTag, ValueError):
        SEALS_BROKEN.labels(table="one-way").inc()
        raise SealBrokenError from None


def _cipher(shared: bytes, point: bytes, reader: bytes) -> AESGCM:
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"polyclinic one-way" + point + reader)
    return AESGCM(derived.derive(shared))
