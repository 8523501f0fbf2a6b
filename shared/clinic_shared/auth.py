"""Access tokens: the one strict way to verify them, and the claims that their issuer puts in.

JOSE libraries accept too much (RFC 8725): a missing or far expiry, a refresh token, duplicate claims,
a list of audiences. So all but the signature itself is checked here, and any doubt is a refusal.
"""

import base64
import binascii
import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinic_shared import strict_json
from clinic_shared.clock import Clock, SystemClock
from clinic_shared.errors import UnauthenticatedError
from clinic_shared.ids import uuid7
from clinic_shared.jwks import KeySource, RemoteKeys, StaticKeys
from clinic_shared.metrics import TOKEN_REFUSALS
from clinic_shared.principal import Principal
from clinic_shared.settings import ServiceSettings

__all__ = ["KeySource", "RemoteKeys", "StaticKeys", "TokenSigner", "TokenVerifier", "claims_of"]

ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"  # noqa: S105  # RFC 9068, 2.1
LIFETIME_SECONDS = 300
LEEWAY_SECONDS = 10
MAX_TOKEN_BYTES = 8192
MAX_CACHED_TOKENS = 4096

# An ES256 signature is 64 bytes: 86 characters without padding.
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")
_HEADER_MEMBERS = {"alg", "typ", "kid"}
"""Nothing else: `jku`, `x5u`, `jwk`, `x5c` name a key, `crit`, `b64`, `zip` change the meaning."""

_Instant = Annotated[int, Field(ge=0, le=2**40)]


class _Actor(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    sub: str


class _Confirmation(BaseModel):
    """What a token is bound to (RFC 8705, 3.1). Bound to what we can't check, it is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    thumbprint: Annotated[str, Field(alias="x5t#S256", pattern=r"^[A-Za-z0-9_-]{43}$")]


class _Claims(BaseModel):
    """RFC 9068 and ours. Strict: an instant is an integer, a text is a text."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    iss: str
    aud: str
    sub: UUID
    exp: _Instant
    iat: _Instant
    nbf: _Instant = 0
    jti: Annotated[str, Field(min_length=1, max_length=64)]
    sid: UUID | None = None
    kind: Literal["staff", "patient", "client"]
    roles: frozenset[str] = frozenset()
    scope: str = ""
    network: bool = False
    centres: frozenset[UUID] = frozenset()
    departments: frozenset[UUID] = frozenset()
    patient: UUID | None = None
    patient_records: frozenset[UUID] = frozenset()
    client_id: str | None = None
    acr: Annotated[str, Field(max_length=64)] | None = None
    amr: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    auth_time: _Instant | None = None
    act: _Actor | None = None
    """Who speaks for the subject (RFC 8693, 4.1)."""
    cnf: _Confirmation | None = None


class _RefusedError(Exception):
    """Why a token was refused: for the metric, not for the caller."""


class TokenVerifier:
    """Turns a token into a Principal, or refuses it.

    Verified tokens are remembered by digest until they expire (at most 4096, least recently used
    out first), and forgotten at once when the issuer's keys change.
    """

    def __init__(
        self,
        source: KeySource,
        *,
        issuer: str,
        audience: str = "clinic-api",
        clock: Clock | None = None,
        longest_seconds: int = LIFETIME_SECONDS,
        actor: str | None = None,
    ) -> None:
        self.source = source
        self._issuer = issuer
        self._audience = audience
        self._longest_seconds = longest_seconds
        self._actor = actor
        self._clock = clock or SystemClock()
        self._verified: OrderedDict[bytes, tuple[_Claims, Principal]] = OrderedDict()
        self._generation = source.generation

    @classmethod
    def from_settings(cls, settings: ServiceSettings, *, clock: Clock | None = None) -> Self:
        """Read the issuer's keys from `jwks_url`; without one, refuse every token."""
        url = settings.jwks_url
        source = RemoteKeys(url, authority=settings.tls_authority_file) if url else StaticKeys({"keys": []})
        return cls(source, issuer=settings.token_issuer, audience=settings.token_audience, clock=clock)

    @classmethod
    def static(
        cls,
        jwks: Mapping[str, Any],
        *,
        issuer: str,
        audience: str = "clinic-api",
        clock: Clock | None = None,
    ) -> Self:
        return cls(StaticKeys(jwks), issuer=issuer, audience=audience, clock=clock)

    async def verify(self, token: str) -> Principal:
        """Return the caller. Raises UnauthenticatedError; TemporarilyUnavailableError without any keys yet."""
        if len(token) > MAX_TOKEN_BYTES:
            return self._refuse("size")
        self._forget_when_keys_change()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        try:
            remembered = self._verified.get(digest)
            if remembered is not None:
                self._check_times(remembered[0])
                self._verified.move_to_end(digest)
                return remembered[1]
            claims = await self._verify(token)
        except _RefusedError as refused:
            self._verified.pop(digest, None)
            return self._refuse(str(refused))
        return self._remember(digest, claims)

    def _refuse(self, reason: str) -> Principal:
        TOKEN_REFUSALS.labels(reason).inc()
        raise UnauthenticatedError("The access token is expired or not valid.")

    def _forget_when_keys_change(self) -> None:
        if self._generation != self.source.generation:
            self._verified.clear()
            self._generation = self.source.generation

    def _remember(self, digest: bytes, claims: _Claims) -> Principal:
        principal = _principal_of(claims)
        self._verified[digest] = (claims, principal)
        if len(self._verified) > MAX_CACHED_TOKENS:
            self._verified.popitem(last=False)
        return principal

    async def _verify(self, token: str) -> _Claims:
        parts = _COMPACT.fullmatch(token)
        if parts is None:
            raise _RefusedError("form")
        header, payload, signature = (_decode(part) for part in parts.groups())
        key = await self.source.find(_key_id_of(header))
        if key is None:
            raise _RefusedError("unknown key")
        if not signature or not _signed_by(key, token):
            raise _RefusedError("signature")
        claims = _read_claims(payload)
        self._check_audience(claims)
        self._check_times(claims)
        return claims

    def _check_audience(self, claims: _Claims) -> None:
        if claims.iss != self._issuer:
            raise _RefusedError("issuer")
        if claims.aud != self._audience:
            raise _RefusedError("audience")
        if (claims.act.sub if claims.act else None) != self._actor:
            raise _RefusedError("actor")
        if claims.kind == "patient" and claims.patient is None:
            raise _RefusedError("claims")

    def _check_times(self, claims: _Claims) -> None:
        now = self._clock.now().timestamp()
        if not 0 < claims.exp - claims.iat <= self._longest_seconds:
            raise _RefusedError("lifetime")
        if now >= claims.exp + LEEWAY_SECONDS:
            raise _RefusedError("expired")
        if max(claims.nbf, claims.iat) > now + LEEWAY_SECONDS:
            raise _RefusedError("not yet valid")


def _decode(part: str) -> bytes:
    """Decode base64url, refusing the other spellings of the same bytes (RFC 4648, 3.5)."""
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise _RefusedError("form") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part.encode():
        raise _RefusedError("form")
    return decoded


def _key_id_of(encoded_header: bytes) -> str:
    try:
        header = strict_json.loads(encoded_header)
    except strict_json.StrictJSONError:
        raise _RefusedError("header") from None
    if not isinstance(header, dict) or set(header) != _HEADER_MEMBERS:
        raise _RefusedError("header")
    # `alg` is compared with what our keys are for; it never chooses anything.
    if header["alg"] != ALGORITHM or header["typ"] != TOKEN_TYPE or not isinstance(header["kid"], str):
        raise _RefusedError("header")
    return header["kid"]


def key_id_of(token: str) -> str:
    """Return which key a token says it was signed with, or nothing: to choose a verifier, never to trust it."""
    try:
        return _key_id_of(_decode(token[:MAX_TOKEN_BYTES].partition(".")[0]))
    except (_RefusedError, ValueError):
        return ""


def parts_of(token: str) -> tuple[bytes, bytes]:
    """Return the header and payload of a compact JWS, each in its one spelling. Raises ValueError."""
    header, payload, _ = token.split(".")
    try:
        return _decode(header), _decode(payload)
    except _RefusedError:
        raise ValueError("not base64url") from None


def claims_in(token: str) -> dict[str, Any]:
    """Return the claims of a token that has just been verified."""
    claims = strict_json.loads(_decode(token.split(".")[1]))
    assert isinstance(claims, dict)  # noqa: S101  # the verifier has seen to it
    return claims


def _signed_by(key: ECKey, token: str) -> bool:
    try:
        jws.deserialize_compact(token, key, algorithms=[ALGORITHM])
    except (JoseError, ValueError):
        return False
    return True


def _read_claims(payload: bytes) -> _Claims:
    try:
        strict_json.loads(payload)
        return _Claims.model_validate_json(payload)
    except (strict_json.StrictJSONError, ValidationError):
        raise _RefusedError("claims") from None


def _principal_of(claims: _Claims) -> Principal:
    return Principal(
        subject=claims.sub,
        kind=claims.kind,
        roles=claims.roles,
        scopes=frozenset(claims.scope.split()),
        network=claims.network,
        centre_ids=claims.centres,
        department_ids=claims.departments,
        patient_id=claims.patient,
        patient_records=claims.patient_records,
        session_id=claims.sid,
        acr=claims.acr,
        amr=claims.amr,
        authenticated_at=None if claims.auth_time is None else datetime.fromtimestamp(claims.auth_time, UTC),
        token_id=claims.jti,
        certificate=claims.cnf.thumbprint if claims.cnf else None,
    )


def claims_of(
    principal: Principal,
    *,
    issued_at: datetime,
    lifetime_seconds: int = LIFETIME_SECONDS,
    client_id: str | None = None,
) -> dict[str, Any]:
    """Return the claims that `TokenVerifier` turns back into this principal."""
    issued = int(issued_at.timestamp())
    claims: dict[str, Any] = {
        "sub": str(principal.subject),
        "iat": issued,
        "nbf": issued,
        "exp": issued + lifetime_seconds,
        "jti": principal.token_id or str(uuid7()),
        "kind": principal.kind,
        "roles": sorted(principal.roles),
        "scope": " ".join(sorted(principal.scopes)),
        "network": principal.network,
        "centres": sorted(map(str, principal.centre_ids)),
        "departments": sorted(map(str, principal.department_ids)),
    }
    if principal.patient_id is not None:
        claims["patient"] = str(principal.patient_id)
    if principal.patient_records:
        claims["patient_records"] = sorted(map(str, principal.patient_records))
    if principal.session_id is not None:
        claims["sid"] = str(principal.session_id)
    if principal.acr is not None:
        claims["acr"] = principal.acr
    if principal.amr:
        claims["amr"] = list(principal.amr)
    if principal.authenticated_at is not None:
        claims["auth_time"] = int(principal.authenticated_at.timestamp())
    if client_id is not None:
        claims["client_id"] = client_id
    if principal.certificate is not None:
        claims["cnf"] = {"x5t#S256": principal.certificate}
    return claims


class TokenSigner:
    """Issues access tokens: identity's half, and that of tests."""

    def __init__(self, key: ECKey, *, issuer: str, audience: str = "clinic-api") -> None:
        if key.curve_name != "P-256" or not key.is_private:
            raise ValueError("a signing key is a private P-256 key")
        self.key = key
        self.key_id = key.thumbprint()
        self._issuer = issuer
        self._audience = audience

    @classmethod
    def generate(cls, *, issuer: str, audience: str = "clinic-api") -> Self:
        return cls(ECKey.generate_key("P-256"), issuer=issuer, audience=audience)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return the token of these claims (`claims_of`), with issuer and audience put in."""
        header = {"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": self.key_id}
        payload = strict_json.dumps({"iss": self._issuer, "aud": self._audience, **claims})
        return jws.serialize_compact(header, payload, self.key, algorithms=[ALGORITHM])

    def public_jwks(self) -> dict[str, Any]:
        """Return the public half as a JWK Set (RFC 7517)."""
        public = {**self.key.as_dict(private=False), "kid": self.key_id, "use": "sig", "alg": ALGORITHM}
        return {"keys": [public]}
