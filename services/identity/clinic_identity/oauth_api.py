"""HTTP in: the token endpoint (RFC 6749)."""

import base64
import binascii
from typing import Annotated, Literal
from urllib.parse import parse_qsl, unquote_plus

from clinic_shared.routing import (
    PUBLIC,
    ClinicRouter,
    RawBody,
    Tx,
)
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from clinic_identity import clients
from clinic_identity.client_assertions import ASSERTION_TYPE
from clinic_identity.clients import Granted, Refused
from clinic_identity.fields import CurrentDesk

router = ClinicRouter(tags=["identity"])

FORM = "application/x-www-form-urlencoded"
MAX_FORM_BYTES = 16 * 1024
MAX_FORM_FIELDS = 20
KEYS_CACHED_SECONDS = 300


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
