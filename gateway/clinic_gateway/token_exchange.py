"""Callers' tokens for ours: each service gets one that is made for it and lives a minute.

Without `gateway-key.pem` callers' own are passed on, which services take unless they are told not to.
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from clinic_shared.auth import TokenSigner, claims_in
from clinic_shared.client_certificates import HEADER, vouch_for
from clinic_shared.internal_tokens import ACTOR, ISSUER, LIFETIME_SECONDS, audience_of
from clinic_shared.production import is_for_development
from joserfc.jwk import ECKey
from multidict import CIMultiDict

KEY_FILE = "gateway-key.pem"
MAX_KEPT = 8192
RENEWED_BEFORE_SECONDS = 30
"""A request may wait for its service for a while: what is handed out has at least so long to live."""
_MADE_ANEW = {"iss", "aud", "exp", "iat", "nbf"}
_CHECKED_HERE = {"cnf"}
"""Services can't see certificates; they take our word."""


class TokenExchange:
    """Signs once per caller's token, service and half a minute; a signature costs a tenth of a millisecond."""

    def __init__(self, key: ECKey | None, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()
        self.use(key)

    def use(self, key: ECKey | None) -> None:
        """Sign with this key from now on; with none, pass callers' tokens on."""
        self._key = key
        self._signers: dict[str, TokenSigner] = {}
        self._kept.clear()

    def apply(self, headers: CIMultiDict[str], token: str | None, service: str) -> None:
        """Put the service's own token in place of the caller's, or of their cookie; it has been verified."""
        if token is not None:
            own = token if self._key is None else self.exchanged(token, service)
            headers["Authorization"] = f"Bearer {own}"

    def vouch(self, headers: CIMultiDict[str], certificate: bytes, service: str) -> None:
        """Tell a service which certificate the caller has shown. Without a key nobody would believe us."""
        if self._key is not None:
            headers[HEADER] = vouch_for(certificate, self._key, service=service, now=int(self._clock()))

    def exchanged(self, token: str, service: str) -> str:
        now = self._clock()
        kept = self._kept.get((token, service))
        if kept is not None and now < kept[0]:
            self._kept.move_to_end((token, service))
            return kept[1]
        expires_at, made = self._make(token, service, int(now))
        self._kept[token, service] = (expires_at - RENEWED_BEFORE_SECONDS, made)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return made

    def _make(self, token: str, service: str, now: int) -> tuple[int, str]:
        caller = claims_in(token)
        # Not past the caller's own; verifiers forgive the second when that has just expired.
        expires_at = max(now + 1, min(now + LIFETIME_SECONDS, caller["exp"]))
        claims = {name: value for name, value in caller.items() if name not in _MADE_ANEW | _CHECKED_HERE}
        times = {"iat": now, "nbf": now, "exp": expires_at}
        return expires_at, self._signer_for(service).sign({**claims, **times, "act": ACTOR})

    def _signer_for(self, service: str) -> TokenSigner:
        if service not in self._signers:
            assert self._key is not None  # noqa: S101  # asked by whoever has seen to it
            self._signers[service] = TokenSigner(self._key, issuer=ISSUER, audience=audience_of(service))
        return self._signers[service]


def read_key(folder: Path | None, *, production: bool) -> ECKey | None:
    """Return the key to sign with, if there is one. Raises ValueError for one that isn't for production."""
    file = folder / KEY_FILE if folder else None
    if file is None or not file.exists():
        return None
    pem = file.read_bytes()
    if production and is_for_development(pem.decode("ascii", "replace")):
        raise ValueError(f"{KEY_FILE} was made for development, refused in production")
    return ECKey.import_key(pem)


def new_key() -> bytes:
    """Return a private P-256 key in PEM."""
    return ECKey.generate_key("P-256").as_pem(private=True)


def public_keys(pem: bytes) -> str:
    """Return the JWK Set that services know the gateway by."""
    return json.dumps(TokenSigner(ECKey.import_key(pem), issuer=ISSUER).public_jwks())
