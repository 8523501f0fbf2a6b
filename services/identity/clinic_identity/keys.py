"""Signing keys: PEM files in the secrets folder, never in the database.

`signing-key.pem` signs; `signing-key-*.pem` are only published: the next one before its first use, the
previous one until the last token that it signed has expired.
"""

from pathlib import Path
from typing import Any

from clinic_shared.auth import StaticKeys, TokenSigner, TokenVerifier
from clinic_shared.clock import Clock
from clinic_shared.key_files import keep_first, marked_for_development
from clinic_shared.production import is_for_development
from joserfc.jwk import ECKey

from clinic_identity.settings import IdentitySettings

CURRENT = "signing-key.pem"
OTHERS = "signing-key-*.pem"


class SigningKeyMissingError(RuntimeError):
    """There is no usable key, and none may be made here."""


class KeyRing:
    """The key that signs, and all that are published."""

    def __init__(self, current: ECKey, others: tuple[ECKey, ...], *, issuer: str, audience: str) -> None:
        self.signer = TokenSigner(current, issuer=issuer, audience=audience)
        signers = [self.signer, *(TokenSigner(key, issuer=issuer, audience=audience) for key in others)]
        by_id = {key["kid"]: key for signer in signers for key in signer.public_jwks()["keys"]}
        self.public_jwks: dict[str, Any] = {"keys": list(by_id.values())}
        self._issuer = issuer
        self._audience = audience

    @classmethod
    def load(cls, settings: IdentitySettings) -> "KeyRing":
        """Read the keys. Outside production a missing one is made. Raises SigningKeyMissingError."""
        current, others = _read_keys(settings)
        return cls(current, others, issuer=settings.token_issuer, audience=settings.token_audience)

    def verifier(self, clock: Clock) -> TokenVerifier:
        """Return a verifier for our own API, which needs no request to ourselves."""
        keys = StaticKeys(self.public_jwks)
        return TokenVerifier(keys, issuer=self._issuer, audience=self._audience, clock=clock)


def _read_keys(settings: IdentitySettings) -> tuple[ECKey, tuple[ECKey, ...]]:
    folder = settings.secrets_dir
    if folder is None:
        if settings.environment == "test":
            return ECKey.generate_key("P-256"), ()
        raise SigningKeyMissingError(f"set CLINIC_SECRETS_DIR to the folder that holds {CURRENT}")
    current = folder / CURRENT
    if not current.exists():
        if settings.environment == "production":
            raise SigningKeyMissingError(f"{CURRENT} is missing in CLINIC_SECRETS_DIR (README.md: keys)")
        keep_first(current, marked_for_development(new_signing_key()))
    others = tuple(_read_key(file, settings) for file in sorted(folder.glob(OTHERS)))
    return _read_key(current, settings), others


def _read_key(file: Path, settings: IdentitySettings) -> ECKey:
    pem = file.read_bytes()
    if settings.environment == "production" and is_for_development(pem.decode("ascii", "replace")):
        raise SigningKeyMissingError(f"{file.name} was made for development, refused in production")
    return ECKey.import_key(pem)


def new_signing_key() -> bytes:
    """Return a private P-256 key in PEM."""
    return ECKey.generate_key("P-256").as_pem(private=True)
