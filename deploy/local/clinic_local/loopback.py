"""HTTP to our own processes: never through a proxy, credentials taken from the URL."""

import base64
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, *, timeout_seconds: float = 5.0) -> tuple[int, bytes]:
    """Return status and body, whatever the status; OSError when nobody answers."""
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl())  # noqa: S310 - our own addresses
    if at:
        token = base64.b64encode(unquote(credentials).encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with _opener.open(request, timeout=timeout_seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def get_json(url: str, *, timeout_seconds: float = 5.0) -> Any:
    """Return the JSON of a 200 answer; OSError for everything else."""
    status, body = get(url, timeout_seconds=timeout_seconds)
    if status != 200:  # noqa: PLR2004
        raise OSError(f"{urlsplit(url).path} answered {status}")
    return json.loads(body)


def answers(url: str, *, timeout_seconds: float = 5.0) -> bool:
    try:
        return get(url, timeout_seconds=timeout_seconds)[0] == 200  # noqa: PLR2004
    except OSError:
        return False
