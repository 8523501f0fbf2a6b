"""The cookies that identity gives to browsers: for a device, a session, a sign-on under way. No script reads any."""

from clinic_shared import browser_cookie
from fastapi import Response

from clinic_identity.devices import FORGOTTEN_AFTER

DEVICE = "__Host-clinic-device"
"""What keeps the token of a device that logged in before (`devices.py`)."""

SIGN_ON = "__Host-clinic-sign-on"


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


def set_sign_on(response: Response, token: str) -> None:
    # Lax: it has to be there when the other site sends the browser back.
    response.set_cookie(SIGN_ON, token, max_age=600, secure=True, httponly=True, samesite="lax")


def forget_sign_on(response: Response) -> None:
    response.delete_cookie(SIGN_ON, secure=True, httponly=True, samesite="lax")
