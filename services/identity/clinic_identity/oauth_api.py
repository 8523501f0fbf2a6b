"""HTTP in: the token endpoint (RFC 6749)."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from clinic_shared.database import Transaction
from clinic_shared.routing import PUBLIC, ClinicRouter, CurrentContext, RawBody
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from clinic_identity import app_sessions
from clinic_identity.authorization import is_our_resource
from clinic_identity.client_grants import Granted, authenticate, grant_own_token, read_keys_of
from clinic_identity.desk import Desk
from clinic_identity.domain import Visit
from clinic_identity.fields import CurrentDesk, CurrentVisit
from clinic_identity.oauth_domain import Client
from clinic_identity.oauth_forms import (
    FORM,
    MAX_FORM_BYTES,
    NOT_STORED,
    InvalidFormError,
    OAuthErrorResponse,
    Refused,
    read_client,
    read_form,
    refusal,
)

router = ClinicRouter(tags=["identity"])

GRANT_TYPES = ("authorization_code", "refresh_token", "client_credentials")


class ClientTokenResponse(BaseModel):
    access_token: str
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Field(description="Seconds")]
    scope: Annotated[str, Field(description="Separated by spaces")]
    refresh_token: Annotated[str | None, Field(description="Works once; with `offline_access`")] = None
    id_token: Annotated[str | None, Field(description="With `openid`")] = None
    patient: Annotated[str | None, Field(description="The patient's id, with `launch/patient`")] = None


@router.post(
    "/oauth2/token",
    permission=PUBLIC,
    transactional=False,
    media_types=(FORM,),
    max_body_bytes=MAX_FORM_BYTES,
    operation_id="issueToken",
    responses={
        200: {"model": ClientTokenResponse},
        400: {"model": OAuthErrorResponse, "description": "The request can't be granted"},
        401: {"model": OAuthErrorResponse, "description": "The client or its secret is not known"},
    },
)
async def issue_token(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, request: Request, body: RawBody
) -> Response:
    """Exchange a code, a refresh token or client credentials for an access token (RFC 6749).

    Form fields: `grant_type` `authorization_code` with `code`, `redirect_uri` and `code_verifier`; `refresh_token`
    with `refresh_token`; or `client_credentials`; optionally `scope` and `resource`. Client id and secret come by
    HTTP Basic or as `client_id` and `client_secret`; or, for a client with keys, `client_assertion` signed with RS384
    or ES384 (RFC 7523, SMART Backend Services); a public app, and a client that shows a certificate (RFC 8705), send
    the `client_id` alone. Errors are RFC 6749's own JSON.
    """
    try:
        form = read_form(body)
        presented = read_client(request, form)
        _check_grant_type(form)
    except InvalidFormError as error:
        return refusal(Refused("invalid_request", str(error)))
    if form["grant_type"] not in GRANT_TYPES:
        return refusal(Refused("unsupported_grant_type", f"Supported are {', '.join(GRANT_TYPES)}."))
    shown = await desk.certificates.shown(request, desk.database.clock.now())
    presented = replace(presented, certificate=shown)
    await read_keys_of(desk, context, presented)
    async with desk.database.transaction(context) as tx:
        client = await authenticate(tx, desk, presented)
        granting = partial(_grant, tx, desk, form=form, visit=visit, certificate=presented.certificate)
        outcome = client if isinstance(client, Refused) else await granting(client)
    return refusal(outcome) if isinstance(outcome, Refused) else _granted(outcome)


def _check_grant_type(form: dict[str, str]) -> None:
    if "grant_type" not in form:
        raise InvalidFormError("grant_type is missing.")
    needed = {
        "authorization_code": ("code", "redirect_uri", "code_verifier"),
        "refresh_token": ("refresh_token",),
    }
    for name in needed.get(form["grant_type"], ()):
        if name not in form:
            raise InvalidFormError(f"{name} is missing.")


async def _grant(
    tx: Transaction,
    desk: Desk,
    client: Client,
    *,
    form: dict[str, str],
    visit: Visit,
    certificate: bytes | None,
) -> Granted | Refused:
    if not is_our_resource(desk, form.get("resource")):
        return Refused("invalid_target", "The resource is not served here.")
    if form["grant_type"] == "client_credentials":
        return await grant_own_token(tx, desk, client, form.get("scope"), certificate=certificate)
    if not client.redirect_uris:
        return Refused("unauthorized_client", "The client is not registered for people to log in.")
    if form["grant_type"] == "refresh_token":
        return await app_sessions.refresh(
            tx, desk, client, refresh_token=form["refresh_token"], scope=form.get("scope"), visit=visit
        )
    return await app_sessions.redeem_code(
        tx,
        desk,
        client,
        code=form["code"],
        redirect_uri=form["redirect_uri"],
        verifier=form["code_verifier"],
    )


def _granted(granted: Granted) -> Response:
    optional = {
        "refresh_token": granted.refresh_token,
        "id_token": granted.id_token,
        "patient": granted.patient_id,
    }
    content = {
        "access_token": granted.access_token,
        "token_type": "Bearer",
        "expires_in": granted.expires_in_seconds,
        "scope": " ".join(sorted(granted.scopes)),
        **{name: value for name, value in optional.items() if value is not None},
    }
    return JSONResponse(content, headers=NOT_STORED)
