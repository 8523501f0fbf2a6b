"""One-time passwords by the clock, as authenticator apps show them (RFC 6238: SHA-1, six digits, 30 s)."""

import base64
import hmac
import secrets
from datetime import datetime
from urllib.parse import quote, urlencode

STEP_SECONDS = 30
DIGITS = 6
DRIFT_STEPS = 1
"""Clocks differ and people type slowly: the step before and the one after count too."""
_SECRET_BYTES = 20


def new_secret() -> bytes:
    return secrets.token_bytes(_SECRET_BYTES)


def step_at(moment: datetime) -> int:
    return int(moment.timestamp()) // STEP_SECONDS


def code_of_step(secret: bytes, step: int) -> str:
    digest = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 0x0F  # RFC 4226, 5.3: dynamic truncation
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**DIGITS).zfill(DIGITS)


def matching_step(secret: bytes, code: str, moment: datetime) -> int | None:
    """Return the step whose code this is. The caller keeps it: no code of it or an earlier one counts again."""
    now = step_at(moment)
    matching = [
        step
        for step in range(now - DRIFT_STEPS, now + DRIFT_STEPS + 1)
        if hmac.compare_digest(code_of_step(secret, step).encode(), code.encode("utf-8", "surrogatepass"))
    ]
    return max(matching, default=None)


def text_of(secret: bytes) -> str:
    """Return the secret as people type it into an app."""
    return base64.b32encode(secret).decode().rstrip("=")


def uri_of(secret: bytes, *, issuer: str, account: str) -> str:
    """Return what the QR code holds."""
    query = urlencode({"secret": text_of(secret), "issuer": issuer, "digits": DIGITS, "period": STEP_SECONDS})
    return f"otpauth://totp/{quote(issuer)}:{quote(account)}?{query}"
