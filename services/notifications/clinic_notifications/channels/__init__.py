"""One small module per vendor; what they have in common is here.

A call ends in one of four ways, and the sender depends on which: accepted, refused for good, known to
have had no effect (try again), or unknown: the vendor may have taken the message, and nobody told us.
"""

from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import httpx

from clinic_notifications.domain import Channel, Failure

_NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_ANSWERS_OF_SOMEONE_BETWEEN = {502, 504}
_NOT_THE_MESSAGES_FAULT = {401, 403, 408, 425, 429}


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A message ready for a vendor. Vendors that know templates get their name, language and parameters."""

    message_id: UUID
    channel: Channel
    to: str
    language: str
    subject: str | None
    text: str
    template_name: str | None
    parameters: list[str]


@dataclass(frozen=True)
class Accepted:
    reference: str


@dataclass(frozen=True)
class Refused:
    """For good, on this channel."""

    failure: Failure
    code: str


@dataclass(frozen=True)
class Unavailable:
    """Nothing happened; it may go better later."""

    code: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True)
class Unknown:
    """The vendor may have taken it."""

    code: str


Answer = Accepted | Refused | Unavailable | Unknown


class Adapter(Protocol):
    provider: str

    async def send(self, letter: Letter) -> Answer: ...


async def call(http: httpx.AsyncClient, path: str, **content: Any) -> httpx.Response | Unavailable | Unknown:
    """Post to a vendor; a failure of the way there or back becomes what it means."""
    try:
        answer = await http.post(path, **content)
    except _NEVER_LEFT as error:
        return Unavailable(type(error).__name__)
    except httpx.TransportError as error:
        return Unknown(type(error).__name__)
    if answer.status_code in _ANSWERS_OF_SOMEONE_BETWEEN:
        return Unknown(f"http-{answer.status_code}")
    if answer.status_code in _NOT_THE_MESSAGES_FAULT or answer.is_server_error:
        return Unavailable(f"http-{answer.status_code}", _retry_after(answer))
    return answer


def document_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _retry_after(answer: httpx.Response) -> float | None:
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isdecimal() and len(value) <= 5 else None  # noqa: PLR2004  # at most a day
