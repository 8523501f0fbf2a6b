"""The page behind an access link, and without one the way to it: forms without scripts, for any device."""

from html import escape
from typing import Annotated
from urllib.parse import parse_qs, urlencode

from clinic_shared.routing import PUBLIC, ClinicRouter, CurrentContext, RawBody
from fastapi import Query, Response
from fastapi.responses import HTMLResponse
from pydantic import ConfigDict, Field

from clinic_identity import access_links, fields, forgotten, html_page
from clinic_identity.access_links import PATH
from clinic_identity.domain import (
    MAX_LOGIN_LENGTH,
    LinkNotValidError,
    TooManyAttemptsError,
    WeakPasswordError,
)
from clinic_identity.fields import CurrentDesk, CurrentVisit, Login, Password

router = ClinicRouter(tags=["identity"])

_FORM = "application/x-www-form-urlencoded"
_MAX_FORM_BYTES = 8 * 1024

Token = Annotated[str, Field(min_length=1, max_length=128)]


class AcceptLinkRequest(fields.Request):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"token": "al_fictitious", "new_password": "correct horse battery staple"}]
        },
    )

    token: Token
    new_password: Password


@router.post(
    "/v1/auth/access-links/accept",
    permission=PUBLIC,
    transactional=False,
    status_code=204,
    operation_id="acceptAccessLink",
)
async def accept_access_link(desk: CurrentDesk, context: CurrentContext, body: AcceptLinkRequest) -> None:
    """Choose the password of the account that an access link is for. The link works once."""
    await access_links.accept_link(desk, context, token=body.token, new_password=body.new_password)


class ForgottenPasswordRequest(fields.Request):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"login": "anna.testova@example.org"}]}
    )

    login: Login


@router.post(
    "/v1/auth/access-links",
    permission=PUBLIC,
    transactional=False,
    status_code=202,
    response_class=Response,
    operation_id="askForAccessLink",
)
async def ask_for_access_link(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, body: ForgottenPasswordRequest
) -> Response:
    """Have a link to a new password sent to the login's owner. The answer doesn't say whether there is one.

    It works for a quarter of an hour; until then asking again sends nothing. A second factor stays asked for; whoever has
    codes by SMS alone as theirs gets no link, and goes to the reception desk.
    """
    await forgotten.ask_for_link(desk, context, login=body.login, address=visit.address)
    return Response(status_code=202)


@router.get(PATH, permission=PUBLIC, transactional=False, include_in_schema=False)
async def show_welcome(desk: CurrentDesk, token: Annotated[str, Query(max_length=128)] = "") -> HTMLResponse:
    if not token:
        return _question()
    return _form(token, after=_sign_on(token) if desk.provider else "")


@router.post(
    PATH,
    permission=PUBLIC,
    transactional=False,
    media_types=(_FORM,),
    max_body_bytes=_MAX_FORM_BYTES,
    include_in_schema=False,
)
async def take_welcome(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, body: RawBody
) -> HTMLResponse:
    form = parse_qs(body.decode("utf-8", "replace"))
    if "\x00" in form.get("login", [""])[0]:
        return _question("A login has no such characters.", 422)
    if "login" in form:
        return await _take_question(desk, context, visit, form["login"][0][:MAX_LOGIN_LENGTH])
    token, password, again = (form.get(name, [""])[0] for name in ("token", "password", "again"))
    if password != again:
        return _form(token, "The two passwords differ.", 422)
    try:
        await access_links.accept_link(desk, context, token=token, new_password=password)
    except WeakPasswordError as error:
        return _form(token, f"Choose another password: {_reasons(error)}.", 422)
    except LinkNotValidError as error:
        again = f'<p><a href="{PATH}">Forgot your password?</a></p>'
        return html_page.page(error.title, f"<p>{escape(error.fix)}</p>{again}", status=error.status)
    return html_page.page("Your password is set", "<p>You can log in now.</p>")


async def _take_question(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, login: str
) -> HTMLResponse:
    try:
        await forgotten.ask_for_link(desk, context, login=login, address=visit.address)
    except TooManyAttemptsError as error:
        answer = _question(f"Wait for {error.retry_after_seconds} seconds.", error.status)
        answer.headers["Retry-After"] = str(error.retry_after_seconds)
        return answer
    return html_page.page(
        "Look at your messages",
        "<p>If somebody logs in so, a link is on its way to them. It works for"
        " 15 minutes. If none comes, ask the clinic's reception desk.</p>",
        status=202,
    )


def _reasons(error: WeakPasswordError) -> str:
    return ", ".join(str(reason).replace("-", " ") for reason in error.reasons)


def _form(token: str, complaint: str = "", status: int = 200, *, after: str = "") -> HTMLResponse:
    content = (
        f'{html_page.alert(complaint)}<form method="post" action="{PATH}">'
        f'<input type="hidden" name="token" value="{escape(token)}">'
        '<label for="password">Password, at least 12 characters</label>'
        '<input id="password" name="password" type="password" autocomplete="new-password" required autofocus>'
        '<label for="again">The same once more</label>'
        '<input id="again" name="again" type="password" autocomplete="new-password" required>'
        f"<button>Set password</button></form>{after}"
    )
    return html_page.page("Choose a password", content, status=status)


def _question(complaint: str = "", status: int = 200) -> HTMLResponse:
    content = (
        f'{html_page.alert(complaint)}<form method="post" action="{PATH}">'
        '<label for="login">E-mail address or phone number that you log in with</label>'
        '<input id="login" name="login" autocomplete="username" required autofocus>'
        "<button>Send me a link</button></form>"
    )
    return html_page.page("Forgot your password?", content, status=status)


def _sign_on(token: str) -> str:
    address = f"/v1/browser/sso/start?{urlencode({'invitation': token})}"
    return f'<p>Or <a href="{escape(address)}">log in with your organisation\'s account</a>, from now on.</p>'
