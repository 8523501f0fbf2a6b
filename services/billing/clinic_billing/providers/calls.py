"""One HTTP call to a provider, and what its answer means for the next try."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx

from clinic_billing.providers.port import (
    NotAtProviderError,
    ProviderRefusedError,
    ProviderUnavailableError,
)

_LONGEST_CODE = 100
# Our key is wrong, not the payment; or the provider asks to try again.
_AGAIN = frozenset({401, 403, 408, 409, 425, 429})
_NOT_FOUND = 404

RefusalCode = Callable[[Any], object]


async def ask(
    http: httpx.AsyncClient,
    method: str,
    path: str,
    *,
    refusal_code: RefusalCode,
    headers: Mapping[str, str] | None = None,
    **content: Any,
) -> Any:
    """Return the answer's JSON. Raises ProviderRefusedError, ProviderUnavailableError."""
    try:
        answer = await http.request(method, path, headers=headers, **content)
    except httpx.TransportError as error:
        raise ProviderUnavailableError(type(error).__name__) from error
    # 202: YooKassa hasn't decided yet and wants to be asked again with the same key.
    if answer.is_success and answer.status_code != httpx.codes.ACCEPTED:
        return _json(answer)
    if answer.status_code in _AGAIN or answer.is_server_error or answer.is_success:
        raise ProviderUnavailableError(str(answer.status_code))
    refused = NotAtProviderError if answer.status_code == _NOT_FOUND else ProviderRefusedError
    raise refused(_code(answer, refusal_code) or f"http-{answer.status_code}")


def _code(answer: httpx.Response, refusal_code: RefusalCode) -> str | None:
    document = _json(answer)
    code = refusal_code(document) if isinstance(document, dict) else None
    return code[:_LONGEST_CODE] if isinstance(code, str) else None


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise ProviderUnavailableError("not JSON") from error
