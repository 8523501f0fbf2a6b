"""Versions of resources on the wire: `ETag: "7"` out, `If-Match: "7"` in (RFC 9110, 13.1.1)."""

import re

from clinic_shared.errors import InvalidRequestError

_STRONG_VERSION = re.compile(r'"([0-9]{1,18})"')


def etag(version: int) -> str:
    return f'"{version}"'


def parse_if_match(header: str | None) -> int | None:
    """Return the version that the caller saw; None without a condition (absent, or `*`).

    Raises InvalidRequestError for anything but one strong tag of ours.
    """
    if header is None or header.strip() == "*":
        return None
    match = _STRONG_VERSION.fullmatch(header.strip())
    if match is None:
        raise InvalidRequestError('If-Match takes one strong entity tag, such as "7".')
    return int(match[1])
