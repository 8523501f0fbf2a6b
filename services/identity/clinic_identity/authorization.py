"""What an app asks for at the authorization endpoint (RFC 6749, 4.1.1), judged before anybody logs in.

Until client and redirect URI are known to belong together nobody is sent anywhere: the person is told on a page.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from clinic_shared.database import Transaction

from clinic_identity import store
from clinic_identity.desk import Desk
from clinic_identity.oauth_domain import PROTOCOL_SCOPES, Client, is_challenge

MAX_TEXT = 512


class UnusableRequestError(Exception):
    """The request can't even be refused to the app, since nobody knows which app it is of."""


class RefusedRequestError(Exception):
    """The app is told why: `location` is where it waits."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self.location = location


@dataclass(frozen=True, kw_only=True)
class AuthorizationRequest:
    client: Client
    issuer: str
    redirect_uri: str
    scopes: frozenset[str]
    state: str | None
    code_challenge: str
    nonce: str | None
    login_hint: str

    def granted(self, code: str) -> str:
        """Return where the app takes its code."""
        return _location(self.redirect_uri, code=code, state=self.state, iss=self.issuer)

    def denied(self, error: str, description: str) -> str:
        return _location(
            self.redirect_uri, error=error, error_description=description, state=self.state, iss=self.issuer
        )

    @property
    def page_of_app(self) -> str:
        """Return what a policy names the app's page by: its origin, or its scheme."""
        parts = urlsplit(self.redirect_uri)
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"


async def read_request(tx: Transaction, desk: Desk, asked: Mapping[str, str]) -> AuthorizationRequest:
    """Raises UnusableRequestError, RefusedRequestError."""
    client = await store.find_client(tx, asked.get("client_id", ""))
    if client is None or not client.active or not client.redirect_uris:
        raise UnusableRequestError("This app is not registered here.")
    redirect_uri = asked.get("redirect_uri", "")
    if not client.takes_back_at(redirect_uri):
        raise UnusableRequestError("The app wants its answer at an address that it has not registered.")
    return _Reader(desk, client, redirect_uri, asked).read()


@dataclass(frozen=True)
class _Reader:
    desk: Desk
    client: Client
    redirect_uri: str
    asked: Mapping[str, str]

    def read(self) -> AuthorizationRequest:
        self._check_kind()
        self._check_challenge()
        self._check_target()
        return AuthorizationRequest(
            client=self.client,
            issuer=self.desk.settings.token_issuer,
            redirect_uri=self.redirect_uri,
            scopes=self._scopes(),
            state=self._state,
            code_challenge=self.asked["code_challenge"],
            nonce=self._short("nonce"),
            login_hint=self._short("login_hint") or "",
        )

    def _check_kind(self) -> None:
        if self.asked.keys() & {"request", "request_uri"}:
            raise self._refused("request_not_supported", "Parameters come one by one.")
        if self.asked.get("response_type") != "code":
            raise self._refused("unsupported_response_type", "response_type is code.")
        if self.asked.get("response_mode", "query") != "query":
            raise self._refused("invalid_request", "response_mode is query.")
        if self.asked.get("prompt") == "none":
            raise self._refused("login_required", "Each authorization asks its person to log in.")

    def _check_challenge(self) -> None:
        if self.asked.get("code_challenge_method") != "S256":
            raise self._refused("invalid_request", "code_challenge_method is S256.")
        if not is_challenge(self.asked.get("code_challenge", "")):
            raise self._refused("invalid_request", "code_challenge is the base64url SHA-256 of the verifier.")

    def _check_target(self) -> None:
        audience = self.asked.get("aud")
        if audience is not None and audience.rstrip("/") != self.desk.settings.fhir_base:
            raise self._refused("invalid_request", "aud is the base address of FHIR here.")
        if not is_our_resource(self.desk, self.asked.get("resource")):
            raise self._refused("invalid_target", "The resource is not served here.")

    def _scopes(self) -> frozenset[str]:
        wanted = frozenset(self.asked.get("scope", "").split()) or frozenset(self.client.user_scopes)
        if not wanted <= PROTOCOL_SCOPES | frozenset(self.client.user_scopes):
            raise self._refused("invalid_scope", "A scope was asked for that the app isn't registered for.")
        return wanted

    def _short(self, name: str) -> str | None:
        text = self.asked.get(name)
        if text is not None and len(text) > MAX_TEXT:
            raise self._refused("invalid_request", f"{name} is too long.")
        return text

    @property
    def _state(self) -> str | None:
        return self.asked.get("state")

    def _refused(self, error: str, description: str) -> RefusedRequestError:
        told = {"error": error, "error_description": description, "state": self._state}
        return RefusedRequestError(_location(self.redirect_uri, **told, iss=self.desk.settings.token_issuer))


def is_our_resource(desk: Desk, resource: str | None) -> bool:
    """Tell whether a token for us is what is asked for (RFC 8707)."""
    ours = {desk.settings.token_issuer, desk.settings.fhir_base}
    return resource is None or resource.rstrip("/") in ours


def _location(redirect_uri: str, **told: str | None) -> str:
    query = urlencode({name: text for name, text in told.items() if text is not None}, quote_via=quote)
    return f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{query}"
