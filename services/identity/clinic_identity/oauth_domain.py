"""The rules of OAuth2 clients, pure: who they are, and where people are sent back to."""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from clinic_shared.errors import DomainError, InvalidRequestError

from clinic_identity.certificate_rules import CertificateRule

CODE_LIFE = timedelta(seconds=60)
FHIR_PATH = "/fhir/R4"

OPENID, FHIR_USER, LAUNCH_PATIENT = "openid", "fhirUser", "launch/patient"
LASTING = frozenset({"offline_access", "online_access"})
"""Either brings a refresh token, which lives as long as the session does."""
PROTOCOL_SCOPES = frozenset({OPENID, FHIR_USER, LAUNCH_PATIENT}) | LASTING
"""What an app may ask for besides permissions: they say what the answer brings, and open nothing."""
NEVER_LENT = frozenset({"profile.read"})
"""One's own account stays one's own: an app changes no password, adds no second factor, ends no session."""

_WEB = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?([/?].*)?")
_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]{1,5})?(/[^#]*)?")
_PRIVATE_USE = re.compile(r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+")
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,2000}")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


class ClientKind(StrEnum):
    LAB = "lab"
    APP = "app"


class ClientIdTakenError(DomainError):
    """A client id names one client for ever."""

    slug = "client-id-taken"
    title = "Another client has this client_id"
    fix = "Choose another client_id, or leave it out."


class RedirectUriRefusedError(InvalidRequestError):
    """People are sent back to `https` pages, to the app on their own device, or to a loopback address."""

    slug = "redirect-uri-refused"
    title = "Nobody can be sent back to this address safely"
    fix = (
        "Use https without fragment and user info, a private-use scheme with a dot (`com.example.app:/cb`), or"
        " http to 127.0.0.1 or [::1]."
    )


class CertificateNotForPeopleError(DomainError):
    """A certificate is shown by a machine that acts in its own name."""

    slug = "certificate-not-for-people"
    title = "A client that people sign in with shows no certificate"
    fix = "Register a client of its own for what the machine does in its own name."


class PublicClientError(DomainError):
    """A public app runs in its users' hands: it can't keep a secret, and has none."""

    slug = "public-client"
    title = "A public app has neither secret nor keys"
    fix = "Register a confidential app if it runs on a server."


@dataclass(frozen=True, kw_only=True)
class Client:
    """`id` is the lab's id in every service. A secret that was replaced works until it expires."""

    id: UUID
    version: int
    kind: ClientKind
    client_id: str
    name: str
    scopes: tuple[str, ...]
    """What it may do in its own name; `user_scopes` what people may let it do in theirs."""
    network: bool
    centre_ids: tuple[UUID, ...]
    secret_digest: str
    """Empty for a public app."""
    previous_secret_digest: str | None
    previous_secret_expires_at: datetime | None
    active: bool
    registered_at: datetime
    changed_at: datetime | None
    tokens_valid_from: datetime
    jwks: dict[str, Any] | None = None
    """Public keys of its own; who has any may sign instead of sending the secret. Or where it publishes them."""
    jwks_url: str | None = None
    redirect_uris: tuple[str, ...] = ()
    user_scopes: tuple[str, ...] = ()
    certificate: CertificateRule | None = None
    """What it shows in place of secret and keys, which get it no tokens then."""

    @property
    def is_public(self) -> bool:
        return not self.secret_digest

    def secret_digests(self, now: datetime) -> list[str]:
        """Return the digests of the secrets that work now, the newest first."""
        digests = [self.secret_digest]
        if (
            self.previous_secret_digest is not None
            and self.previous_secret_expires_at is not None
            and now < self.previous_secret_expires_at
        ):
            digests.append(self.previous_secret_digest)
        return digests

    def takes_back_at(self, redirect_uri: str) -> bool:
        """Tell whether people may be sent there: as registered to the letter, but for a loopback's port.

        An app on one's own device gets whatever port is free (RFC 8252, 7.3).
        """
        return _without_loopback_port(redirect_uri) in map(_without_loopback_port, self.redirect_uris)


def check_redirect_uri(uri: str) -> str:
    """Return an address that may be registered. Raises RedirectUriRefusedError."""
    if not _PRINTABLE.fullmatch(uri) or "#" in uri or "\\" in uri:
        raise RedirectUriRefusedError
    if not (_WEB.fullmatch(uri) or _LOOPBACK.fullmatch(uri) or _is_private_use(uri)):
        raise RedirectUriRefusedError
    return uri


def _is_private_use(uri: str) -> bool:
    scheme, _, rest = uri.partition(":")
    return bool(_PRIVATE_USE.fullmatch(scheme)) and rest.startswith("/") and not rest.startswith("//")


def _without_loopback_port(uri: str) -> str:
    loopback = _LOOPBACK.fullmatch(uri)
    return loopback[1] + (loopback[2] or "") if loopback else uri


def is_challenge(text: str) -> bool:
    """Tell whether this can be the S256 challenge of a verifier (RFC 7636, 4.2)."""
    return _CHALLENGE.fullmatch(text) is not None


def answers_challenge(verifier: str, challenge: str) -> bool:
    if not _VERIFIER.fullmatch(verifier):
        return False
    made = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
    return hmac.compare_digest(made, challenge.encode())
