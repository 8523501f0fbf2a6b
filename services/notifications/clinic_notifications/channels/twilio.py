"""SMS through Twilio's Messages resource, and its status callbacks.

https://www.twilio.com/docs/messaging/api/message-resource. Our message id stands in the callback's URL,
since the API knows neither an idempotency key nor data of ours.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import httpx

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

PROVIDER = "twilio"
CALLBACK_PATH = "/v1/webhooks/messaging/twilio"
PREFIX_NOT_ALLOWED = "prefix-not-allowed"

# https://www.twilio.com/docs/api/errors
_FAILURES = {
    "21610": Failure.OPTED_OUT,
    **dict.fromkeys(
        ("21211", "21614", "21612", "30003", "30004", "30005", "30006", "30007"), Failure.UNDELIVERABLE
    ),
}
_STATUSES = {
    "sent": MessageStatus.SENT,
    "delivered": MessageStatus.DELIVERED,
    "read": MessageStatus.READ,
    "undelivered": MessageStatus.FAILED,
    "failed": MessageStatus.FAILED,
}


class Twilio:
    provider = PROVIDER

    def __init__(self, http: httpx.AsyncClient, settings: NotificationSettings) -> None:
        self._http = http
        account = settings.twilio_account_sid
        self._url = f"{settings.twilio_base_url}/2010-04-01/Accounts/{account}/Messages.json"
        self._auth = httpx.BasicAuth(account, settings.twilio_auth_token.get_secret_value())
        self._sender = settings.twilio_sender
        self._callback = settings.url + CALLBACK_PATH
        self._prefixes = tuple(filter(None, settings.sms_prefixes.split(",")))

    async def send(self, letter: Letter) -> Answer:
        if self._prefixes and not letter.to.startswith(self._prefixes):
            return Refused(Failure.UNDELIVERABLE, PREFIX_NOT_ALLOWED)
        form = {
            "To": letter.to,
            "From": self._sender,
            "Body": letter.text,
            "StatusCallback": f"{self._callback}?message_id={letter.message_id}",
        }
        answer = await call(self._http, self._url, data=form, auth=self._auth)
        if isinstance(answer, (Unavailable, Unknown)):
            return answer
        document = document_of(answer)
        if answer.is_success:
            return Accepted(str(document["sid"])) if "sid" in document else Unknown("no-reference")
        code = str(document.get("code", answer.status_code))
        return Refused(failure_of(code), code)


def failure_of(code: str | None) -> Failure:
    return _FAILURES.get(code or "", Failure.PROVIDER_ERROR)


def is_signed(url: str, fields: Mapping[str, str], signature: str, auth_token: str) -> bool:
    """Check `X-Twilio-Signature` over the public URL and the sorted fields, in constant time."""
    signed = url + "".join(name + fields[name] for name in sorted(fields))
    digest = hmac.new(auth_token.encode(), signed.encode(), hashlib.sha1).digest()
    return hmac.compare_digest(base64.b64encode(digest), signature.encode())


def report_of(fields: Mapping[str, str], *, message_id: UUID | None, received_at: datetime) -> Report | None:
    """Return what a callback says; None for statuses before the carrier has the message."""
    status, reference = _STATUSES.get(fields.get("MessageStatus", "")), fields.get("MessageSid")
    if status is None or not reference:
        return None
    code = fields.get("ErrorCode")
    return Report(
        provider=PROVIDER,
        reference=reference,
        status=status,
        message_id=message_id,
        failure=failure_of(code),
        # Twilio doesn't say when it happened.
        occurred_at=received_at,
    )
