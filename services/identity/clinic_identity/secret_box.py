"""What the database must not give away: secrets of second factors and password hashes, under a key from a file.

AES-256-GCM; the place a secret belongs to is authenticated with it, so that one copied to another account
doesn't open. `sealing-key` seals; every `sealing-key-*` beside it still opens what was sealed with it.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path

from clinic_shared.key_files import keep_first, marked_for_development
from clinic_shared.production import is_for_development
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from clinic_identity.settings import IdentitySettings

CURRENT = "sealing-key"
OTHERS = "sealing-key-*"

_VERSION = b"\x01"
_KEY_BYTES, _KEY_ID_BYTES, _NONCE_BYTES = 32, 4, 12


class SealingKeyMissingError(RuntimeError):
    """There is no usable key, and none may be made here."""


class BrokenSealError(Exception):
    """It was altered, belongs elsewhere, or its key is not here."""


class SecretBox:
    def __init__(self, current: bytes, others: Iterable[bytes] = ()) -> None:
        self._current = _key_id(current)
        self._keys = {_key_id(key): AESGCM(key) for key in (*others, current)}

    @classmethod
    def load(cls, settings: IdentitySettings) -> "SecretBox":
        """Read the keys. Outside production a missing one is made. Raises SealingKeyMissingError."""
        folder = settings.secrets_dir
        if folder is None:
            if settings.environment == "test":
                return cls(secrets.token_bytes(_KEY_BYTES))
            raise SealingKeyMissingError(f"set CLINIC_SECRETS_DIR to the folder that holds {CURRENT}")
        current = folder / CURRENT
        if not current.exists():
            if settings.environment == "production":
                raise SealingKeyMissingError(f"{CURRENT} is missing in CLINIC_SECRETS_DIR (README.md: keys)")
            keep_first(current, marked_for_development(new_sealing_key()))
        others = [_read_key(file, settings) for file in sorted(folder.glob(OTHERS))]
        return cls(_read_key(current, settings), others)

    def seal(self, secret: bytes, *, place: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._keys[self._current].encrypt(nonce, secret, place.encode())
        return _VERSION + self._current + nonce + sealed

    def open(self, sealed: bytes, *, place: str) -> bytes:
        """Raises BrokenSealError."""
        start = len(_VERSION) + _KEY_ID_BYTES
        key = self._keys.get(sealed[len(_VERSION) : start])
        if sealed[: len(_VERSION)] != _VERSION or key is None:
            raise BrokenSealError
        nonce, content = sealed[start : start + _NONCE_BYTES], sealed[start + _NONCE_BYTES :]
        try:
            return key.decrypt(nonce, content, place.encode())
        except (InvalidTag, ValueError):
            raise BrokenSealError from None

    def is_current(self, sealed: bytes) -> bool:
        """Tell whether today's key sealed it; otherwise it is due to be sealed again."""
        return sealed.startswith(_VERSION + self._current)


def new_sealing_key() -> bytes:
    """Return 256 random bits as a line of base64."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n"


def _read_key(file: Path, settings: IdentitySettings) -> bytes:
    text = file.read_text(encoding="ascii", errors="replace")
    if settings.environment == "production" and is_for_development(text):
        raise SealingKeyMissingError(f"{file.name} was made for development, refused in production")
    try:
        key = base64.b64decode(text.split()[-1], validate=True)
    except (binascii.Error, IndexError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise SealingKeyMissingError(f"{file.name} is not 32 bytes in base64")
    return key


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"clinic sealing key\n" + key).digest()[:_KEY_ID_BYTES]
