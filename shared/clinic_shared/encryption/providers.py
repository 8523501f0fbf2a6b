"""The port to whatever guards the key-encryption keys: a file, Vault's transit engine, a cloud's key service.

A provider wraps and unwraps a few keys per service, when a process starts and when a lease ends; values and
data keys never reach it.
"""

import base64
import binascii
from typing import Any, Literal, Protocol

import httpx
import orjson


class ProviderError(Exception):
    """The provider couldn't be asked, or refused. Texts name operations and statuses, never keys."""


class KeyProvider(Protocol):
    """`purpose` is bound to what is wrapped: it opens for the same purpose only."""

    name: Literal["file", "vault", "kms"]
    lease_seconds: float | None
    """How long a process may use a key without asking again; None for keys that lie in a file anyway."""

    async def wrap(self, key: bytes, *, purpose: str) -> str: ...

    async def unwrap(self, wrapped: str, *, purpose: str) -> bytes: ...


class FileProvider:
    """Keys lie in the file of keys itself, which is a secret like the others in its folder."""

    name: Literal["file", "vault", "kms"] = "file"
    lease_seconds: float | None = None

    async def wrap(self, key: bytes, *, purpose: str) -> str:  # noqa: ARG002  # nothing to bind it to
        return wrap_in_clear(key)

    async def unwrap(self, wrapped: str, *, purpose: str) -> bytes:  # noqa: ARG002
        return unwrap_in_clear(wrapped)


async def ask(http: httpx.AsyncClient, request: httpx.Request, operation: str) -> dict[str, Any]:
    """Send a request and return the answer's object. Raises ProviderError, without anything of the answer."""
    try:
        answer = await http.send(request)
    except httpx.HTTPError as error:
        raise ProviderError(f"{operation}: {type(error).__name__}") from None
    if answer.status_code != httpx.codes.OK:
        raise ProviderError(f"{operation}: status {answer.status_code}")
    try:
        document = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        raise ProviderError(f"{operation}: an answer that isn't JSON") from None
    if not isinstance(document, dict):
        raise ProviderError(f"{operation}: an answer that isn't an object")
    return document


def wrap_in_clear(key: bytes) -> str:
    return base64.b64encode(key).decode()


def unwrap_in_clear(wrapped: str) -> bytes:
    try:
        return base64.b64decode(wrapped, validate=True)
    except (binascii.Error, ValueError):
        raise ProviderError("a key in the file of keys isn't Base64") from None
