"""Internal tokens: what the gateway makes of a caller's token for one service, for a minute.

A service that takes nothing else can't be spoken to past the gateway, and what one service was sent is of no
use with another. The caller stays who they are; `act` says who speaks for them (RFC 8693, 4.1).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clinic_shared.auth import KeySource, StaticKeys, TokenVerifier, key_id_of
from clinic_shared.clock import Clock
from clinic_shared.errors import UnauthenticatedError
from clinic_shared.principal import Principal
from clinic_shared.settings import ServiceSettings

ISSUER = "urn:clinic:gateway"
ACTOR: dict[str, Any] = {"sub": "gateway"}
LIFETIME_SECONDS = 60
KEYS_FILE = "gateway-keys.json"
"""In a service's folder of secrets: the gateway's public keys (RFC 7517)."""


def audience_of(service: str) -> str:
    return f"clinic:{service}"


def read_gateway_keys(folder: Path | None) -> Mapping[str, Any] | None:
    """Return the gateway's public keys, if this service was given any. Raises ValueError."""
    file = folder / KEYS_FILE if folder else None
    if file is None or not file.exists():
        return None
    keys: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return keys


class ServiceVerifier:
    """Takes the gateway's tokens for this service and, unless told otherwise, the issuer's own."""

    def __init__(
        self,
        external: TokenVerifier,
        *,
        service: str,
        gateway_keys: Mapping[str, Any] | None,
        internal_only: bool,
        clock: Clock | None = None,
    ) -> None:
        if internal_only and gateway_keys is None:
            raise ValueError(f"internal tokens only, and no {KEYS_FILE} to know them by")
        self._external = external
        self._internal_only = internal_only
        self._keys = StaticKeys(gateway_keys or {"keys": []})
        self._internal = TokenVerifier(
            self._keys,
            issuer=ISSUER,
            audience=audience_of(service),
            clock=clock,
            longest_seconds=LIFETIME_SECONDS,
            actor=ACTOR["sub"],
        )

    @classmethod
    def from_settings(
        cls,
        external: TokenVerifier,
        settings: ServiceSettings,
        *,
        service: str,
        clock: Clock | None = None,
    ) -> "ServiceVerifier":
        return cls(
            external,
            service=service,
            gateway_keys=read_gateway_keys(settings.secrets_dir),
            internal_only=settings.internal_tokens_only,
            clock=clock,
        )

    def take_gateway_keys(self, settings: ServiceSettings) -> None:
        """Know the gateway by these keys from now on."""
        self._keys.replace(read_gateway_keys(settings.secrets_dir) or {"keys": []})

    @property
    def source(self) -> KeySource:
        """Where the keys come from that may not be there yet (readiness)."""
        return self._keys if self._internal_only else self._external.source

    async def verify(self, token: str) -> Principal:
        """Return the caller. Raises UnauthenticatedError, TemporarilyUnavailableError.

        Certificates are the gateway's to check: a token that is bound to one is of no use here.
        """
        # Which verifier judges is no matter of trust: each checks everything.
        if self._internal_only or await self._keys.find(key_id_of(token)) is not None:
            return await self._internal.verify(token)
        principal = await self._external.verify(token)
        if principal.certificate is not None:
            raise UnauthenticatedError("The token belongs to a certificate, which only the gateway can see.")
        return principal
