"""The cookies that identity gives to browsers: one for a device, one for a session. No script reads either."""

from clinic_shared import browser_cookie
from fastapi import Response

from clinic_identity.devices import FORGOTTEN_AFTER

DEVICE = "__Host-clinic-device"
"""What keeps the token of a device that logged in before (`devices.py`)."""


def set_device(response: Response, token: str | None) -> None:
    """Have a browser keep the token that a new device got."""
    if token is not None:
        seconds = int(FORGOTTEN_AFTER.total_seconds())
        response.set_cookie(DEVICE, token, max_age=seconds, secure=True, httponly=True, samesite="strict")


def set_session(response: Response, value: str) -> None:
    # Without Max-Age: how long a session lasts is decided here, not by the browser.
    response.set_cookie(browser_cookie.NAME, value, secure=True, httponly=True, samesite="strict")


def forget_session(response: Response) -> None:
    response.delete_cookie(browser_cookie.NAME, secure=True, httponly=True, samesite="strict")
