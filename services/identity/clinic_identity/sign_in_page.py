"""The page on which people log in for an app: forms without scripts, and what is said when that can't be."""

from collections.abc import Mapping
from html import escape
from typing import Any

from clinic_shared.errors import DomainError
from fastapi.responses import HTMLResponse

from clinic_identity import html_page
from clinic_identity.access_links import PATH as PASSWORD_PAGE
from clinic_identity.authorization import AuthorizationRequest
from clinic_identity.factors import InvalidSecondFactorError, Method
from clinic_identity.oauth_domain import PROTOCOL_SCOPES
from clinic_identity.second_step_page import REFUSED as REFUSED_PROOFS
from clinic_identity.second_step_page import SecondStep
from clinic_identity.smart_scopes import permissions_in

# For the description of what answers with `notice_page`.
REFUSED: dict[str, Any] = {
    "description": "A page that says why, or a problem (RFC 9457)",
    "content": {"text/html": {"schema": {"type": "string"}}},
}


def password_page(
    request: AuthorizationRequest,
    meanings: Mapping[str, str],
    action: str,
    *,
    refused: DomainError | None = None,
    login: str = "",
) -> HTMLResponse:
    """Ask for login and password, and say what the app gets by it."""
    in_login, in_password = ("", " autofocus") if login else (" autofocus", "")
    content = (
        f"{html_page.alert(_complaint(refused))}{_consent(request, meanings)}"
        f'<form method="post" action="{escape(action)}">'
        '<label for="login">E-mail address or phone number</label>'
        '<input id="login" name="login" autocomplete="username" autocapitalize="none" spellcheck="false"'
        f' value="{escape(login)}" required{in_login}>'
        '<label for="password">Password</label><input id="password" name="password" type="password"'
        f' autocomplete="current-password" required{in_password}>'
        f'<button>Log in and go on</button></form><p><a href="{PASSWORD_PAGE}">Forgot your password?</a></p>'
        f"{_way_back(action)}"
    )
    page = html_page.page("Log in", content, status=_status(refused), form_action=_form_action(request))
    return _with_wait(page, refused)


def second_step_page(
    request: AuthorizationRequest,
    step: SecondStep,
    *,
    method: str = "",
    refused: DomainError | None = None,
) -> HTMLResponse:
    """Ask for the second factor; `method` is what was refused."""
    page = step.page(
        form_action=_form_action(request),
        way_back=_way_back(step.action),
        complaint=_complaint(refused, method),
        status=_status(refused),
    )
    return _with_wait(page, refused)


def notice_page(title: str, text: str, status: int = 400) -> HTMLResponse:
    """Say what keeps somebody from logging in where there is no app to tell."""
    return html_page.page(title, f"<p>{escape(text)}</p>", status=status, form_action="'none'")


def _consent(request: AuthorizationRequest, meanings: Mapping[str, str]) -> str:
    wanted = sorted(permissions_in(request.scopes - PROTOCOL_SCOPES))
    told = "".join(f"<li>{escape(meanings.get(scope, scope))}</li>" for scope in wanted)
    name = f"<strong>{escape(request.client.name)}</strong>"
    if not told:
        return f"<p>{name} wants to know who you are.</p>"
    return f"<p>{name} will be able to, as far as you are:</p><ul>{told}</ul>"


def _complaint(refused: DomainError | None, method: str = "") -> str:
    if refused is None:
        return ""
    if isinstance(refused, InvalidSecondFactorError) and method in REFUSED_PROOFS:
        return REFUSED_PROOFS[Method(method)]
    wait = refused.retry_after_seconds
    fix = refused.fix if wait is None else f"Wait for {wait} seconds."
    return f"{refused.title}. {fix}"


def _way_back(action: str) -> str:
    return (
        f'<form method="post" action="{escape(action)}">'
        '<button class="other" name="denied" value="true">Don\'t log in</button></form>'
    )


def _status(refused: DomainError | None) -> int:
    # 401 would have to carry a challenge, which browsers answer with a window of their own.
    return 200 if refused is None else 422 if refused.status == 401 else refused.status  # noqa: PLR2004


def _with_wait(page: HTMLResponse, refused: DomainError | None) -> HTMLResponse:
    if refused is not None and refused.retry_after_seconds is not None:
        page.headers["Retry-After"] = str(refused.retry_after_seconds)
    return page


def _form_action(request: AuthorizationRequest) -> str:
    # The app's own page too, since browsers hold the redirect after a form to it.
    return f"'self' {request.page_of_app}"
