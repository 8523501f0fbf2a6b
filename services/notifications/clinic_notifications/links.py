"""Links to choose a password with, asked for by identity.

The secret is made when a message leaves and kept nowhere: the vendor gets it, identity its digest
(AccessLinkAttempted), and our own ledger a text without it. A repeated message carries another one.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from clinic_shared.database import Transaction
from clinic_shared.events import Event, wire_instant

from clinic_notifications import store
from clinic_notifications.domain import Channel, Message, Purpose

PURPOSES = {"invitation": Purpose.INVITATION, "reset": Purpose.PASSWORD_RESET}
TOKEN_PREFIX = "al_"  # noqa: S105  # tells people and scanners what it is
HIDDEN = "***"


@dataclass(frozen=True)
class Secret:
    token: str

    def facts(self, message: Message) -> Mapping[str, Any]:
        return {**message.facts, "link": f"{message.facts['page_url']}?{urlencode({'token': self.token})}"}

    def hide(self, text: str) -> str:
        return text.replace(self.token, HIDDEN)


async def make_secret(tx: Transaction, message: Message, channel: Channel) -> Secret | None:
    """Return the secret of a message that carries a link, and tell identity its digest; None of any other."""
    if message.purpose not in PURPOSES.values():
        return None
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    await _tell(tx, replace(message, channel=channel), state="sending", digest=digest)
    return Secret(token)


async def give_up(tx: Transaction, failed: Message) -> None:
    """Tell identity of a link that reached nobody on any channel."""
    if failed.purpose in PURPOSES.values():
        await _tell(tx, failed, state="undeliverable", digest=None)


async def _tell(tx: Transaction, message: Message, *, state: str, digest: str | None) -> None:
    attempts, _ = await store.attempts_of(tx, message.message_id)
    # Grows from attempt to attempt and from channel to channel; giving up comes after the attempt.
    version = 1 + message.step * 1000 + attempts * 2 + (state == "undeliverable")
    tx.emit(
        Event(
            type="notifications.access-link-attempted.v1",
            subject=message.about.id,
            aggregate_version=version,
            patient_id=message.patient_id,
            data={
                "request_id": str(message.about.id),
                "version": version,
                "state": state,
                "message_id": str(message.message_id),
                "channel": message.channel.value,
                "failure_code": message.failure_code,
                "attempted_at": wire_instant(tx.now),
            },
            private={"digest": digest},
        )
    )
