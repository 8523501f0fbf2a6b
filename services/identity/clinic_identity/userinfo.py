"""HTTP in: who logged in, for the app that holds the access token (OpenID Connect Core 5.3).

It says what the ID token says, ids and nothing personal, so that an app may ask again later.
"""

from typing import Annotated

from clinic_shared.errors import ForbiddenError, UnauthenticatedError
from clinic_shared.routing import AUTHENTICATED, Caller, ClinicRouter, Idempotency, Tx
from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from clinic_identity import session_store, store
from clinic_identity.fields import CurrentDesk
from clinic_identity.id_tokens import fhir_user
from clinic_identity.oauth_domain import OPENID
from clinic_identity.oauth_forms import NOT_STORED

router = ClinicRouter(tags=["identity"])

PATH = "/oauth2/userinfo"


class UserInfoResponse(BaseModel):
    sub: Annotated[str, Field(description="The account's id, as in the ID token")]
    fhirUser: Annotated[str | None, Field(description="With `fhirUser`")] = None  # noqa: N815  # SMART's name


@router.post(PATH, permission=AUTHENTICATED, idempotency=Idempotency.NONE, include_in_schema=False)
@router.get(
    PATH,
    permission=AUTHENTICATED,
    operation_id="getUserInfo",
    responses={200: {"model": UserInfoResponse}},
)
async def get_user_info(tx: Tx, desk: CurrentDesk, caller: Caller) -> Response:
    """Say who logged in for the app. Takes an access token of a session with `openid`."""
    session = await session_store.find_session(tx, caller.session_id) if caller.session_id else None
    account = await store.find_account(tx, session.account_id) if session else None
    granted = (session.granted_scopes if session else None) or ()
    if OPENID not in granted:
        raise ForbiddenError("The token is not of a session that an app opened with `openid`.")
    if session is None or session.ended_at is not None or account is None or not account.active:
        raise UnauthenticatedError("The session has ended.")
    told = UserInfoResponse(sub=str(account.account_id), fhirUser=fhir_user(desk, account, session))
    return JSONResponse(told.model_dump(exclude_none=True), headers=NOT_STORED)
