"""Postmark's HTTP e-mail API: one call, one message, an error code in the body.

https://postmarkapp.com/developer/api/email-api
"""

import json

from clinic_shared.ids import uuid7
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clinic_local.fakes.world import Received, World, hold_after, hold_before, now

BAD_TOKEN, INVALID_REQUEST, INACTIVE_RECIPIENT, INVALID_JSON = 10, 300, 406, 402
INACTIVE_PREFIX = "inactive"


class Postmark:
    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        return [Route("/email", self.send, methods=["POST"])]

    async def send(self, request: Request) -> Response:
        fault = self._world.take_fault("postmark")
        await hold_before(fault)
        if request.headers.get("x-postmark-server-token") != self._world.settings.postmark_server_token:
            return _error(
                401, BAD_TOKEN, "No Account or Server API tokens were supplied in the HTTP headers."
            )
        if fault is not None and (fault.status or fault.code):
            return _error(fault.status or 422, int(fault.code or 0), "The message was refused.")
        try:
            mail = json.loads(await request.body())
        except ValueError:
            return _error(422, INVALID_JSON, "Invalid JSON")
        refusal = _refusal(mail)
        if refusal is not None:
            return refusal
        received = _received(mail)
        self._world.inbox.append(received)
        await hold_after(fault)
        return JSONResponse(
            {
                "To": received.to,
                "SubmittedAt": received.received_at.isoformat(),
                "MessageID": received.id,
                "ErrorCode": 0,
                "Message": "OK",
            }
        )


def _refusal(mail: object) -> JSONResponse | None:
    if (
        not isinstance(mail, dict)
        or "@" not in str(mail.get("From", ""))
        or "@" not in str(mail.get("To", ""))
    ):
        return _error(422, INVALID_REQUEST, "Invalid 'From' or 'To' address.")
    if not (mail.get("TextBody") or mail.get("HtmlBody")):
        return _error(422, INVALID_REQUEST, "Provide either email TextBody or HtmlBody or both.")
    if str(mail["To"]).startswith(INACTIVE_PREFIX):
        return _error(
            422, INACTIVE_RECIPIENT, "You tried to send to a recipient that has been marked as inactive."
        )
    return None


def _received(mail: dict[str, object]) -> Received:
    return Received(
        id=str(uuid7()),
        vendor="postmark",
        channel="email",
        to=str(mail["To"]),
        received_at=now(),
        subject=str(mail.get("Subject", "")),
        text=str(mail.get("TextBody") or mail.get("HtmlBody")),
        request=mail,
    )


def _error(status: int, code: int, message: str) -> JSONResponse:
    return JSONResponse({"ErrorCode": code, "Message": message}, status_code=status)
