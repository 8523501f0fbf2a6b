"""HTTP in: the authorization endpoint, on which people log in for an app (RFC 6749, 4.1; RFC 9700).

The request stays in the page's address from form to form and is judged anew each time, so nothing waits here.
"""

from dataclasses import replace
from urllib.parse import urlsplit

from clinic_shared import contracts, strict_json
from clinic_shared.context import Context
from clinic_shared.errors import DomainError
from clinic_shared.routing import PUBLIC, ClinicRouter, CurrentContext, RawBody
from clinic_shared.strict_json import StrictJSONError
from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from clinic_identity import (
    app_sessions,
    authentication,
    cookies,
    second_step,
    session_store,
    sessions,
    sms_enrolment,
    store,
)
from clinic_identity.authorization import (
    AuthorizationRequest,
    RefusedRequestError,
    UnusableRequestError,
    read_request,
)
from clinic_identity.desk import Desk
from clinic_identity.domain import TooManyAttemptsError, Visit
from clinic_identity.factors import InvalidSecondFactorError, Method, MfaRequiredError
from clinic_identity.fields import CurrentDesk, CurrentVisit
from clinic_identity.oauth_forms import FORM, MAX_FORM_BYTES, InvalidFormError, read_form
from clinic_identity.second_step import Shown
from clinic_identity.second_step_page import SecondStep
from clinic_identity.sessions import Tokens
from clinic_identity.sign_in_page import REFUSED, notice_page, password_page, second_step_page

router = ClinicRouter(tags=["identity"])

PATH = "/oauth2/authorize"
_MAX_TICKET_LENGTH, _MAX_CODE_LENGTH = 128, 64
_NOT_READY = (
    "Your account isn't ready",
    "Log in on the clinic's own site first: a password or a second factor has to be chosen there.",
)


@router.get(
    PATH,
    permission=PUBLIC,
    transactional=False,
    operation_id="authorize",
    response_class=HTMLResponse,
    responses={
        303: {"description": "The app learns by `error` in its own address why nobody can log in"},
        "default": REFUSED,
    },
)
async def authorize(desk: CurrentDesk, context: CurrentContext, request: Request) -> Response:
    """Log in for an app: a page, or a redirect with `error` to the app (RFC 6749, 4.1).

    Query: `response_type=code`, `client_id`, `redirect_uri`, `code_challenge`, `code_challenge_method=S256`;
    optionally `scope`, `state`, `nonce`, `aud`, `resource`, `login_hint`. The answer to the app has `iss` (RFC 9207).
    """
    asked = await _read(desk, context, request)
    if isinstance(asked, Response):
        return asked
    return password_page(asked, _meanings(desk), _action(request), login=asked.login_hint)


@router.post(
    PATH,
    permission=PUBLIC,
    transactional=False,
    media_types=(FORM,),
    max_body_bytes=MAX_FORM_BYTES,
    include_in_schema=False,
)
async def take_form(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, request: Request, body: RawBody
) -> Response:
    if not _is_own_form(desk, request):
        return notice_page("The form comes from another site", "Begin anew in the app.", 403)
    asked = await _read(desk, context, request)
    if isinstance(asked, Response):
        return asked
    try:
        form = read_form(body)
    except InvalidFormError as error:
        return notice_page("The form can't be read", str(error))
    if "denied" in form:
        return _back(asked.denied("access_denied", "Nobody logged in."))
    known = request.cookies.get(cookies.DEVICE)
    return await _log_in(desk, context, asked, form, replace(visit, device_token=known), _action(request))


async def _log_in(
    desk: Desk, context: Context, asked: AuthorizationRequest, form: dict[str, str], visit: Visit, action: str
) -> Response:
    ticket = form.get("ticket", "")[:_MAX_TICKET_LENGTH]
    try:
        if ticket and "send" in form:
            await _send_code(desk, context, ticket)
            return await _second_step(desk, context, asked, action, ticket, form)
        log_in = _with_proof(desk, context, ticket, form, visit) if ticket else None
        tokens = await (log_in or _with_password(desk, context, form, visit))
    except MfaRequiredError as needed:
        return await _second_step(desk, context, asked, action, needed.ticket, {})
    except DomainError as refused:
        if ticket and isinstance(refused, (InvalidSecondFactorError, TooManyAttemptsError)):
            return await _second_step(desk, context, asked, action, ticket, form, refused)
        login = form.get("login", "")
        return password_page(asked, _meanings(desk), action, refused=refused, login=login)
    return await _lend(desk, context, asked, tokens)


async def _second_step(
    desk: Desk,
    context: Context,
    asked: AuthorizationRequest,
    action: str,
    ticket: str,
    form: dict[str, str],
    refused: DomainError | None = None,
) -> Response:
    """Ask for what the account has, now: a challenge for its passkeys is made for this page."""
    async with desk.database.transaction(context) as tx:
        offer = await second_step.offer_for(tx, desk, ticket)
    method = form.get("method", "")
    step = SecondStep(action=action, ticket=ticket, offer=offer, code_sent=method == Method.SMS.value)
    return second_step_page(asked, step, method=method, refused=refused)


async def _send_code(desk: Desk, context: Context, ticket: str) -> None:
    async with desk.database.transaction(context) as tx:
        await sms_enrolment.send_for_login(tx, desk, ticket)


async def _with_password(desk: Desk, context: Context, form: dict[str, str], visit: Visit) -> Tokens:
    return await authentication.log_in(
        desk,
        context,
        login=form.get("login", ""),
        password=form.get("password", ""),
        visit=visit,
    )


async def _with_proof(
    desk: Desk, context: Context, ticket: str, form: dict[str, str], visit: Visit
) -> Tokens:
    return await authentication.log_in_with_second_factor(
        desk, context, ticket=ticket, shown=_shown(form), visit=visit
    )


def _shown(form: dict[str, str]) -> Shown:
    """Read what was typed, or what the page's script put in for a passkey."""
    try:
        method = Method(form.get("method", ""))
    except ValueError:
        raise InvalidSecondFactorError from None
    if method is not Method.PASSKEY:
        # In groups, as apps and messages show them.
        return Shown(method=method, code="".join(form.get("code", "").split())[:_MAX_CODE_LENGTH])
    try:
        credential = strict_json.loads(form.get("credential", "").encode())
    except StrictJSONError:
        raise InvalidSecondFactorError from None
    return Shown(method=method, credential=credential if isinstance(credential, dict) else {})


async def _lend(desk: Desk, context: Context, asked: AuthorizationRequest, tokens: Tokens) -> Response:
    """Hand the session that was just opened to the app; one that opens nothing yet ends instead."""
    changing = tokens.must_change_password and desk.settings.password_change_is_enforced
    async with desk.database.transaction(context) as tx:
        session = await session_store.lock_session(tx, tokens.session.session_id)
        account = await store.find_account(tx, tokens.session.account_id)
        if session is None or account is None or session.ended_at is not None:
            return _back(asked.denied("access_denied", "The session has ended."))
        if changing or tokens.must_enrol:
            await sessions.end_session(tx, session, account.kind, "login-incomplete")
            return notice_page(*_NOT_READY, status=403)
        code = await app_sessions.lend_session(tx, session, account, asked)
    answer = _back(asked.granted(code))
    cookies.set_device(answer, tokens.device_token)
    return answer


async def _read(desk: Desk, context: Context, request: Request) -> AuthorizationRequest | Response:
    try:
        asked = read_form(request.url.query)
        async with desk.database.transaction(context) as tx:
            return await read_request(tx, desk, asked)
    except InvalidFormError:
        return notice_page("This link is broken", "Begin anew in the app.")
    except UnusableRequestError as error:
        return notice_page("You can't log in to this app", str(error))
    except RefusedRequestError as refused:
        return _back(refused.location)


def _is_own_form(desk: Desk, request: Request) -> bool:
    """Tell whether a form was sent by our own page. Browsers say where from; what says nothing is none."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    own = urlsplit(desk.settings.url or desk.settings.token_issuer)
    return origin is None or origin == f"{own.scheme}://{own.netloc}"


def _action(request: Request) -> str:
    return f"{PATH}?{request.url.query}"


def _meanings(desk: Desk) -> dict[str, str]:
    scopes = contracts.load(desk.settings.contracts_dir).taxonomy("roles")["scopes"]
    return {str(name): str(meaning) for name, meaning in scopes.items()}


def _back(location: str) -> RedirectResponse:
    # 303: what was typed into the form goes no further.
    return RedirectResponse(location, 303, headers={"Cache-Control": "no-store"})
