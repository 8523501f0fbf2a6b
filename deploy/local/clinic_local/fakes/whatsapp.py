"""WhatsApp Business Cloud API: messages in, status callbacks and customers' replies out.

https://developers.facebook.com/docs/whatsapp/cloud-api: an accepted message is only *accepted*; what
became of it comes later, signed over the raw body (`X-Hub-Signature-256`), in any order, more than once.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpx
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clinic_local.fakes.callbacks import Callback, SignedRequest
from clinic_local.fakes.world import Fault, Received, World, hold_after, hold_before, now, token

SERVICE_WINDOW = timedelta(hours=24)
UNDELIVERABLE_SUFFIX = "131026"
VERIFY_ATTEMPTS = 60


@dataclass(frozen=True)
class MetaError:
    """`status` is None where the vendor accepts the call and reports the error by callback."""

    code: int
    title: str
    details: str
    status: int | None


ERRORS = {
    error.code: error
    for error in (
        MetaError(100, "Invalid parameter", "A parameter is missing or not valid", 400),
        MetaError(190, "Invalid OAuth access token - Cannot parse access token", "", 401),
        MetaError(368, "Temporarily blocked for policies violations", "The account is restricted", 403),
        MetaError(130429, "Rate limit hit", "Cloud API message throughput has been reached", 429),
        MetaError(131000, "Something went wrong", "Message failed to send because of an unknown error", 500),
        MetaError(131016, "Service unavailable", "A service is temporarily unavailable", 503),
        MetaError(131026, "Message undeliverable", "Unable to deliver message", None),
        MetaError(
            131047,
            "Re-engagement message",
            "Message failed to send because more than 24 hours have passed "
            "since the customer last replied to this number",
            None,
        ),
        MetaError(
            131056, "(Business Account, Consumer Account) pair rate limit hit", "Too many messages", 400
        ),
        MetaError(132000, "Number of parameters does not match the expected number of params", "", 400),
        MetaError(132001, "Template name does not exist in the translation", "", 404),
        MetaError(132015, "Template is paused", "Template is paused due to low quality", 400),
    )
}


class Reply(BaseModel):
    """A customer's answer; `button_payload` makes it a tap on a template's quick-reply button."""

    sender: str = Field(pattern=r"^\+?\d{6,15}$")
    text: str = Field(max_length=4096)
    in_reply_to: str | None = None
    button_payload: str | None = None


class WhatsApp:
    def __init__(self, world: World) -> None:
        self._world = world
        self.reset()

    def reset(self) -> None:
        self._last_reply_at: dict[str, datetime] = {}
        self.verified: bool | None = None

    def routes(self) -> list[Route]:
        return [
            Route("/v{version:float}/{phone_number_id}/messages", self.send, methods=["POST"]),
            Route("/_control/whatsapp/replies", self.inject_reply, methods=["POST"]),
            Route("/_control/whatsapp/verify", self.verify_now, methods=["POST"]),
        ]

    async def send(self, request: Request) -> Response:
        fault = self._world.take_fault("whatsapp")
        await hold_before(fault)
        if request.headers.get("authorization") != f"Bearer {self._world.settings.whatsapp_token}":
            return error_response(ERRORS[190])
        if request.path_params["phone_number_id"] != self._world.settings.whatsapp_phone_number_id:
            return error_response(ERRORS[100], details="Unsupported post request: no such phone number id")
        refusal = _synchronous_error(fault)
        if refusal is not None:
            return refusal
        try:
            message = json.loads(await request.body())
        except ValueError:
            return error_response(ERRORS[100], details="The body is not JSON")
        problem = _problem_of(message)
        if problem is not None:
            return error_response(ERRORS[100], details=problem)
        wamid = self._accept(message, fault)
        await hold_after(fault)
        return JSONResponse(_accepted(message["to"], wamid, message["type"]))

    def _accept(self, message: dict[str, object], fault: Fault | None) -> str:
        wamid = "wamid." + base64.b64encode(token(40).encode()).decode()
        received = _received(wamid, message)
        self._world.inbox.append(received)
        self._world.callbacks.send_series(self._status_callbacks(received, message, fault))
        return wamid

    def _status_callbacks(
        self, received: Received, message: Mapping[str, object], fault: Fault | None
    ) -> list[Callback]:
        error = self._asynchronous_error(received, message, fault)
        if error is not None:
            statuses = [_status(received, message, "failed", error)]
        else:
            names = ["sent", "delivered"] + ["read"] * self._world.behaviour.read_receipts
            statuses = [_status(received, message, name) for name in names]
        return [
            self._callback(f"{status['status']} {status['id']}", {"statuses": [status]})
            for status in self._world.disturb(statuses)
        ]

    def _asynchronous_error(
        self, received: Received, message: Mapping[str, object], fault: Fault | None
    ) -> MetaError | None:
        if fault is not None and fault.code:
            return ERRORS[int(fault.code)]
        if received.to.endswith(UNDELIVERABLE_SUFFIX):
            return ERRORS[131026]
        if message["type"] != "template" and not self._window_open(received.to):
            return ERRORS[131047]
        return None

    def _window_open(self, to: str) -> bool:
        last = self._last_reply_at.get(_wa_id(to))
        return last is not None and now() - last < SERVICE_WINDOW

    async def inject_reply(self, request: Request) -> Response:
        reply = Reply.model_validate_json(await request.body())
        self._last_reply_at[_wa_id(reply.sender)] = now()
        message = _inbound(reply)
        value = {
            "contacts": [{"profile": {"name": "Testova Anna"}, "wa_id": _wa_id(reply.sender)}],
            "messages": [message],
        }
        callback = self._callback(f"message {message['id']}", value)
        self._world.callbacks.send_series(self._world.disturb([callback]))
        return JSONResponse({"id": message["id"]}, status_code=202)

    def _callback(self, name: str, value: dict[str, object]) -> Callback:
        body = notification_body(self._world.settings.whatsapp_phone_number_id, value)
        signature = sign(self._world.settings.whatsapp_app_secret, body)
        headers = {"content-type": "application/json", "x-hub-signature-256": signature}
        return Callback(
            vendor="whatsapp",
            name=name,
            url=self._world.settings.whatsapp_callback,
            prepare=lambda: SignedRequest(body, headers),
        )

    async def verify_now(self, request: Request) -> Response:  # noqa: ARG002
        await self.verify_subscription(attempts=1)
        return JSONResponse({"verified": self.verified})

    async def verify_subscription(self, *, attempts: int = VERIFY_ATTEMPTS) -> None:
        """Ask the clinic to echo a challenge, as Meta does when a callback URL is configured."""
        challenge = token(16)
        query = {
            "hub.mode": "subscribe",
            "hub.challenge": challenge,
            "hub.verify_token": self._world.settings.whatsapp_verify_token,
        }
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            for _ in range(attempts):
                self.verified = await _challenge(client, self._world.settings.whatsapp_callback, query)
                if self.verified or attempts == 1:
                    return
                await asyncio.sleep(1)


async def _challenge(client: httpx.AsyncClient, url: str, query: dict[str, str]) -> bool:
    try:
        answer = await client.get(url, params=query)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK and answer.text == query["hub.challenge"]


def sign(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def notification_body(phone_number_id: str, value: Mapping[str, object]) -> bytes:
    metadata = {"display_phone_number": "70000000000", "phone_number_id": phone_number_id}
    change = {"value": {"messaging_product": "whatsapp", "metadata": metadata, **value}, "field": "messages"}
    document = {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}
    # Meta escapes non-ASCII characters and slashes; who verifies over re-serialised JSON fails on it.
    return json.dumps(document, separators=(",", ":")).replace("/", "\\/").encode()


def error_response(
    error: MetaError, *, status: int | None = None, details: str | None = None
) -> JSONResponse:
    document = {
        "message": f"(#{error.code}) {error.title}",
        "type": "OAuthException",
        "code": error.code,
        "error_data": {"messaging_product": "whatsapp", "details": details or error.details},
        "fbtrace_id": token(11),
    }
    return JSONResponse({"error": document}, status_code=status or error.status or 400)


def _synchronous_error(fault: Fault | None) -> JSONResponse | None:
    if fault is None or (fault.status is None and fault.code is None):
        return None
    error = ERRORS[int(fault.code or 131000)]
    if fault.status is None and error.status is None:
        return None
    response = error_response(error, status=fault.status)
    if fault.retry_after_seconds is not None:
        response.headers["retry-after"] = str(fault.retry_after_seconds)
    return response


def _problem_of(message: object) -> str | None:
    if not isinstance(message, dict) or message.get("messaging_product") != "whatsapp":
        return "The parameter messaging_product is required"
    if not re.fullmatch(r"\+?\d{6,15}", str(message.get("to", ""))):
        return "The parameter to is required and must be a phone number"
    kind = message.get("type")
    if kind not in ("template", "text"):
        return "The parameter type must be template or text"
    content = message.get(kind)
    required = {"template": {"name", "language"}, "text": {"body"}}[kind]
    if not isinstance(content, dict) or not required <= content.keys():
        return f"The parameter {kind} needs {', '.join(sorted(required))}"
    return None


def _accepted(to: object, wamid: str, kind: object) -> dict[str, object]:
    message = {"id": wamid}
    if kind == "template":
        message["message_status"] = "accepted"
    contacts = [{"input": to, "wa_id": _wa_id(str(to))}]
    return {"messaging_product": "whatsapp", "contacts": contacts, "messages": [message]}


def _received(wamid: str, message: dict[str, object]) -> Received:
    content = message[str(message["type"])]
    if not isinstance(content, dict):
        raise TypeError
    language = content.get("language")
    return Received(
        id=wamid,
        vendor="whatsapp",
        channel="whatsapp",
        to=str(message["to"]),
        received_at=now(),
        template=content.get("name"),
        language=language.get("code") if isinstance(language, dict) else None,
        text=content["body"] if "body" in content else " | ".join(_parameters(content)),
        request=message,
    )


def _parameters(template: Mapping[str, object]) -> list[str]:
    components = template.get("components")
    if not isinstance(components, list):
        return []
    return [
        str(parameter.get("text", parameter.get("payload", "")))
        for component in components
        for parameter in component.get("parameters", [])
    ]


def _status(
    received: Received, message: Mapping[str, object], name: str, error: MetaError | None = None
) -> dict[str, object]:
    status: dict[str, object] = {
        "id": received.id,
        "status": name,
        "timestamp": str(int(now().timestamp())),
        "recipient_id": _wa_id(received.to),
    }
    if "biz_opaque_callback_data" in message:
        status["biz_opaque_callback_data"] = message["biz_opaque_callback_data"]
    if error is not None:
        status["errors"] = [
            {
                "code": error.code,
                "title": error.title,
                "message": error.title,
                "error_data": {"details": error.details},
                "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
            }
        ]
    elif name != "read":
        status["conversation"] = {"id": token(32), "origin": {"type": "utility"}}
        status["pricing"] = {"billable": True, "pricing_model": "CBP", "category": "utility"}
    return status


def _inbound(reply: Reply) -> dict[str, object]:
    message: dict[str, object] = {
        "from": _wa_id(reply.sender),
        "id": "wamid." + base64.b64encode(token(40).encode()).decode(),
        "timestamp": str(int(now().timestamp())),
    }
    if reply.in_reply_to is not None:
        message["context"] = {"from": "70000000000", "id": reply.in_reply_to}
    if reply.button_payload is not None:
        button = {"payload": reply.button_payload, "text": reply.text}
        return message | {"type": "button", "button": button}
    return message | {"type": "text", "text": {"body": reply.text}}


def _wa_id(phone: str) -> str:
    return phone.removeprefix("+")
