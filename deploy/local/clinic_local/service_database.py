"""A service's database for commands that speak to it without the service."""

import os

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from clinic_local.errors import SetupError
from clinic_local.state import read_env, root


def known_url(name: str) -> str | None:
    """Return what a variable says, here or in `.run/env`."""
    return os.environ.get(name) or read_env(root()).get(name)


def sqlalchemy_url(component: str, name: str) -> str:
    """Return the URL that a variable gives. Raises SetupError."""
    url = known_url(name)
    if not url:
        raise SetupError(component, f"nothing has run here and {name} isn't set")
    return checked_url(component, name, url)


def checked_url(component: str, name: str, url: str) -> str:
    """Return a URL as SQLAlchemy wants it. Raises SetupError."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.get_backend_name() != "postgresql":
        raise SetupError(component, f"{name} isn't a postgresql:// URL")
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
