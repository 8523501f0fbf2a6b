"""HTTP in: logging in from a browser. Answers bring a cookie and a CSRF token, never an access token."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Self

from clinic_shared.routing import AUTHENTICATED, PUBLIC, Caller, ClinicRouter, CurrentContext, Idempotency, Tx
from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from clinic_identity import (
    authentication,
    browser_sessions,
    cookies,
    fields,
    second_step,
    session_store,
    sessions,
)
from clinic_identity.auth_api import FirstStepRequest
from clinic_identity.browser_sessions import Cookie
from clinic_identity.factor_api import ProofRequest, StepUpRequest
from clinic_identity.fields import CurrentDesk, CurrentVisit
from clinic_identity.passkeys import MAX_CREDENTIAL_BYTES
from clinic_identity.sessions import Tokens

router = ClinicRouter(tags=["identity"])


class BrowserLoginRequest(FirstStepRequest):
    """A device is known by its cookie."""


class BrowserSecondStepRequest(ProofRequest):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"ticket": "st_fictitious", "method": "totp", "code": "123456"}]},
    )

    ticket: Annotated[str, Field(min_length=1, max_length=128, description="From the login's answer")]


class BrowserSessionResponse(BaseModel):
    csrf_token: Annotated[str, Field(description="To be sent as X-CSRF-Token with whatever isn't read-only")]
    session_expires_at: datetime
    must_change_password: bool = False
    must_enrol: bool = False
    second_factor_due_at: datetime | None = None

    @classmethod
    def of(cls, cookie: Cookie, tokens: Tokens | None = None) -> Self:
        answer = cls(csrf_token=cookie.csrf_token, session_expires_at=cookie.session.expires_at)
        if tokens is None:
            return answer
        return answer.model_copy(
            update={
                "must_change_password": tokens.must_change_password,
                "must_enrol": tokens.must_enrol,
                "second_factor_due_at": tokens.second_factor_due_at,
            }
        )


@router.post("/v1/browser/login", permission=PUBLIC, transactional=False, operation_id="logInBrowser")
async def log_in_browser(
    desk: CurrentDesk,
    context: CurrentContext,
    visit: CurrentVisit,
    request: Request,
    response: Response,
    body: BrowserLoginRequest,
) -> BrowserSessionResponse:
    """Open a session for a page of this site: `/v1/auth/login` with a cookie in place of tokens.

    An account with a second factor gets 401 `mfa-required` with a `ticket`: `/v1/browser/mfa` goes on with it.
    """
    visit = replace(visit, device_token=request.cookies.get(cookies.DEVICE))
    tokens = await authentication.log_in(desk, context, login=body.login, password=body.password, visit=visit)
    return await _open(desk, context, response, tokens)


@router.post(
    "/v1/browser/mfa",
    permission=PUBLIC,
    transactional=False,
    max_body_bytes=MAX_CREDENTIAL_BYTES,
    operation_id="finishBrowserLogin",
)
async def finish_browser_login(
    desk: CurrentDesk,
    context: CurrentContext,
    visit: CurrentVisit,
    response: Response,
    body: BrowserSecondStepRequest,
) -> BrowserSessionResponse:
    """Finish a login with a code or a passkey (its options are at `/v1/auth/mfa/passkey/options`)."""
    tokens = await authentication.log_in_with_second_factor(
        desk, context, ticket=body.ticket, shown=body.shown(), visit=visit
    )
    return await _open(desk, context, response, tokens)


@router.post(
    "/v1/browser/step-up",
    permission=AUTHENTICATED,
    transactional=False,
    max_body_bytes=MAX_CREDENTIAL_BYTES,
    operation_id="stepUpBrowser",
)
async def step_up_browser(
    desk: CurrentDesk, context: CurrentContext, response: Response, body: StepUpRequest
) -> BrowserSessionResponse:
    """Show a second factor once more; the session goes on under a new cookie that is as fresh and as strong."""
    await second_step.step_up(desk, context, body.shown())
    async with desk.database.transaction(context) as tx:
        cookie = await browser_sessions.renew_cookie(tx, context.principal)
    return _answer(response, cookie)


@router.get("/v1/browser/session", permission=AUTHENTICATED, operation_id="getBrowserSession")
async def get_browser_session(tx: Tx, caller: Caller) -> BrowserSessionResponse:
    """Return the CSRF token to a page that was loaded anew."""
    csrf_token = await browser_sessions.csrf_token_of_session(tx, caller)
    session = await session_store.find_session(tx, caller.session_id) if caller.session_id else None
    assert session is not None  # noqa: S101  # its cookie references it
    return BrowserSessionResponse(csrf_token=csrf_token, session_expires_at=session.expires_at)


@router.post(
    "/v1/browser/renew",
    permission=AUTHENTICATED,
    idempotency=Idempotency.NONE,
    operation_id="renewBrowserSession",
)
async def renew_browser_session(tx: Tx, caller: Caller, response: Response) -> BrowserSessionResponse:
    """Go on under a new cookie with the rights of now: after a password or a factor was chosen."""
    return _answer(response, await browser_sessions.renew_cookie(tx, caller))


@router.post(
    "/v1/browser/logout",
    permission=AUTHENTICATED,
    idempotency=Idempotency.NONE,
    status_code=204,
    operation_id="logOutBrowser",
)
async def log_out_browser(tx: Tx, caller: Caller) -> Response:
    """End the session and have the browser forget what it keeps of this site."""
    if caller.session_id is not None:
        await sessions.end_own_session(tx, caller, caller.session_id, reason_code="logout")
    answer = Response(status_code=204, headers={"Clear-Site-Data": '"cache", "storage"'})
    cookies.forget_session(answer)
    return answer


# -- for the gateway alone


class CookieRequest(fields.Request):
    cookie: Annotated[str, Field(max_length=128)]


class CookieTokenResponse(BaseModel):
    access_token: str
    expires_in: int


@router.post("/internal/browser-sessions/token", permission=PUBLIC, include_in_schema=False)
async def exchange_cookie(
    tx: Tx, desk: CurrentDesk, visit: CurrentVisit, body: CookieRequest
) -> CookieTokenResponse:
    token = await browser_sessions.token_for_cookie(tx, desk, body.cookie, visit=visit)
    return CookieTokenResponse(access_token=token.access_token, expires_in=token.expires_in_seconds)


async def _open(
    desk: CurrentDesk, context: CurrentContext, response: Response, tokens: Tokens
) -> BrowserSessionResponse:
    async with desk.database.transaction(context) as tx:
        cookie = await browser_sessions.give_cookie(tx, tokens.session)
    cookies.set_device(response, tokens.device_token)
    _answer(response, cookie)
    return BrowserSessionResponse.of(cookie, tokens)


def _answer(response: Response, cookie: Cookie) -> BrowserSessionResponse:
    cookies.set_session(response, cookie.value)
    return BrowserSessionResponse.of(cookie)
