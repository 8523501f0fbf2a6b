"""Codes for logins, asked for by identity and sent by SMS alone.

The code is made as the message leaves: the vendor gets it, identity a box that only it can open, with the number
that the code went to; our own ledger a text without it.
"""

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clinic_shared.database import Transaction
from clinic_shared.encryption.one_way import seal_for
from clinic_shared.events import Event, wire_instant

from clinic_notifications import store
from clinic_notifications.domain import Message, Purpose
from clinic_notifications.links import HIDDEN

DIGITS = 6


@dataclass(frozen=True)
class Code:
    code: str

    def facts(self, message: Message) -> Mapping[str, Any]:
        return {**message.facts, "code": self.code}

    def hide(self, text: str) -> str:
        return text.replace(self.code, HIDDEN)


async def make_code(tx: Transaction, message: Message, number: str) -> Code | None:
    """Return the code of a message that carries one, and hand it to identity in its box; None of any other."""
    if message.purpose is not Purpose.SIGN_IN_CODE:
        return None
    code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"
    content = json.dumps({"code": code, "number": number}).encode()
    box = seal_for(message.facts["public_key"], content, f"one-time-code:{message.about.id}")
    attempts, _ = await store.attempts_of(tx, message.message_id)
    version = 1 + attempts
    tx.emit(
        Event(
            type="notifications.one-time-code-attempted.v1",
            subject=message.about.id,
            aggregate_version=version,
            patient_id=message.patient_id,
            data={
                "request_id": str(message.about.id),
                "version": version,
                "message_id": str(message.message_id),
                "attempted_at": wire_instant(tx.now),
            },
            private={"box": base64.b64encode(box).decode()},
        )
    )
    return Code(code)
