"""E-mail through Postmark: one call, one mail; a code in the body says why it was refused.

https://postmarkapp.com/developer/api/email-api
"""

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
from clinic_notifications.domain import Failure
from clinic_notifications.settings import NotificationSettings

PROVIDER = "postmark"

_BAD_TOKEN, _OUT_OF_CREDITS, _TOO_MANY = 10, 405, 429
_FAILURES = {300: Failure.UNDELIVERABLE, 406: Failure.UNDELIVERABLE}


class Postmark:
    provider = PROVIDER

    def __init__(self, http: httpx.AsyncClient, settings: NotificationSettings) -> None:
        self._http = http
        self._url = f"{settings.postmark_base_url}/email"
        self._headers = {"X-Postmark-Server-Token": settings.postmark_server_token.get_secret_value()}
        self._sender = settings.postmark_sender

    async def send(self, letter: Letter) -> Answer:
        mail = {
            "From": self._sender,
            "To": letter.to,
            "Subject": letter.subject,
            "TextBody": letter.text,
            "MessageStream": "outbound",
            "Metadata": {"message_id": str(letter.message_id)},
        }
        answer = await call(self._http, self._url, json=mail, headers=self._headers)
        if isinstance(answer, (Unavailable, Unknown)):
            return answer
        document = document_of(answer)
        if answer.is_success:
            return (
                Accepted(str(document["MessageID"])) if "MessageID" in document else Unknown("no-reference")
            )
        code = document.get("ErrorCode", 0)
        if code in {_BAD_TOKEN, _OUT_OF_CREDITS, _TOO_MANY}:
            return Unavailable(str(code))
        return Refused(_FAILURES.get(code, Failure.PROVIDER_ERROR), str(code))
