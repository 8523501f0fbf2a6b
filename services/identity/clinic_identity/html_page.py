"""The HTML around our own forms: one look, nothing from elsewhere, no script but one that is named by its digest."""

import base64
import hashlib
from html import escape

from fastapi.responses import HTMLResponse

_STYLE = """
:root{color-scheme:light dark}
body{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:2rem auto;padding:0 1rem;overflow-wrap:break-word}
label{display:block;margin:1rem 0 .3rem}
input,button{font:inherit;width:100%;box-sizing:border-box;padding:.6rem;min-height:2.75rem}
button{margin-top:1.2rem}
button.other{background:none;border:1px solid;border-radius:.3rem}
form+form{margin-top:1.6rem}
[role=alert]{border-left:4px solid #c62828;padding:.3rem .8rem}
[hidden]{display:none}
"""


def page(
    title: str,
    content: str,
    *,
    status: int = 200,
    form_action: str = "'self'",
    script: str = "",
) -> HTMLResponse:
    """Return a page under its title. `form_action` says where its forms, and redirects that follow them, may go (CSP 3)."""
    head = (
        f"<meta charset=utf-8><title>{escape(title)} - Polyclinic</title>"
        f"<meta name=viewport content='width=device-width,initial-scale=1'><style>{_STYLE}</style>"
    )
    scripts = _source(script) if script else "'none'"
    policy = (
        f"default-src 'none'; style-src {_source(_STYLE)}; script-src {scripts};"
        f" form-action {form_action}; frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        # Not `no-referrer`: under it browsers send forms with `Origin: null`, which can't be told from a stranger's.
        "Referrer-Policy": "same-origin",
        "X-Frame-Options": "DENY",
    }
    body = f"<main><h1>{escape(title)}</h1>{content}</main>" + (
        f"<script>{script}</script>" if script else ""
    )
    return HTMLResponse(f"<!doctype html><html lang=en>{head}<body>{body}", status, headers=headers)


def alert(text: str) -> str:
    return f'<p role="alert">{escape(text)}</p>' if text else ""


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
