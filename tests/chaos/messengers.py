"""What patients were sent: each message by its id, against what the stand-ins of the messengers received.

No messenger has idempotency keys. So a call without an answer is made once more when no status of the first has
come for a while, and the patient may hear it twice. Each time that may have happened is known to notifications.
"""

import re
from collections import Counter
from typing import Any

import httpx

from .accounting import Told
from .owing import Rows

_PAGE = 500
_OWN_ID = re.compile(r"message_id=([0-9a-f-]{36})")


class Messengers:
    """The stand-ins of WhatsApp, SMS and e-mail, asked how often each message came."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before: Counter[str] = Counter()

    def received(self) -> Counter[str]:
        return self._before + Counter(_own_id(one["request"]) for one in self._inbox())

    def remember(self) -> None:
        """Keep what was received so far: the stand-ins are about to forget it."""
        self._before = self.received()

    def _inbox(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            answer = httpx.get(
                f"{self._url}/_control/inbox",
                params={"limit": _PAGE, "offset": len(found)},
                trust_env=False,
                timeout=60,
            )
            items = answer.raise_for_status().json()["items"]
            found += items
            if len(items) < _PAGE:
                return found


def _own_id(request: dict[str, Any]) -> str:
    """Return the id that we sent along, as each messenger takes it."""
    metadata = request.get("Metadata")
    if isinstance(metadata, dict):
        return str(metadata.get("message_id"))
    if "biz_opaque_callback_data" in request:
        return str(request["biz_opaque_callback_data"])
    found = _OWN_ID.search(str(request.get("StatusCallback")))
    return found[1] if found else "without an id"


def told(rows: Rows, received: Counter[str]) -> list[Told]:
    return [
        Told(message_id, is_sent=is_sent, unknown_outcomes=unknown_outcomes, received=received[message_id])
        for message_id, is_sent, unknown_outcomes in rows(
            "notifications",
            "SELECT message_id::text, sent_at IS NOT NULL, unknown_outcomes FROM message",
        )
    ]
