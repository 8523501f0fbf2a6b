"""HTTP in: what clients ask about tokens that they hold (RFC 7662, RFC 7009)."""

from dataclasses import replace
from typing import Annotated, Any

from clinic_shared.context import Context
from clinic_shared.routing import PUBLIC, ClinicRouter, CurrentContext, RawBody
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from clinic_identity import token_care
from clinic_identity.client_grants import authenticate, read_keys_of
from clinic_identity.desk import Desk
from clinic_identity.fields import CurrentDesk
from clinic_identity.oauth_forms import (
    FORM,
    MAX_FORM_BYTES,
    NOT_STORED,
    InvalidFormError,
    OAuthErrorResponse,
    Presented,
    Refused,
    read_client,
    read_form,
    refusal,
)

router = ClinicRouter(tags=["identity"])

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": OAuthErrorResponse, "description": "The request can't be understood"},
    401: {"model": OAuthErrorResponse, "description": "The client or its secret is not known"},
}


class IntrospectionResponse(BaseModel):
    """Of a token that doesn't count nothing but that is told."""

    active: bool
    token_type: str | None = None
    scope: str | None = None
    client_id: str | None = None
    sub: str | None = None
    exp: int | None = None
    iat: int | None = None
    nbf: int | None = None
    iss: str | None = None
    aud: str | None = None
    jti: str | None = None
    sid: str | None = None
    acr: str | None = None
    auth_time: int | None = None
    patient: str | None = None
    cnf: Annotated[
        dict[str, str] | None, Field(description="The certificate that it comes with, by `x5t#S256`")
    ] = None


@router.post(
    "/oauth2/introspect",
    permission=PUBLIC,
    transactional=False,
    media_types=(FORM,),
    max_body_bytes=MAX_FORM_BYTES,
    operation_id="introspectToken",
    responses={200: {"model": IntrospectionResponse}, **_REFUSALS},
)
async def introspect_token(
    desk: CurrentDesk, context: CurrentContext, request: Request, body: RawBody
) -> Response:
    """Tell a confidential client whether a token of its own still counts (RFC 7662). Form field: `token`."""
    asked = await _read(desk, context, request, body)
    if isinstance(asked, Refused):
        return refusal(asked)
    presented, token = asked
    async with desk.database.transaction(context) as tx:
        client = await authenticate(tx, desk, presented)
        if isinstance(client, Refused):
            return refusal(client)
        if client.is_public:
            return refusal(Refused("invalid_client", "A public app can't prove that it is the one asking."))
        return JSONResponse(await token_care.introspect(tx, desk, client, token), headers=NOT_STORED)


@router.post(
    "/oauth2/revoke",
    permission=PUBLIC,
    transactional=False,
    media_types=(FORM,),
    max_body_bytes=MAX_FORM_BYTES,
    operation_id="revokeToken",
    responses={200: {"description": "The token doesn't count any more, or never did"}, **_REFUSALS},
)
async def revoke_token(
    desk: CurrentDesk, context: CurrentContext, request: Request, body: RawBody
) -> Response:
    """End the session behind a token: all its tokens are void within seconds (RFC 7009). Form field: `token`."""
    asked = await _read(desk, context, request, body)
    if isinstance(asked, Refused):
        return refusal(asked)
    presented, token = asked
    async with desk.database.transaction(context) as tx:
        client = await authenticate(tx, desk, presented)
        refused = client if isinstance(client, Refused) else await token_care.revoke(tx, desk, client, token)
    return refusal(refused) if refused else Response(headers=NOT_STORED)


async def _read(
    desk: Desk, context: Context, request: Request, body: bytes
) -> tuple[Presented, str] | Refused:
    try:
        form = read_form(body)
        presented = read_client(request, form)
        if "token" not in form:
            raise InvalidFormError("token is missing.")  # noqa: TRY301  # as whatever else breaks the form
    except InvalidFormError as error:
        return Refused("invalid_request", str(error))
    await read_keys_of(desk, context, presented)
    shown = await desk.certificates.shown(request, desk.database.clock.now())
    return replace(presented, certificate=shown), form["token"]
