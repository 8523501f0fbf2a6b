"""HTTP in: registering laboratories and apps as OAuth2 clients."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from clinic_shared.errors import InvalidRequestError, RuleError
from clinic_shared.routing import Caller, ClinicRouter, Idempotency, IfMatch, Page, PageQuery, Tx, page_of
from clinic_shared.step_up import RECENT_AUTHENTICATION
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinic_identity import clients, fields, store
from clinic_identity.certificate_rules import NAMES, SELF_SIGNED, TLS_CLIENT_AUTH, CertificateRule
from clinic_identity.client_assertions import MAX_KEYS
from clinic_identity.desk import Desk
from clinic_identity.fields import Code, CurrentDesk, Label
from clinic_identity.oauth_domain import Client, ClientKind
from clinic_identity.public_sites import NotPublicError, check_url

router = ClinicRouter(tags=["identity"])


RedirectUris = Annotated[
    tuple[str, ...],
    Field(max_length=20, description="Where an app's users are sent back to; a loopback's port is free"),
]
UserScopes = Annotated[
    tuple[str, ...], Field(max_length=100, description="What users may let an app do in their name")
]


class ClientRequest(fields.Request):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"kind": "lab", "name": "Test laboratory", "client_id": "lab-test"}]},
    )

    kind: ClientKind
    name: Label
    client_id: Annotated[Code | None, Field(description="Made up for you if absent")] = None
    scopes: Annotated[tuple[str, ...], Field(max_length=100, description="Of an app; a lab's are fixed")] = ()
    network: Annotated[bool, Field(description="An app that reaches every centre")] = False
    centre_ids: Annotated[tuple[UUID, ...], Field(max_length=100)] = ()
    redirect_uris: RedirectUris = ()
    user_scopes: UserScopes = ()
    public: Annotated[bool, Field(description="An app in its users' hands, which can keep no secret")] = False

    @model_validator(mode="after")
    def _lab_has_its_role(self) -> Self:
        reach = bool(self.scopes or self.network or self.centre_ids)
        if (self.kind is ClientKind.LAB) == (reach or bool(self.redirect_uris)):
            raise RuleError("an app needs scopes or redirect URIs; a lab takes neither them nor places")
        if bool(self.redirect_uris) != bool(self.user_scopes):
            raise RuleError("redirect_uris and user_scopes come together")
        if self.public and (reach or not self.redirect_uris):
            raise RuleError(
                "a public app acts for people only: redirect_uris, but no scopes or places of its own"
            )
        return self

    def command(self) -> clients.RegisterClient:
        return clients.RegisterClient(
            kind=self.kind,
            name=self.name,
            client_id=self.client_id,
            scopes=tuple(dict.fromkeys(self.scopes)),
            network=self.network,
            centre_ids=tuple(dict.fromkeys(self.centre_ids)),
            redirect_uris=tuple(dict.fromkeys(self.redirect_uris)),
            user_scopes=tuple(dict.fromkeys(self.user_scopes)),
            public=self.public,
        )


class RotateRequest(fields.Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_seconds": 3600}]})

    overlap_seconds: Annotated[
        int | None,
        Field(ge=0, le=7 * 86_400, description="How long the old secret goes on working; by default a day"),
    ] = None


class CertificateResponse(BaseModel):
    token_endpoint_auth_method: Literal["tls_client_auth", "self_signed_tls_client_auth"]
    tls_client_certificate_bound_access_tokens: bool
    name: Annotated[str | None, Field(description="What an authority of the operator's vouches for")]
    name_kind: Annotated[str | None, Field(description=f"One of {', '.join(NAMES)}")]
    thumbprints: Annotated[list[str], Field(description="`x5t#S256` of the certificates themselves")]

    @classmethod
    def of(cls, rule: CertificateRule) -> Self:
        return cls(
            token_endpoint_auth_method=SELF_SIGNED if rule.pinned else TLS_CLIENT_AUTH,
            tls_client_certificate_bound_access_tokens=rule.bound,
            name=rule.name,
            name_kind=rule.name_kind,
            thumbprints=list(rule.pinned),
        )


class ClientResponse(BaseModel):
    id: UUID
    partner_id: Annotated[UUID | None, Field(description="A lab's id in every service; null for an app")]
    version: int
    kind: ClientKind
    client_id: str
    name: str
    scopes: list[str]
    network: bool
    centre_ids: list[UUID]
    redirect_uris: list[str]
    user_scopes: list[str]
    public: bool
    jwks_url: str | None
    certificate: CertificateResponse | None
    active: bool
    registered_at: datetime
    previous_secret_expires_at: datetime | None

    @classmethod
    def of(cls, client: Client, **more: Any) -> Self:
        return cls(
            id=client.id,
            partner_id=client.id if client.kind is ClientKind.LAB else None,
            version=client.version,
            kind=client.kind,
            client_id=client.client_id,
            name=client.name,
            scopes=list(client.scopes),
            network=client.network,
            centre_ids=list(client.centre_ids),
            redirect_uris=list(client.redirect_uris),
            user_scopes=list(client.user_scopes),
            public=client.is_public,
            jwks_url=client.jwks_url,
            certificate=CertificateResponse.of(client.certificate) if client.certificate else None,
            active=client.active,
            registered_at=client.registered_at,
            previous_secret_expires_at=client.previous_secret_expires_at,
            **more,
        )


class NewSecretResponse(ClientResponse):
    client_secret: Annotated[str | None, Field(description="Shown this once; a public app has none")]


# Answers with a secret are never kept for repeats: the unique client_id and If-Match catch those.
@router.post(
    "/v1/clients",
    permission="clients.manage",
    idempotency=Idempotency.NONE,
    status_code=201,
    operation_id="registerClient",
)
async def register_client(
    tx: Tx, desk: CurrentDesk, caller: Caller, body: ClientRequest
) -> NewSecretResponse:
    """Register a laboratory or an app. The secret is shown this once."""
    registration = await clients.register_client(
        tx, body.command(), known_scopes=desk.known_scopes, caller=caller
    )
    return NewSecretResponse.of(registration.client, client_secret=registration.client_secret)


@router.get("/v1/clients", permission="clients.manage", operation_id="listClients")
async def list_clients(tx: Tx, page: PageQuery) -> Page[ClientResponse]:
    """List laboratories and apps, deactivated ones included."""
    found = await store.list_clients(tx, after=page.after, limit=page.limit + 1)
    return page_of([ClientResponse.of(c) for c in found], page, key=lambda c: c.id)


@router.post(
    "/v1/clients/{key}/rotate-secret",
    permission="clients.manage",
    idempotency=Idempotency.NONE,
    operation_id="rotateClientSecret",
)
async def rotate_secret(
    tx: Tx, desk: CurrentDesk, key: UUID, body: RotateRequest, expected: IfMatch
) -> NewSecretResponse:
    """Make a new secret; the one before works until the overlap is over."""
    overlap = (
        desk.settings.secret_overlap
        if body.overlap_seconds is None
        else timedelta(seconds=body.overlap_seconds)
    )
    registration = await clients.rotate_secret(tx, key, overlap=overlap, expected_version=expected)
    return NewSecretResponse.of(registration.client, client_secret=registration.client_secret)


class JwksUrlRefusedError(InvalidRequestError):
    """Keys are read from the public internet only, by https at port 443 and a full name."""

    slug = "jwks-url-refused"
    title = "Keys can't be read from this address"
    fix = "Publish them at `https://...` under a name of the public internet, without user info or fragment."


class KeysRequest(fields.Request):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "keys": [
                        {
                            "kty": "EC",
                            "crv": "P-384",
                            "kid": "2026-03",
                            "x": "SDpVcPx3cltMjQCpdXaQMt_zXMnxA8AOimjIcy5crBubKorWwSCH847xh_hRxjf9",
                            "y": "e5RLACastPzJafan-5e17zCo3532hkd0NxCpBy1YjgENaVdw-8JJy5dHTUIHP5zJ",
                        }
                    ]
                }
            ]
        },
    )

    keys: Annotated[list[dict[str, Any]] | None, Field(max_length=MAX_KEYS)] = None
    jwks_url: Annotated[
        str | None,
        Field(max_length=2000, description="Where the client publishes them: https, a public site"),
    ] = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.keys is None) == (self.jwks_url is None):
            raise RuleError("give keys or jwks_url")
        return self


@router.put(
    "/v1/clients/{key}/keys",
    permission="clients.manage",
    dependencies=RECENT_AUTHENTICATION,
    operation_id="setClientKeys",
)
async def set_client_keys(
    tx: Tx, desk: CurrentDesk, key: UUID, body: KeysRequest, expected: IfMatch
) -> ClientResponse:
    """Register the public keys (a JWK Set) with which a client signs its requests for tokens, or their URL."""
    if body.jwks_url is not None:
        _check_jwks_url(desk, body.jwks_url)
    return ClientResponse.of(
        await clients.set_client_keys(tx, key, body.keys, url=body.jwks_url, expected_version=expected)
    )


def _check_jwks_url(desk: Desk, url: str) -> None:
    try:
        check_url(url, loopback=desk.settings.client_keys_from_loopback)
    except NotPublicError as error:
        raise JwksUrlRefusedError(str(error)) from None


class SignInRequest(fields.Request):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "redirect_uris": ["https://app.example.org/callback"],
                    "user_scopes": ["appointments.read", "appointments.book"],
                }
            ]
        },
    )

    redirect_uris: RedirectUris
    user_scopes: UserScopes


@router.put(
    "/v1/clients/{key}/sign-in",
    permission="clients.manage",
    dependencies=RECENT_AUTHENTICATION,
    operation_id="setClientSignIn",
)
async def set_client_sign_in(
    tx: Tx, desk: CurrentDesk, key: UUID, body: SignInRequest, expected: IfMatch
) -> ClientResponse:
    """Say where an app sends its users back to and what they may let it do. Its sessions end."""
    client = await clients.set_sign_in(
        tx,
        key,
        redirect_uris=tuple(dict.fromkeys(body.redirect_uris)),
        user_scopes=tuple(dict.fromkeys(body.user_scopes)),
        known_scopes=desk.known_scopes,
        expected_version=expected,
    )
    return ClientResponse.of(client)


@router.post("/v1/clients/{key}/deactivate", permission="clients.manage", operation_id="deactivateClient")
async def deactivate_client(tx: Tx, key: UUID, expected: IfMatch) -> ClientResponse:
    """Block a client for good; its tokens are void within seconds."""
    return ClientResponse.of(await clients.deactivate_client(tx, key, expected_version=expected))
