"""HTTP in: OAuth2 for laboratories and apps, their registration, and our public keys."""

import base64
import binascii
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, unquote_plus
from uuid import UUID

from clinic_shared import contracts
from clinic_shared.routing import (
    PUBLIC,
    Caller,
    ClinicRouter,
    Idempotency,
    IfMatch,
    Page,
    PageQuery,
    RawBody,
    Tx,
    page_of,
)
from clinic_shared.step_up import RECENT_AUTHENTICATION
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinic_identity import clients, fields, store
from clinic_identity.client_assertions import ALGORITHMS, ASSERTION_TYPE, MAX_KEYS
from clinic_identity.clients import Granted, Refused
from clinic_identity.desk import Desk
from clinic_identity.domain import Client, ClientKind
from clinic_identity.fields import Code, CurrentDesk, Label

router = ClinicRouter(tags=["identity"])

FORM = "application/x-www-form-urlencoded"
MAX_FORM_BYTES = 16 * 1024
MAX_FORM_FIELDS = 20
KEYS_CACHED_SECONDS = 300

# -- tokens (RFC 6749)


class ClientTokenResponse(BaseModel):
    access_token: str
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Field(description="Seconds")]
    scope: Annotated[str, Field(description="Separated by spaces")]


class OAuthErrorResponse(BaseModel):
    error: Literal["invalid_request", "invalid_client", "unsupported_grant_type", "invalid_scope"]
    error_description: str


class _InvalidRequestError(Exception):
    """The request breaks RFC 6749's form; the text says how, without what was sent."""


@router.post(
    "/oauth2/token",
    permission=PUBLIC,
    media_types=(FORM,),
    max_body_bytes=MAX_FORM_BYTES,
    operation_id="issueToken",
    responses={
        200: {"model": ClientTokenResponse},
        400: {"model": OAuthErrorResponse, "description": "The request can't be granted"},
        401: {"model": OAuthErrorResponse, "description": "The client or its secret is not known"},
    },
)
async def issue_token(tx: Tx, desk: CurrentDesk, request: Request, body: RawBody) -> Response:
    """Exchange client credentials for an access token (RFC 6749, 4.4).

    Form fields: `grant_type=client_credentials`, optionally `scope`; client id and secret by HTTP Basic or
    as `client_id` and `client_secret`; or, for a client with keys, `client_assertion` signed with RS384 or ES384
    (RFC 7523, SMART Backend Services). Errors are RFC 6749's own JSON.
    """
    try:
        form = _read_form(body)
        assertion = _assertion(request, form)
        client_id, client_secret = ("", "") if assertion else _credentials(request, form)
    except _InvalidRequestError as error:
        return _refusal(Refused("invalid_request", str(error)))
    grant_type = form.get("grant_type")
    if grant_type is None:
        return _refusal(Refused("invalid_request", "grant_type is missing."))
    if grant_type != "client_credentials":
        return _refusal(Refused("unsupported_grant_type", "Only client_credentials is supported."))
    if assertion is not None:
        outcome = await clients.grant_by_assertion(tx, desk, assertion, scope=form.get("scope"))
    else:
        outcome = await clients.grant_client_credentials(
            tx, desk, client_id=client_id, client_secret=client_secret, scope=form.get("scope")
        )
    return _refusal(outcome) if isinstance(outcome, Refused) else _grant(outcome)


def _read_form(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode(),
            strict_parsing=bool(body),
            keep_blank_values=False,
            errors="strict",
            max_num_fields=MAX_FORM_FIELDS,
        )
    except ValueError:
        raise _InvalidRequestError("The body is not a form.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise _InvalidRequestError("A parameter is given twice.")
    if any("\x00" in value for value in form.values()):
        raise _InvalidRequestError("A parameter holds a NUL character.")
    return form


def _assertion(request: Request, form: dict[str, str]) -> str | None:
    kind, assertion = form.get("client_assertion_type"), form.get("client_assertion")
    if kind is None and assertion is None:
        return None
    if kind != ASSERTION_TYPE or assertion is None:
        raise _InvalidRequestError(f"client_assertion_type is {ASSERTION_TYPE}, beside client_assertion.")
    if "client_secret" in form or request.headers.getlist("authorization"):
        raise _InvalidRequestError("The client authenticates in more than one way.")
    return assertion


def _credentials(request: Request, form: dict[str, str]) -> tuple[str, str]:
    headers = request.headers.getlist("authorization")
    if not headers:
        return form.get("client_id", ""), form.get("client_secret", "")
    if len(headers) > 1 or "client_secret" in form:
        raise _InvalidRequestError("The client authenticates in more than one way.")
    scheme, _, value = headers[0].partition(" ")
    if scheme.lower() != "basic":
        raise _InvalidRequestError("The client authenticates by HTTP Basic or in the body.")
    client_id, client_secret = _read_basic(value.strip())
    if form.get("client_id", client_id) != client_id:
        raise _InvalidRequestError("Two different client ids are given.")
    return client_id, client_secret


def _read_basic(value: str) -> tuple[str, str]:
    try:
        client_id, _, client_secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise _InvalidRequestError("The Authorization header is malformed.") from None
    decoded = unquote_plus(client_id), unquote_plus(client_secret)  # RFC 6749, 2.3.1
    if "\x00" in decoded[0]:
        raise _InvalidRequestError("The Authorization header is malformed.")
    return decoded


def _grant(granted: Granted) -> Response:
    content = {
        "access_token": granted.access_token,
        "token_type": "Bearer",
        "expires_in": granted.expires_in_seconds,
        "scope": " ".join(sorted(granted.scopes)),
    }
    return JSONResponse(content, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})


def _refusal(refused: Refused) -> Response:
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
    status = 400
    if refused.error == "invalid_client":
        status = 401
        headers["WWW-Authenticate"] = 'Basic realm="clinic", charset="UTF-8"'
    content = {"error": refused.error, "error_description": refused.description}
    return JSONResponse(content, status_code=status, headers=headers)


# -- clients


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

    @model_validator(mode="after")
    def _lab_has_its_role(self) -> Self:
        reach = bool(self.scopes or self.network or self.centre_ids)
        if (self.kind is ClientKind.LAB) == reach:
            raise ValueError("an app needs scopes; a lab takes neither scopes nor places")
        return self

    def command(self) -> clients.RegisterClient:
        return clients.RegisterClient(
            kind=self.kind,
            name=self.name,
            client_id=self.client_id,
            scopes=tuple(dict.fromkeys(self.scopes)),
            network=self.network,
            centre_ids=tuple(dict.fromkeys(self.centre_ids)),
        )


class RotateRequest(fields.Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_seconds": 3600}]})

    overlap_seconds: Annotated[
        int | None,
        Field(ge=0, le=7 * 86_400, description="How long the old secret goes on working; by default a day"),
    ] = None


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
            active=client.active,
            registered_at=client.registered_at,
            previous_secret_expires_at=client.previous_secret_expires_at,
            **more,
        )


class NewSecretResponse(ClientResponse):
    client_secret: Annotated[str, Field(description="Shown this once")]


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
        tx, body.command(), known_scopes=_known_scopes(desk), caller=caller
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

    keys: Annotated[list[dict[str, Any]], Field(max_length=MAX_KEYS)]


@router.put(
    "/v1/clients/{key}/keys",
    permission="clients.manage",
    dependencies=RECENT_AUTHENTICATION,
    operation_id="setClientKeys",
)
async def set_client_keys(tx: Tx, key: UUID, body: KeysRequest, expected: IfMatch) -> ClientResponse:
    """Register the public keys (a JWK Set) with which a client signs its requests for tokens."""
    return ClientResponse.of(
        await clients.set_client_keys(tx, key, body.model_dump(), expected_version=expected)
    )


@router.post("/v1/clients/{key}/deactivate", permission="clients.manage", operation_id="deactivateClient")
async def deactivate_client(tx: Tx, key: UUID, expected: IfMatch) -> ClientResponse:
    """Block a client for good; its tokens are void within seconds."""
    return ClientResponse.of(await clients.deactivate_client(tx, key, expected_version=expected))


# -- what others read about us


_CACHED = {"Cache-Control": f"public, max-age={KEYS_CACHED_SECONDS}"}


class JwkSetResponse(JSONResponse):
    media_type = "application/jwk-set+json"


@router.get(
    "/.well-known/jwks.json",
    permission=PUBLIC,
    transactional=False,
    operation_id="getPublicKeys",
    response_class=JwkSetResponse,
)
async def get_public_keys(desk: CurrentDesk) -> Response:
    """Return the keys that access tokens are signed with (RFC 7517)."""
    return JwkSetResponse(desk.keys.public_jwks, headers=_CACHED)


@router.get(
    "/.well-known/smart-configuration",
    permission=PUBLIC,
    transactional=False,
    operation_id="getSmartConfiguration",
)
async def get_smart_configuration(desk: CurrentDesk) -> Response:
    """Return what OAuth2 clients need to know to get tokens here."""
    issuer = desk.settings.token_issuer
    document = {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "token_endpoint": desk.settings.token_endpoint,
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
        ],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "scopes_supported": sorted(_known_scopes(desk)),
        "capabilities": ["client-confidential-symmetric", "client-confidential-asymmetric"],
    }
    return JSONResponse(document, headers=_CACHED)


def _known_scopes(desk: Desk) -> frozenset[str]:
    return contracts.load(desk.settings.contracts_dir).scopes()
