"""The page on which people log in for an app: forms without scripts, and what is said when that can't be."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any

from clinic_shared.errors import DomainError
from fastapi.responses import HTMLResponse

from clinic_identity.access_links import PATH as PASSWORD_PAGE
from clinic_identity.authorization import AuthorizationRequest
from clinic_identity.factors import Method
from clinic_identity.oauth_domain import PROTOCOL_SCOPES
from clinic_identity.smart_scopes import permissions_in

# For the description of what answers with `notice_page`.
REFUSED: dict[str, Any] = {
    "description": "A page that says why, or a problem (RFC 9457)",
    "content": {"text/html": {"schema": {"type": "string"}}},
}
_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:26rem;margin:3rem auto;padding:0 1rem}
label{display:block;margin:1rem 0 .3rem}
input,button{font:inherit;width:100%;box-sizing:border-box;padding:.6rem;min-height:2.75rem}
button{margin-top:1.2rem}
[role=alert]{border-left:4px solid #c62828;padding:.3rem .8rem}
"""
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_CODE_LABELS = {
    Method.TOTP: "Code of your authenticator app",
    Method.RECOVERY_CODE: "Recovery code",
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
    content = (
        f"<h1>Log in</h1>{_alert(refused)}{_consent(request, meanings)}"
        f'<form method="post" action="{escape(action)}">'
        '<label for="login">E-mail address or phone number</label>'
        f'<input id="login" name="login" autocomplete="username" value="{escape(login)}" required autofocus>'
        '<label for="password">Password</label>'
        '<input id="password" name="password" type="password" autocomplete="current-password" required>'
        f'<button>Log in and go on</button></form><p><a href="{PASSWORD_PAGE}">Forgot your password?</a></p>'
        f"{_way_back(action)}"
    )
    return _page(content, request, refused)


def code_page(
    request: AuthorizationRequest,
    action: str,
    *,
    ticket: str,
    methods: list[str],
    refused: DomainError | None = None,
) -> HTMLResponse:
    """Ask for the second factor."""
    forms = "".join(
        f'<form method="post" action="{escape(action)}">'
        f'<input type="hidden" name="ticket" value="{escape(ticket)}">'
        f'<input type="hidden" name="method" value="{method.value}">'
        f'<label for="{method.value}">{label}</label>'
        f'<input id="{method.value}" name="code" autocomplete="one-time-code" inputmode='
        f'"{"numeric" if method is Method.TOTP else "text"}" required><button>Go on</button></form>'
        for method, label in _CODE_LABELS.items()
        if method.value in methods
    )
    nothing = "<p>This page takes neither passkeys nor codes by SMS. Use the clinic's own site, or add an authenticator app there.</p>"
    again = f'<p><a href="{escape(action)}">Begin again</a></p>'
    content = f"<h1>One more step</h1>{_alert(refused)}{forms or nothing}{again}{_way_back(action)}"
    return _page(content, request, refused)


def notice_page(title: str, text: str, status: int = 400) -> HTMLResponse:
    """Say what keeps somebody from logging in where there is no app to tell."""
    return _html(f"<h1>{escape(title)}</h1><p>{escape(text)}</p>", "'none'", status)


def _consent(request: AuthorizationRequest, meanings: Mapping[str, str]) -> str:
    wanted = sorted(permissions_in(request.scopes - PROTOCOL_SCOPES))
    told = "".join(f"<li>{escape(meanings.get(scope, scope))}</li>" for scope in wanted)
    name = f"<strong>{escape(request.client.name)}</strong>"
    if not told:
        return f"<p>{name} wants to know who you are.</p>"
    return f"<p>{name} will be able to, as far as you are:</p><ul>{told}</ul>"


def _alert(refused: DomainError | None) -> str:
    if refused is None:
        return ""
    wait = refused.retry_after_seconds
    fix = refused.fix if wait is None else f"Wait for {wait} seconds."
    return f'<p role="alert">{escape(refused.title)}. {escape(fix)}</p>'


def _way_back(action: str) -> str:
    return (
        f'<form method="post" action="{escape(action)}">'
        '<button name="denied" value="true">Don\'t log in</button></form>'
    )


def _page(content: str, request: AuthorizationRequest, refused: DomainError | None) -> HTMLResponse:
    # 401 would have to carry a challenge, which browsers answer with a window of their own.
    status = 200 if refused is None else 422 if refused.status == 401 else refused.status  # noqa: PLR2004
    answer = _html(content, f"'self' {request.page_of_app}", status)
    if refused is not None and refused.retry_after_seconds is not None:
        answer.headers["Retry-After"] = str(refused.retry_after_seconds)
    return answer


def _html(content: str, form_action: str, status: int) -> HTMLResponse:
    head = (
        "<meta charset=utf-8><title>Polyclinic</title>"
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
    )
    # The app's own page stands in `form-action`, since browsers hold the redirect after a form to it too.
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; form-action {form_action};"
        " frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        # Not `no-referrer`: under it browsers send forms with `Origin: null`, which can't be told from a stranger's.
        "Referrer-Policy": "same-origin",
        "X-Frame-Options": "DENY",
    }
    return HTMLResponse(f"<!doctype html><html lang=en>{head}<body>{content}", status, headers=headers)
