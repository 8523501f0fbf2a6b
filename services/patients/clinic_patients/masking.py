"""What is left of who somebody is, for those who need to tell records apart and not to know people."""

from datetime import date

_DOTS = "…"
_PHONE_DIGITS_SHOWN = 2
_SHORTEST_SHOWN = 6
"""Letters and digits of an identifier from which on its last two are shown: of shorter ones they would be too much."""


def masked_name(*parts: str | None) -> str:
    """Return the initials: `Т. А. П.`."""
    return " ".join(f"{part[0].upper()}." for part in parts if part)


def masked_birth(birth_on: date | None) -> int | None:
    """Return the year."""
    return None if birth_on is None else birth_on.year


def masked_phone(phone: str) -> str:
    return _DOTS + phone[-_PHONE_DIGITS_SHOWN:]


def masked_email(email: str) -> str:
    """Return the first letter and what stands behind the last dot: `a…@….org`."""
    local, _, domain = email.rpartition("@")
    return f"{local[:1]}{_DOTS}@{_DOTS}.{domain.rpartition('.')[2]}"


def masked_value(value: str) -> str:
    return _DOTS + (value[-2:] if len(value) >= _SHORTEST_SHOWN else "")
