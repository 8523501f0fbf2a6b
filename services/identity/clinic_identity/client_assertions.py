"""Clients that sign in place of sending a secret: `private_key_jwt` as SMART Backend Services has it.

RS384 and ES384 with a key that was registered; which one the header may name, never bring along. An assertion
lives five minutes at most and counts once.
"""

import hashlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from clinic_shared import strict_json
from clinic_shared.auth import LEEWAY_SECONDS, LIFETIME_SECONDS, parts_of
from clinic_shared.database import Transaction
from clinic_shared.errors import InvalidRequestError
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_identity.oauth_domain import Client
from clinic_identity.tables import used_assertion

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ("RS384", "ES384")
MAX_KEYS = 10
MAX_ASSERTION_BYTES = 8192
_LEAST_RSA_BITS = 2048
_HEADER_MEMBERS = {"alg", "typ", "kid"}

_Instant = Annotated[int, Field(ge=0, le=2**40)]


class ClientKeysInvalidError(InvalidRequestError):
    """A client's keys are public RSA keys of 2048 bits and more or EC keys on P-384, each with its own `kid`."""

    slug = "client-keys-invalid"
    title = "These keys can't be used"
    fix = "Send a JWK Set with public keys only: RSA for RS384, P-384 for ES384, at most ten."


class AssertionRefusedError(Exception):
    """The assertion proves nothing; the text says why, without what was sent."""


class _Claims(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    iss: str
    sub: str
    aud: str
    exp: _Instant
    iat: _Instant | None = None
    nbf: _Instant = 0
    jti: Annotated[str, Field(min_length=1, max_length=256)]


def check_keys(jwks: dict[str, Any]) -> dict[str, Any]:
    """Return the JWK Set as it is kept. Raises ClientKeysInvalidError."""
    members = jwks.get("keys")
    if not isinstance(members, list) or not 1 <= len(members) <= MAX_KEYS:
        raise ClientKeysInvalidError
    keys = [_public(member) for member in members]
    if len({key["kid"] for key in keys}) != len(keys):
        raise ClientKeysInvalidError
    return {"keys": keys}


def usable_keys(document: bytes) -> dict[str, Any]:
    """Return what can be used of a JWK Set that a client publishes; it may hold keys for other things too.

    Raises StrictJSONError when it isn't JSON.
    """
    jwks = strict_json.loads(document)
    members = jwks.get("keys") if isinstance(jwks, dict) else None
    usable: dict[str, dict[str, Any]] = {}
    for member in members if isinstance(members, list) else []:
        with suppress(ClientKeysInvalidError):
            key = _public(member)
            usable.setdefault(key["kid"], key)
    return {"keys": list(usable.values())[:MAX_KEYS]}


def key_id_in(assertion: str) -> str:
    """Return which key an assertion says it was signed with: to look for it. Raises AssertionRefusedError."""
    header, _ = _parts(assertion)
    return str(_header_of(header).get("kid"))


def client_id_in(assertion: str) -> str:
    """Return who an assertion says it is of: to find the keys, never to trust it. Raises AssertionRefusedError."""
    _, payload = _parts(assertion)
    return _read(payload).sub


async def use_assertion(
    tx: Transaction, client: Client, assertion: str, *, jwks: dict[str, Any], audiences: set[str]
) -> None:
    """Use an assertion of the client's up. Raises AssertionRefusedError."""
    header, payload = _parts(assertion)
    _verify(assertion, header, jwks, url=client.jwks_url)
    claims = _read(payload)
    if claims.iss != client.client_id or claims.sub != client.client_id:
        raise AssertionRefusedError("iss and sub are the client_id.")
    if claims.aud not in audiences:
        raise AssertionRefusedError("aud is the token endpoint.")
    now = tx.now.timestamp()
    if not now - LEEWAY_SECONDS < claims.exp <= now + LIFETIME_SECONDS + LEEWAY_SECONDS:
        raise AssertionRefusedError("exp is in the past or more than five minutes away.")
    if max(claims.nbf, claims.iat or 0) > now + LEEWAY_SECONDS:
        raise AssertionRefusedError("The assertion isn't valid yet.")
    if not await _is_first_use(tx, client, claims):
        raise AssertionRefusedError("The assertion was used before.")


async def _is_first_use(tx: Transaction, client: Client, claims: _Claims) -> bool:
    expires_at = datetime.fromtimestamp(claims.exp, UTC) + timedelta(seconds=LEEWAY_SECONDS)
    noted = upsert(used_assertion).values(
        client_key=client.id, jti_digest=hashlib.sha256(claims.jti.encode()).digest(), expires_at=expires_at
    )
    first = noted.on_conflict_do_nothing().returning(used_assertion.c.client_key)
    return (await tx.execute(first)).one_or_none() is not None


async def purge(tx: Transaction) -> None:
    """Forget what can't be used again anyway."""
    await tx.execute(delete(used_assertion).where(used_assertion.c.expires_at < tx.now))


def _header_of(header: bytes) -> dict[str, Any]:
    try:
        told = strict_json.loads(header)
    except strict_json.StrictJSONError:
        raise AssertionRefusedError("The assertion is malformed.") from None
    if not isinstance(told, dict):
        raise AssertionRefusedError("The assertion is malformed.")
    return told


def _verify(assertion: str, header: bytes, jwks: dict[str, Any], *, url: str | None) -> None:
    told = _header_of(header)
    # `jku` may repeat the registered URL (SMART Backend Services); it never leads anywhere.
    if "jku" in told and (url is None or told.pop("jku") != url):
        raise AssertionRefusedError("jku is not the registered one.")
    if not set(told) <= _HEADER_MEMBERS or told.get("typ", "JWT") != "JWT":
        raise AssertionRefusedError("The header has alg, kid and typ JWT, and nothing else.")
    key = next((key for key in jwks["keys"] if key["kid"] == told.get("kid")), None)
    # The algorithm is that of the registered key, whatever the header says.
    algorithm = _algorithm_of(key) if key else None
    if key is None or algorithm is None or told.get("alg") != algorithm:
        raise AssertionRefusedError("The key is not registered for this client.")
    try:
        jws.deserialize_compact(assertion, _import(key), algorithms=[algorithm])
    except (JoseError, ValueError):
        raise AssertionRefusedError("The signature is wrong.") from None


def _parts(assertion: str) -> tuple[bytes, bytes]:
    try:
        if len(assertion) > MAX_ASSERTION_BYTES:
            raise ValueError  # noqa: TRY301  # one refusal for every malformed one
        return parts_of(assertion)
    except ValueError:
        raise AssertionRefusedError("The assertion is malformed.") from None


def _read(payload: bytes) -> _Claims:
    try:
        strict_json.loads(payload)
        return _Claims.model_validate_json(payload)
    except (strict_json.StrictJSONError, ValidationError):
        raise AssertionRefusedError("iss, sub, aud, exp and jti are needed, each once.") from None


def _public(jwk: Any) -> dict[str, Any]:
    """Return the public part of a key that can be used. Raises ClientKeysInvalidError."""
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str) or "d" in jwk or "k" in jwk:
        raise ClientKeysInvalidError
    if jwk.get("kty") == "RSA" and len(str(jwk.get("n", ""))) < _LEAST_RSA_BITS // 6:
        raise ClientKeysInvalidError
    try:
        key = _import(jwk)
        public = key.as_dict(private=False)
    except (JoseError, ValueError, KeyError, TypeError):
        raise ClientKeysInvalidError from None
    algorithm = _algorithm_of(jwk)
    if algorithm is None or jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        raise ClientKeysInvalidError
    if isinstance(key, RSAKey) and key.raw_value.key_size < _LEAST_RSA_BITS:
        raise ClientKeysInvalidError
    return {**public, "kid": jwk["kid"]}


def _import(jwk: dict[str, Any]) -> RSAKey | ECKey:
    return RSAKey.import_key(jwk) if jwk.get("kty") == "RSA" else ECKey.import_key(jwk)


def _algorithm_of(jwk: dict[str, Any]) -> str | None:
    if jwk.get("kty") == "RSA":
        return "RS384"
    return "ES384" if jwk.get("kty") == "EC" and jwk.get("crv") == "P-384" else None
