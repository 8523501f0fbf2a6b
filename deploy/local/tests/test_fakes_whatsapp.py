"""The WhatsApp fake behaves as Meta's documentation says."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from clinic_local.fakes.in_process import running_fakes, serving
from clinic_local.fakes.settings import FakesSettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

SETTINGS = FakesSettings()
MESSAGES = f"/v21.0/{SETTINGS.whatsapp_phone_number_id}/messages"
AUTHORIZED = {"authorization": f"Bearer {SETTINGS.whatsapp_token}"}


@dataclass
class Clinic:
    """The receiving end: keeps raw callbacks, answers with the statuses it was given, then 200."""

    requests: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    async def receive(self, request: Request) -> Response:
        if request.method == "GET":
            known = request.query_params["hub.verify_token"] == SETTINGS.whatsapp_verify_token
            return PlainTextResponse(
                request.query_params["hub.challenge"] if known else "", 200 if known else 403
            )
        self.requests.append((await request.body(), dict(request.headers)))
        return Response(status_code=self.answers.pop(0) if self.answers else 200)

    def values(self) -> list[Any]:
        return [json.loads(body)["entry"][0]["changes"][0]["value"] for body, _ in self.requests]

    def statuses(self) -> list[str]:
        return [status["status"] for value in self.values() for status in value.get("statuses", [])]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@dataclass
class Vendor:
    http: httpx.AsyncClient
    clinic: Clinic

    async def send(self, **changes: object) -> httpx.Response:
        return await self.http.post(MESSAGES, json=template_message(**changes), headers=AUTHORIZED)

    async def fault(self, **fault: object) -> None:
        answer = await self.http.post("/_control/faults", json={"vendor": "whatsapp", **fault})
        assert answer.status_code == 204

    async def behave(self, **behaviour: object) -> None:
        assert (await self.http.put("/_control/behaviour", json=behaviour)).status_code == 204

    async def inbox(self) -> Any:
        return (await self.http.get("/_control/inbox")).json()["items"]


def template_message(**changes: object) -> dict[str, object]:
    parameters = [{"type": "text", "text": "Дерматология"}, {"type": "text", "text": "12:30"}]
    return {
        "messaging_product": "whatsapp",
        "to": "+70000000001",
        "type": "template",
        "template": {
            "name": "appointment_confirmed",
            "language": {"code": "ru"},
            "components": [{"type": "body", "parameters": parameters}],
        },
    } | changes


def text_message(to: str = "+70000000001") -> dict[str, object]:
    return {"messaging_product": "whatsapp", "to": to, "type": "text", "text": {"body": "Здравствуйте"}}


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[Vendor]:
    async with AsyncExitStack() as stack:
        clinic = Clinic()
        route = Route("/v1/webhooks/messaging/whatsapp", clinic.receive, methods=["GET", "POST"])
        clinic_url = await stack.enter_async_context(serving(Starlette(routes=[route])))
        fast = {"fakes_callback_delay_seconds": 0.001, "fakes_retry_base_seconds": 0.01}
        url = await stack.enter_async_context(running_fakes(clinic_url, **fast))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url))
        yield Vendor(http, clinic)


@pytest.fixture
async def vendor(running: Vendor) -> Vendor:
    await running.http.post("/_control/reset")
    running.clinic.requests.clear()
    return running


async def test_an_accepted_template_is_only_accepted_and_its_statuses_follow(vendor: Vendor) -> None:
    answer = await vendor.send(biz_opaque_callback_data="message-1")
    assert answer.status_code == 200
    assert answer.json()["messages"][0]["message_status"] == "accepted"
    await vendor.clinic.until(lambda: len(vendor.clinic.requests) == 3)
    assert vendor.clinic.statuses() == ["sent", "delivered", "read"]
    status = vendor.clinic.values()[0]["statuses"][0]
    assert status["id"] == answer.json()["messages"][0]["id"]
    assert status["biz_opaque_callback_data"] == "message-1"


async def test_the_inbox_shows_what_the_patient_would_see(vendor: Vendor) -> None:
    await vendor.send()
    (message,) = await vendor.inbox()
    assert (message["to"], message["template"], message["language"]) == (
        "+70000000001",
        "appointment_confirmed",
        "ru",
    )
    assert message["text"] == "Дерматология | 12:30"


async def test_callbacks_are_signed_over_the_raw_body(vendor: Vendor) -> None:
    await vendor.send()
    await vendor.clinic.until(lambda: bool(vendor.clinic.requests))
    body, headers = vendor.clinic.requests[0]
    digest = hmac.new(SETTINGS.whatsapp_app_secret.encode(), body, hashlib.sha256).hexdigest()
    assert headers["x-hub-signature-256"] == f"sha256={digest}"


async def test_the_raw_body_differs_from_its_reserialisation(vendor: Vendor) -> None:
    await vendor.http.post("/_control/whatsapp/replies", json={"sender": "70000000001", "text": "да/нет"})
    await vendor.clinic.until(lambda: bool(vendor.clinic.requests))
    body = vendor.clinic.requests[0][0]
    assert b"\\/" in body
    assert json.dumps(json.loads(body), separators=(",", ":")).encode() != body


async def test_callbacks_come_twice_and_out_of_order_on_request(vendor: Vendor) -> None:
    await vendor.behave(duplicate_every=1, reorder_every=1)
    await vendor.send()
    await vendor.clinic.until(lambda: len(vendor.clinic.requests) == 6)
    assert vendor.clinic.statuses() == ["read", "read", "delivered", "delivered", "sent", "sent"]


async def test_a_refused_callback_is_retried_until_it_is_taken(vendor: Vendor) -> None:
    await vendor.behave(read_receipts=False)
    vendor.clinic.answers = [503, 200, 500]
    await vendor.send()
    await vendor.clinic.until(lambda: len(vendor.clinic.requests) == 4)
    assert sorted(vendor.clinic.statuses()) == ["delivered", "sent", "sent", "sent"]


async def test_a_wrong_token_is_answered_as_meta_does(vendor: Vendor) -> None:
    answer = await vendor.http.post(MESSAGES, json=template_message(), headers={"authorization": "Bearer x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, 190)
    assert answer.json()["error"]["type"] == "OAuthException"


async def test_a_rate_limit_lasts_as_many_calls_as_asked_for(vendor: Vendor) -> None:
    await vendor.fault(code="130429", times=2, retry_after_seconds=1)
    answers = [await vendor.send() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].json()["error"]["code"] == 130429
    assert answers[0].headers["retry-after"] == "1"


async def test_free_text_outside_the_service_window_fails_later(vendor: Vendor) -> None:
    answer = await vendor.http.post(MESSAGES, json=text_message(), headers=AUTHORIZED)
    assert answer.status_code == 200
    await vendor.clinic.until(lambda: bool(vendor.clinic.requests))
    status = vendor.clinic.values()[0]["statuses"][0]
    assert (status["status"], status["errors"][0]["code"]) == ("failed", 131047)


async def test_a_reply_opens_the_service_window(vendor: Vendor) -> None:
    reply = {"sender": "+70000000001", "text": "Да", "button_payload": "confirm", "in_reply_to": "wamid.x"}
    await vendor.http.post("/_control/whatsapp/replies", json=reply)
    await vendor.clinic.until(lambda: bool(vendor.clinic.requests))
    message = vendor.clinic.values()[0]["messages"][0]
    assert message["button"] == {"payload": "confirm", "text": "Да"}
    assert message["context"]["id"] == "wamid.x"
    await vendor.http.post(MESSAGES, json=text_message(), headers=AUTHORIZED)
    await vendor.clinic.until(lambda: "delivered" in vendor.clinic.statuses())


async def test_an_undeliverable_number_fails_later(vendor: Vendor) -> None:
    await vendor.send(to="+70000131026")
    await vendor.clinic.until(lambda: vendor.clinic.statuses() == ["failed"])
    assert vendor.clinic.values()[0]["statuses"][0]["errors"][0]["code"] == 131026


async def test_a_call_that_times_out_may_have_been_accepted(vendor: Vendor) -> None:
    await vendor.fault(delay_seconds=30, after_accepting=True)
    with pytest.raises(httpx.ReadTimeout):
        await vendor.http.post(MESSAGES, json=template_message(), headers=AUTHORIZED, timeout=2)
    assert len(await vendor.inbox()) == 1
    await vendor.clinic.until(lambda: "delivered" in vendor.clinic.statuses())


@pytest.mark.parametrize(
    "changes", [{"to": "nobody"}, {"type": "sticker"}, {"template": {}}, {"messaging_product": "x"}]
)
async def test_an_invalid_message_is_refused_and_not_kept(vendor: Vendor, changes: dict[str, Any]) -> None:
    answer = await vendor.send(**changes)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 100)
    assert await vendor.inbox() == []


async def test_the_subscription_is_verified_by_a_challenge(vendor: Vendor) -> None:
    assert (await vendor.http.post("/_control/whatsapp/verify")).json() == {"verified": True}


async def test_reset_forgets_everything(vendor: Vendor) -> None:
    await vendor.send()
    await vendor.fault(code="131000", times=9)
    assert (await vendor.http.post("/_control/reset")).status_code == 204
    assert await vendor.inbox() == []
    assert (await vendor.send()).status_code == 200


async def test_a_control_request_that_makes_no_sense_is_explained(vendor: Vendor) -> None:
    answer = await vendor.http.post("/_control/faults", json={"vendor": "nobody"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["vendor"]
