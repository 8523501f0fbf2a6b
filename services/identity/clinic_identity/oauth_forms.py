"""Forms and client credentials as RFC 6749 has them, read strictly; its errors are JSON of its own."""

import base64
import binascii
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote_plus

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from clinic_identity.client_assertions import ASSERTION_TYPE

FORM = "application/x-www-form-urlencoded"
MAX_FORM_BYTES = 16 * 1024
_MAX_FIELDS = 20
NOT_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}

ErrorCode = Literal[
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "unsupported_token_type",
]


class OAuthErrorResponse(BaseModel):
    error: ErrorCode
    error_description: str


@dataclass(frozen=True)
class Refused:
    """`error` is one of RFC 6749's codes (5.2), or RFC 8707's."""

    error: ErrorCode
    description: str


class InvalidFormError(Exception):
    """The request breaks RFC 6749's form; the text says how, without what was sent."""


@dataclass(frozen=True, kw_only=True)
class Presented:
    """How a client says who it is: a secret, an assertion that it signed, a certificate, or, a public one, its id alone."""

    client_id: str = ""
    client_secret: str | None = None
    assertion: str | None = None
    certificate: bytes | None = None
    """In DER, as it was shown on the connection (`client_certificates.py`)."""


def read_form(text: bytes | str) -> dict[str, str]:
    """Return the fields of a form or query string. Raises InvalidFormError."""
    try:
        pairs = parse_qsl(
            text.decode() if isinstance(text, bytes) else text,
            strict_parsing=bool(text),
            keep_blank_values=False,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:
        raise InvalidFormError("The body is not a form.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise InvalidFormError("A parameter is given twice.")
    if any("\x00" in value for value in form.values()):
        raise InvalidFormError("A parameter holds a NUL character.")
    return form


def read_client(request: Request, form: dict[str, str]) -> Presented:
    """Return how the client presents itself. Raises InvalidFormError when it does so in several ways."""
    assertion = _assertion(request, form)
    if assertion is not None:
        return Presented(client_id=form.get("client_id", ""), assertion=assertion)
    headers = request.headers.getlist("authorization")
    if not headers:
        return Presented(client_id=form.get("client_id", ""), client_secret=form.get("client_secret"))
    if len(headers) > 1 or "client_secret" in form:
        raise InvalidFormError("The client authenticates in more than one way.")
    scheme, _, value = headers[0].partition(" ")
    if scheme.lower() != "basic":
        raise InvalidFormError("The client authenticates by HTTP Basic or in the body.")
    client_id, client_secret = _read_basic(value.strip())
    if form.get("client_id", client_id) != client_id:
        raise InvalidFormError("Two different client ids are given.")
    return Presented(client_id=client_id, client_secret=client_secret)


def refusal(refused: Refused) -> Response:
    """Return the answer of RFC 6749, 5.2."""
    headers = dict(NOT_STORED)
    status = 400
    if refused.error == "invalid_client":
        status = 401
        headers["WWW-Authenticate"] = 'Basic realm="clinic", charset="UTF-8"'
    content = {"error": refused.error, "error_description": refused.description}
    return JSONResponse(content, status_code=status, headers=headers)


def _assertion(request: Request, form: dict[str, str]) -> str | None:
    kind, assertion = form.get("client_assertion_type"), form.get("client_assertion")
    if kind is None and assertion is None:
        return None
    if kind != ASSERTION_TYPE or assertion is None:
        raise InvalidFormError(f"client_assertion_type is {ASSERTION_TYPE}, beside client_assertion.")
    if "client_secret" in form or request.headers.getlist("authorization"):
        raise InvalidFormError("The client authenticates in more than one way.")
    return assertion


def _read_basic(value: str) -> tuple[str, str]:
    try:
        client_id, _, client_secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidFormError("The Authorization header is malformed.") from None
    decoded = unquote_plus(client_id), unquote_plus(client_secret)  # RFC 6749, 2.3.1
    if "\x00" in decoded[0]:
        raise InvalidFormError("The Authorization header is malformed.")
    return decoded
