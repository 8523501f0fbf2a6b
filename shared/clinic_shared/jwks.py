"""The issuer's public keys: read over HTTP, kept while the issuer is away, never taken from a token."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from clinic_shared import tls
from clinic_shared.errors import TemporarilyUnavailableError
from clinic_shared.metrics import JWKS_FETCHES
from clinic_shared.telemetry import describe_error

log = structlog.get_logger()

MAX_JWKS_BYTES = 64 * 1024
REFRESH_SECONDS = 300
"""A withdrawn key is refused this long after its withdrawal at the latest."""
UNKNOWN_KEY_REFETCH_SECONDS = 30
"""Tokens with invented key ids can't make us flood the issuer."""
FIRST_FETCH_RETRY_SECONDS = 1
KEEP_SECONDS = 24 * 3600
"""How long verification survives the issuer's absence."""


class KeySource(Protocol):
    """Where a verifier finds keys. `generation` changes whenever the set of keys does."""

    generation: int

    @property
    def loaded(self) -> bool:
        """Tell whether tokens can be verified at all (readiness)."""

    async def load(self) -> None:
        """Try to get the keys. Failing is no error: `loaded` tells."""

    async def find(self, kid: str) -> ECKey | None:
        """Return the key of this id. Raises TemporarilyUnavailableError while no keys are to be had."""


def read_jwks(jwks: object) -> dict[str, ECKey]:
    """Return the usable keys by id; others (RSA, encryption keys, private parts) are left out.

    Raises ValueError when it isn't a JWK Set at all.
    """
    members = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(members, list):
        raise ValueError("not a JWK Set")  # noqa: TRY004  # a document from outside, not an argument
    return {jwk["kid"]: ECKey.import_key(jwk) for jwk in members if _is_usable(jwk)}


def _is_usable(jwk: Any) -> bool:
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str) or "d" in jwk:
        return False
    return (
        jwk.get("kty") == "EC"
        and jwk.get("crv") == "P-256"
        and jwk.get("use", "sig") == "sig"
        and jwk.get("alg", "ES256") == "ES256"
    )


class StaticKeys:
    """Keys that this process knows by itself: identity's own, or a test's."""

    def __init__(self, jwks: Mapping[str, Any]) -> None:
        self.generation = 0
        self._keys = read_jwks(jwks)

    @property
    def loaded(self) -> bool:
        return True

    async def load(self) -> None:
        pass

    def replace(self, jwks: Mapping[str, Any]) -> None:
        """Take other keys from now on; cached verifications end."""
        self._keys = read_jwks(jwks)
        self.generation += 1

    async def find(self, kid: str) -> ECKey | None:
        return self._keys.get(kid)


class RemoteKeys:
    """The keys at a URL, cached. One request at a time asks for them; the others wait for it."""

    def __init__(
        self,
        url: str,
        *,
        authority: Path | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.generation = 0
        self._url = url
        self._authority = authority
        self._monotonic = monotonic
        self._keys: dict[str, ECKey] = {}
        self._jwks: Mapping[str, Any] | None = None
        self._loaded_at: float | None = None
        self._attempted_at: float | None = None
        self._fetching = asyncio.Lock()
        self._background: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> bool:
        return self._loaded_at is not None and self._monotonic() - self._loaded_at < KEEP_SECONDS

    async def find(self, kid: str) -> ECKey | None:
        self._drop_outlived()
        key = self._keys.get(kid)
        if key is None:
            await self.load()
            key = self._keys.get(kid)
        elif self._is_stale():
            self._refresh_in_background()
        if key is None and not self.loaded:
            raise TemporarilyUnavailableError("Access tokens can't be verified yet.")
        return key

    async def load(self) -> None:
        """Fetch the keys, unless that was tried a moment ago. A failure leaves what is there."""
        async with self._fetching:
            now = self._monotonic()
            pause = UNKNOWN_KEY_REFETCH_SECONDS if self.loaded else FIRST_FETCH_RETRY_SECONDS
            if self._attempted_at is not None and now - self._attempted_at < pause:
                return
            self._attempted_at = now
            try:
                self._take(await self._fetch())
            except (httpx.HTTPError, JoseError, ValueError) as error:
                JWKS_FETCHES.labels("failed").inc()
                log.warning("jwks_fetch_failed", **describe_error(error))

    def _take(self, jwks: Mapping[str, Any]) -> None:
        keys = read_jwks(jwks)
        if jwks != self._jwks:
            self._keys, self._jwks = keys, jwks
            self.generation += 1
        self._loaded_at = self._monotonic()
        JWKS_FETCHES.labels("loaded").inc()

    async def _fetch(self) -> Any:
        async with (
            httpx.AsyncClient(
                trust_env=False,
                timeout=3,
                follow_redirects=False,
                # Loading the certificate store takes longer than the request; plain HTTP needs none.
                verify=tls.trusting(self._authority) if self._url.startswith("https:") else False,
            ) as client,
            client.stream("GET", self._url) as response,
        ):
            response.raise_for_status()
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_JWKS_BYTES:
                    raise ValueError("the JWK Set is too large")
        return json.loads(body)

    def _is_stale(self) -> bool:
        return self._loaded_at is not None and self._monotonic() - self._loaded_at >= REFRESH_SECONDS

    def _drop_outlived(self) -> None:
        if self._keys and not self.loaded:
            self._keys, self._jwks = {}, None
            self.generation += 1

    def _refresh_in_background(self) -> None:
        if self._background is None or self._background.done():
            self._background = asyncio.create_task(self.load())
