"""The operator's own identity provider, to which we are a relying party (OpenID Connect Core, RFC 9700).

What it says counts only if it is signed by a key that it publishes, made for us, and for this very login.
"""

import hmac
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Self
from urllib.parse import quote, urlencode

import httpx
from clinic_shared import strict_json
from clinic_shared.auth import LEEWAY_SECONDS, parts_of
from clinic_shared.errors import DomainError
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinic_identity.settings import IdentitySettings

ALGORITHMS = ["ES256", "RS256", "PS256"]
"""Never one with a shared secret, and never the one that the token names alone: the key has to be for it."""
OLDEST_SECONDS = 600
_KEPT_SECONDS = 300
_KEYS_AGAIN_SECONDS = 30
_TIMEOUT_SECONDS = 5
_MAX_BYTES = 256 * 1024


class SignOnNotOfferedError(DomainError):
    """Nobody has told this installation of an identity provider."""

    slug = "sign-on-not-offered"
    title = "Single sign-on is not set up here"
    fix = "Set CLINIC_SSO_ISSUER and CLINIC_SSO_CLIENT_ID for identity, or log in with a password."


class SignOnRefusedError(DomainError):
    """The provider didn't say, in a way that can be trusted, who is logging in."""

    slug = "sign-on-refused"
    title = "The other site's answer can't be accepted"
    status = 401
    fix = "Begin anew. If it happens again, tell the administrator."


class ProviderUnreachableError(DomainError):
    """The provider doesn't answer, or not as OpenID Connect has it."""

    slug = "sign-on-unreachable"
    title = "The other site can't be reached"
    status = 503
    retry_after_seconds = 10
    fix = "Try again in a moment, or log in with a password."


class _Metadata(BaseModel):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    authorization_response_iss_parameter_supported: bool = False
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic"]


_Instant = Annotated[int, Field(ge=0, le=2**40)]


class _Claims(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    iss: str
    sub: Annotated[str, Field(min_length=1, max_length=255)]
    aud: str | list[str]
    exp: _Instant
    iat: _Instant
    nonce: str
    azp: str | None = None
    auth_time: _Instant | None = None
    amr: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Identified:
    """Who logged in there, when, and whether with two factors as far as the provider says."""

    issuer: str
    subject: str
    authenticated_at: datetime | None
    two_factors: bool


class OidcProvider:
    def __init__(
        self,
        *,
        issuer: str,
        client_id: str,
        client_secret: str | None,
        redirect_uri: str,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self.issuer = issuer
        self.redirect_uri = redirect_uri
        self._client_id = client_id
        self._client_secret = client_secret
        # Its address is the operator's own setting; what it answers still leads nowhere else.
        self._http = http or httpx.AsyncClient(
            timeout=_TIMEOUT_SECONDS, follow_redirects=False, trust_env=False
        )
        self._metadata: tuple[float, _Metadata] | None = None
        self._keys: tuple[float, KeySet] | None = None

    @classmethod
    def from_settings(cls, settings: IdentitySettings) -> Self | None:
        if not settings.sso_issuer:
            return None
        secret = settings.sso_client_secret
        return cls(
            issuer=settings.sso_issuer,
            client_id=settings.sso_client_id,
            client_secret=secret.get_secret_value() if secret else None,
            redirect_uri=f"{settings.url or settings.token_issuer}/v1/browser/sso/callback",
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def login_url(self, *, state: str, nonce: str, challenge: str) -> str:
        """Return where to send somebody. Raises ProviderUnreachableError."""
        metadata = await self._discover()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in metadata.authorization_endpoint else "?"
        return metadata.authorization_endpoint + joint + urlencode(query, quote_via=quote)

    async def identify(
        self, *, code: str, verifier: str, nonce: str, told_issuer: str | None, now: datetime
    ) -> Identified:
        """Return who it was. Raises SignOnRefusedError, ProviderUnreachableError."""
        metadata = await self._discover()
        expected = told_issuer is not None or metadata.authorization_response_iss_parameter_supported
        if expected and told_issuer != self.issuer:
            raise SignOnRefusedError  # RFC 9207: the answer was mixed up with another provider's
        token = await self._redeem(metadata, code, verifier)
        claims = await self._verify(metadata, token)
        self._check(claims, nonce, now)
        told_at = claims.auth_time
        return Identified(
            issuer=claims.iss,
            subject=claims.sub,
            authenticated_at=None if told_at is None else min(now, datetime.fromtimestamp(told_at, UTC)),
            two_factors="mfa" in claims.amr,
        )

    async def _redeem(self, metadata: _Metadata, code: str, verifier: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": verifier,
            "client_id": self._client_id,
        }
        auth = None
        if self._client_secret is not None:
            if "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
                auth = httpx.BasicAuth(quote(self._client_id, safe=""), quote(self._client_secret, safe=""))
            else:
                form["client_secret"] = self._client_secret
        answer = await self._ask("POST", metadata.token_endpoint, data=form, auth=auth)
        if not isinstance(answer.get("id_token"), str):
            raise SignOnRefusedError
        return str(answer["id_token"])

    async def _verify(self, metadata: _Metadata, token: str) -> _Claims:
        try:
            header, payload = parts_of(token)
            told = strict_json.loads(header)
            strict_json.loads(payload)
            kid = told.get("kid") if isinstance(told, dict) else None
            keys = await self._keys_with(metadata, kid)
            jws.deserialize_compact(token, keys, algorithms=ALGORITHMS)
            return _Claims.model_validate_json(payload)
        except (ValueError, JoseError, strict_json.StrictJSONError, ValidationError):
            raise SignOnRefusedError from None

    def _check(self, claims: _Claims, nonce: str, now: datetime) -> None:
        moment = now.timestamp()
        for_us = claims.aud in (self._client_id, [self._client_id]) and claims.azp in {None, self._client_id}
        fresh = moment - OLDEST_SECONDS < claims.iat <= moment + LEEWAY_SECONDS
        meant = hmac.compare_digest(claims.nonce.encode(), nonce.encode())
        if claims.iss != self.issuer or not for_us or not meant:
            raise SignOnRefusedError
        if not fresh or moment >= claims.exp + LEEWAY_SECONDS:
            raise SignOnRefusedError

    async def _discover(self) -> _Metadata:
        if self._metadata is not None and time.monotonic() < self._metadata[0] + _KEPT_SECONDS:
            return self._metadata[1]
        document = await self._ask("GET", f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        try:
            metadata = _Metadata.model_validate(document)
        except ValidationError:
            raise ProviderUnreachableError from None
        endpoints = (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri)
        secure = all(url.startswith("https://") for url in endpoints) or self.issuer.startswith("http://")
        if metadata.issuer != self.issuer or not secure:
            raise ProviderUnreachableError
        self._metadata = (time.monotonic(), metadata)
        return metadata

    async def _keys_with(self, metadata: _Metadata, kid: Any) -> KeySet:
        """Return the provider's keys, read again for one that isn't known, but not for every invented one."""
        age = time.monotonic() - self._keys[0] if self._keys else _KEPT_SECONDS
        if self._keys is not None and age < _KEPT_SECONDS:
            known = {key.kid for key in self._keys[1].keys}
            if kid in known or age < _KEYS_AGAIN_SECONDS:
                return self._keys[1]
        document = await self._ask("GET", metadata.jwks_uri)
        members = document.get("keys")
        signing = [jwk for jwk in members if _signs(jwk)] if isinstance(members, list) else []
        keys = KeySet.import_key_set({"keys": signing})
        self._keys = (time.monotonic(), keys)
        return keys

    async def _ask(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        """Raises SignOnRefusedError for a refusal, ProviderUnreachableError for no answer at all."""
        try:
            async with self._http.stream(method, url, **options) as answer:
                content = b""
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    if len(content) > _MAX_BYTES:
                        raise ProviderUnreachableError
                if answer.is_client_error:
                    raise SignOnRefusedError
                if not answer.is_success:
                    raise ProviderUnreachableError
        except httpx.HTTPError:
            raise ProviderUnreachableError from None
        try:
            document = strict_json.loads(content)
        except strict_json.StrictJSONError:
            raise ProviderUnreachableError from None
        if not isinstance(document, dict):
            raise ProviderUnreachableError
        return document


def _signs(jwk: Any) -> bool:
    return isinstance(jwk, dict) and jwk.get("kty") in {"EC", "RSA"} and jwk.get("use", "sig") == "sig"
