"""Twilio's Messages resource: form-encoded in, JSON out, status callbacks with `X-Twilio-Signature`.

https://www.twilio.com/docs/messaging/api/message-resource and .../usage/security#validating-requests
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clinic_local.fakes.callbacks import Callback, SignedRequest
from clinic_local.fakes.world import Fault, Received, World, hold_after, hold_before, now, token

UNDELIVERABLE_SUFFIX = "131026"
UNREACHABLE_HANDSET = "30003"
ERROR_TITLES = {
    "20003": (401, "Authenticate"),
    "20429": (429, "Too many requests"),
    "21211": (400, "Invalid 'To' Phone Number"),
    "21604": (400, "A 'To' phone number is required"),
    "21610": (400, "Attempt to send to unsubscribed recipient"),
    "20500": (500, "Internal server error"),
}


class Twilio:
    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        return [Route("/2010-04-01/Accounts/{sid}/Messages.json", self.send, methods=["POST"])]

    async def send(self, request: Request) -> Response:
        fault = self._world.take_fault("twilio")
        await hold_before(fault)
        if not self._authenticated(request):
            return _error("20003")
        refusal = _refusal(fault)
        if refusal is not None:
            return refusal
        form = dict(parse_qsl((await request.body()).decode()))
        if not form.get("To"):
            return _error("21604")
        if not form["To"].lstrip("+").isdigit():
            return _error("21211")
        sid = self._accept(form)
        await hold_after(fault)
        return JSONResponse(self._document(sid, form), status_code=201)

    def _authenticated(self, request: Request) -> bool:
        settings = self._world.settings
        expected = f"{settings.twilio_account_sid}:{settings.twilio_auth_token}".encode()
        basic = "Basic " + base64.b64encode(expected).decode()
        same_account = request.path_params["sid"] == settings.twilio_account_sid
        return same_account and request.headers.get("authorization") == basic

    def _accept(self, form: dict[str, str]) -> str:
        sid = "SM" + token(32)
        self._world.inbox.append(
            Received(
                id=sid,
                vendor="twilio",
                channel="sms",
                to=form["To"],
                received_at=now(),
                text=form.get("Body", ""),
                request=dict(form),
            )
        )
        self._world.callbacks.send_series(self._status_callbacks(sid, form))
        return sid

    def _status_callbacks(self, sid: str, form: Mapping[str, str]) -> list[Callback]:
        failed = form["To"].endswith(UNDELIVERABLE_SUFFIX)
        names = ["sent", "undelivered" if failed else "delivered"]
        url = form.get("StatusCallback", self._world.settings.twilio_callback)
        return [self._callback(url, sid, name, form) for name in self._world.disturb(names)]

    def _callback(self, url: str, sid: str, name: str, form: Mapping[str, str]) -> Callback:
        fields = {
            "AccountSid": self._world.settings.twilio_account_sid,
            "From": form.get("From", ""),
            "MessageSid": sid,
            "MessageStatus": name,
            "SmsSid": sid,
            "SmsStatus": name,
            "To": form["To"],
        }
        if name == "undelivered":
            fields["ErrorCode"] = UNREACHABLE_HANDSET
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "x-twilio-signature": sign(self._world.settings.twilio_auth_token, url, fields),
        }
        request = SignedRequest(urlencode(fields).encode(), headers)
        return Callback(vendor="twilio", name=f"{name} {sid}", url=url, prepare=lambda: request)

    def _document(self, sid: str, form: Mapping[str, str]) -> dict[str, object]:
        account = self._world.settings.twilio_account_sid
        return {
            "account_sid": account,
            "body": form.get("Body", ""),
            "date_created": now().strftime("%a, %d %b %Y %H:%M:%S +0000"),
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": form.get("From"),
            "messaging_service_sid": form.get("MessagingServiceSid"),
            "sid": sid,
            "status": "queued",
            "to": form["To"],
            "uri": f"/2010-04-01/Accounts/{account}/Messages/{sid}.json",
        }


def sign(auth_token: str, url: str, fields: Mapping[str, str]) -> str:
    signed = url + "".join(name + fields[name] for name in sorted(fields))
    digest = hmac.new(auth_token.encode(), signed.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def _refusal(fault: Fault | None) -> JSONResponse | None:
    if fault is None or (fault.status is None and fault.code is None):
        return None
    response = _error(fault.code or "20500", fault.status)
    if fault.retry_after_seconds is not None:
        response.headers["retry-after"] = str(fault.retry_after_seconds)
    return response


def _error(code: str, status: int | None = None) -> JSONResponse:
    usual, message = ERROR_TITLES.get(code, (400, "The message was refused"))
    document = {
        "code": int(code),
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status or usual,
    }
    return JSONResponse(document, status_code=status or usual)
