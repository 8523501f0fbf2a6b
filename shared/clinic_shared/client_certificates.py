"""Certificates that clients show (RFC 8705): how one is named in a token, and how the gateway tells identity of one.

A certificate is no secret, so a header that holds one proves nothing: what identity believes is signed by the gateway.
"""

import base64
import binascii
import hashlib

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from clinic_shared import strict_json
from clinic_shared.auth import ALGORITHM, parts_of
from clinic_shared.crash import mutated
from clinic_shared.errors import UnauthenticatedError
from clinic_shared.internal_tokens import ISSUER, LIFETIME_SECONDS, audience_of
from clinic_shared.jwks import KeySource
from clinic_shared.principal import Principal

HEADER = "X-Clinic-Client-Certificate"
TYPE = "client-certificate+jwt"
MAX_CERTIFICATE_BYTES = 8192
LEEWAY_SECONDS = 10


class WrongCertificateError(UnauthenticatedError):
    """A token that is bound to a certificate is of no use without it (RFC 8705, 3)."""

    slug = "wrong-client-certificate"
    title = "The token belongs to another certificate"
    fix = (
        "Send the token over a connection that shows the certificate it was issued for, or ask for a new one."
    )


def thumbprint(certificate: bytes) -> str:
    """Return `x5t#S256` of a certificate in DER."""
    return base64.urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode()


def require_own_certificate(principal: Principal, shown: bytes | None) -> None:
    """Refuse a token whose certificate isn't the one that was shown. Raises WrongCertificateError."""
    bound_to = principal.certificate
    if bound_to is None or mutated("certificate-binding-off"):
        return
    if shown is None or thumbprint(shown) != bound_to:
        raise WrongCertificateError


def vouch_for(certificate: bytes, key: ECKey, *, service: str, now: int) -> str:
    """Return what the gateway says to a service of a certificate (DER) that it has seen on this request."""
    payload = {
        "iss": ISSUER,
        "aud": audience_of(service),
        "iat": now,
        "x5c": [base64.b64encode(certificate).decode()],
    }
    header = {"alg": ALGORITHM, "typ": TYPE, "kid": key.thumbprint()}
    return jws.serialize_compact(header, strict_json.dumps(payload), key, algorithms=[ALGORITHM])


async def read_vouched(text: str, keys: KeySource, *, service: str, now: int) -> bytes:
    """Return the certificate in what the gateway said. Raises ValueError when it wasn't the gateway, or not now."""
    header, payload = (strict_json.loads(part) for part in parts_of(text))
    if not isinstance(header, dict) or not isinstance(payload, dict):
        raise ValueError("not an object")  # noqa: TRY004  # a text from outside, not an argument
    key = await keys.find(str(header.get("kid")))
    if key is None or header != {"alg": ALGORITHM, "typ": TYPE, "kid": header["kid"]}:
        raise ValueError("not signed by the gateway")
    try:
        jws.deserialize_compact(text, key, algorithms=[ALGORITHM])
    except JoseError:
        raise ValueError("not signed by the gateway") from None
    said_at = payload.get("iat")
    if payload.get("iss") != ISSUER or payload.get("aud") != audience_of(service):
        raise ValueError("not for this service")
    if not isinstance(said_at, int) or not -LEEWAY_SECONDS <= now - said_at <= LIFETIME_SECONDS:
        raise ValueError("not of now")
    return _decoded(payload["x5c"][0])


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
