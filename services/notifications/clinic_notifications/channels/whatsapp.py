"""WhatsApp Business Cloud API: template messages out, signed status notifications in.

https://developers.facebook.com/docs/whatsapp/cloud-api. There is no idempotency key: our message id
travels as `biz_opaque_callback_data` and comes back with every status.
"""

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from pydantic import BaseModel, ConfigDict, Field

from clinic_notifications.channels import (
    Accepted,
    Answer,
    Letter,
    Refused,
    Unavailable,
    Unknown,
    call,
    document_of,
)
from clinic_notifications.domain import Failure, MessageStatus
from clinic_notifications.settings import NotificationSettings
from clinic_notifications.statuses import Report

PROVIDER = "whatsapp"
API_VERSION = "v21.0"

# https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes
_TRY_AGAIN = {4, 80007, 130429, 131000, 131016, 131048, 131056, 133004}
_FAILURES = {
    131026: Failure.UNDELIVERABLE,
    131047: Failure.UNDELIVERABLE,
    131049: Failure.UNDELIVERABLE,
    131050: Failure.OPTED_OUT,
    **dict.fromkeys((132000, 132001, 132005, 132007, 132012, 132015, 132016), Failure.TEMPLATE_REJECTED),
}


class WhatsApp:
    provider = PROVIDER

    def __init__(self, http: httpx.AsyncClient, settings: NotificationSettings) -> None:
        self._http = http
        self._url = f"{settings.whatsapp_base_url}/{API_VERSION}/{settings.whatsapp_phone_number_id}/messages"
        self._headers = {"Authorization": f"Bearer {settings.whatsapp_access_token.get_secret_value()}"}

    async def send(self, letter: Letter) -> Answer:
        answer = await call(self._http, self._url, json=_request(letter), headers=self._headers)
        if isinstance(answer, (Unavailable, Unknown)):
            return answer
        document = document_of(answer)
        if answer.is_success:
            try:
                return Accepted(str(document["messages"][0]["id"]))
            except (LookupError, TypeError):
                return Unknown("no-reference")
        code = _error_code(document)
        return Unavailable(str(code)) if code in _TRY_AGAIN else Refused(failure_of(code), str(code))


def _request(letter: Letter) -> dict[str, Any]:
    parameters = [{"type": "text", "text": value} for value in letter.parameters]
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": letter.to,
        "type": "template",
        "template": {
            "name": letter.template_name,
            "language": {"code": letter.language},
            "components": [{"type": "body", "parameters": parameters}] if parameters else [],
        },
        "biz_opaque_callback_data": str(letter.message_id),
    }


def _error_code(document: dict[str, Any]) -> int:
    error = document.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else 0


def failure_of(code: int) -> Failure:
    return _FAILURES.get(code, Failure.PROVIDER_ERROR)


def is_signed(body: bytes, signature: str, secret: str) -> bool:
    """Check `X-Hub-Signature-256` over the raw body, in constant time."""
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode())


class _Error(BaseModel):
    code: int


class _Status(BaseModel):
    id: str = Field(min_length=1, max_length=200)
    status: str
    timestamp: int
    biz_opaque_callback_data: str | None = None
    errors: list[_Error] = []


class _Message(BaseModel):
    """A customer's message; what it holds depends on its type, and is kept as it came."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(min_length=1, max_length=200)


class _Value(BaseModel):
    statuses: list[_Status] = []
    messages: list[_Message] = []


class _Change(BaseModel):
    value: _Value


class _Entry(BaseModel):
    changes: list[_Change] = []


class Notification(BaseModel):
    """What Meta posts: any number of statuses and of customers' messages."""

    entry: list[_Entry] = []

    def values(self) -> list[_Value]:
        return [change.value for entry in self.entry for change in entry.changes]

    def reports(self) -> list[Report]:
        reports = [_report(status) for value in self.values() for status in value.statuses]
        return [report for report in reports if report is not None]

    def replies(self) -> dict[str, dict[str, Any]]:
        """Return customers' messages by their id."""
        return {one.id: one.model_dump(mode="json") for value in self.values() for one in value.messages}


def _report(status: _Status) -> Report | None:
    """Statuses that say nothing about a message of ours (such as `deleted`) are no report."""
    if status.status not in {"sent", "delivered", "read", "failed"}:
        return None
    code = status.errors[0].code if status.errors else None
    return Report(
        provider=PROVIDER,
        reference=status.id,
        status=MessageStatus(status.status),
        message_id=_own_id(status.biz_opaque_callback_data),
        failure=failure_of(code or 0),
        occurred_at=datetime.fromtimestamp(status.timestamp, UTC),
    )


def _own_id(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None


def is_verify_token(token: str, settings: NotificationSettings) -> bool:
    expected = settings.whatsapp_verify_token.get_secret_value()
    return hmac.compare_digest(expected.encode(), token.encode())
