"""The SMS, e-mail and payment fakes behave as Twilio's, Postmark's and Stripe's documentation says."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from clinic_local.fakes.in_process import running_fakes, serving
from clinic_local.fakes.settings import FakesSettings
from clinic_local.fakes.twilio import sign as twilio_signature
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SETTINGS = FakesSettings()
TWILIO = f"/2010-04-01/Accounts/{SETTINGS.twilio_account_sid}/Messages.json"
TWILIO_AUTH = (SETTINGS.twilio_account_sid, SETTINGS.twilio_auth_token)
POSTMARK_AUTH = {"x-postmark-server-token": SETTINGS.postmark_server_token}
STRIPE_AUTH = {"authorization": f"Bearer {SETTINGS.stripe_api_key}"}
INTENT = {"amount": "150000", "currency": "RUB", "metadata[invoice_id]": "invoice-1"}
MAIL = {"From": "clinic@example.org", "To": "anna@example.org", "Subject": "Запись", "TextBody": "12:30"}


@dataclass
class Clinic:
    requests: list[tuple[str, bytes, dict[str, str]]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    async def receive(self, request: Request) -> Response:
        self.requests.append((str(request.url), await request.body(), dict(request.headers)))
        return Response(status_code=self.answers.pop(0) if self.answers else 200)

    def events(self) -> list[Any]:
        return [json.loads(body) for _, body, _ in self.requests]

    def kinds(self) -> list[str]:
        return [str(event["type"]) for event in self.events()]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@dataclass
class Vendors:
    http: httpx.AsyncClient
    clinic: Clinic

    async def intent(self, key: str | None = None, **changes: str) -> httpx.Response:
        headers = STRIPE_AUTH | ({"idempotency-key": key} if key else {})
        return await self.http.post("/v1/payment_intents", data=INTENT | changes, headers=headers)

    async def pay(self, identifier: str, **payment: object) -> httpx.Response:
        return await self.http.post(f"/_control/stripe/{identifier}/pay", json=payment)

    async def stripe(self, path: str) -> Any:
        return (await self.http.get(path, headers=STRIPE_AUTH)).json()


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[Vendors]:
    async with AsyncExitStack() as stack:
        clinic = Clinic()
        route = Route("/{path:path}", clinic.receive, methods=["POST"])
        clinic_url = await stack.enter_async_context(serving(Starlette(routes=[route])))
        fast = {"fakes_callback_delay_seconds": 0.001, "fakes_retry_base_seconds": 0.01}
        url = await stack.enter_async_context(running_fakes(clinic_url, **fast))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url))
        yield Vendors(http, clinic)


@pytest.fixture
async def vendors(running: Vendors) -> Vendors:
    await running.http.post("/_control/reset")
    running.clinic.requests.clear()
    return running


async def test_an_sms_is_queued_and_its_statuses_come_signed(vendors: Vendors) -> None:
    form = {"To": "+70000000001", "From": "+70000000000", "Body": "Код 000000"}
    answer = await vendors.http.post(TWILIO, data=form, auth=TWILIO_AUTH)
    assert (answer.status_code, answer.json()["status"]) == (201, "queued")
    await vendors.clinic.until(lambda: len(vendors.clinic.requests) == 2)
    url, body, headers = vendors.clinic.requests[1]
    fields = dict(parse_qsl(body.decode()))
    assert (fields["MessageSid"], fields["MessageStatus"]) == (answer.json()["sid"], "delivered")
    assert headers["x-twilio-signature"] == twilio_signature(SETTINGS.twilio_auth_token, url, fields)


async def test_an_sms_to_an_unreachable_phone_is_undelivered(vendors: Vendors) -> None:
    form = {"To": "+70000131026", "From": "+70000000000", "Body": "x"}
    await vendors.http.post(TWILIO, data=form, auth=TWILIO_AUTH)
    await vendors.clinic.until(lambda: len(vendors.clinic.requests) == 2)
    fields = dict(parse_qsl(vendors.clinic.requests[1][1].decode()))
    assert (fields["MessageStatus"], fields["ErrorCode"]) == ("undelivered", "30003")


@pytest.mark.parametrize(
    ("form", "auth", "status", "code"),
    [
        ({"To": "+70000000001"}, ("AC", "x"), 401, 20003),
        ({"Body": "x"}, TWILIO_AUTH, 400, 21604),
        ({"To": "anna"}, TWILIO_AUTH, 400, 21211),
    ],
)
async def test_a_wrong_sms_is_refused_in_twilios_shape(
    vendors: Vendors, form: dict[str, str], auth: tuple[str, str], status: int, code: int
) -> None:
    answer = await vendors.http.post(TWILIO, data=form, auth=auth)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_an_email_arrives_in_the_inbox(vendors: Vendors) -> None:
    answer = await vendors.http.post("/email", json=MAIL, headers=POSTMARK_AUTH)
    assert answer.json()["ErrorCode"] == 0
    (message,) = (await vendors.http.get("/_control/inbox?channel=email")).json()["items"]
    assert (message["id"], message["subject"]) == (answer.json()["MessageID"], "Запись")


@pytest.mark.parametrize(
    ("changes", "headers", "status", "code"),
    [
        ({}, {}, 401, 10),
        ({"To": "nobody"}, POSTMARK_AUTH, 422, 300),
        ({"To": "inactive@example.org"}, POSTMARK_AUTH, 422, 406),
        ({"TextBody": ""}, POSTMARK_AUTH, 422, 300),
    ],
)
async def test_a_wrong_email_is_refused_in_postmarks_shape(
    vendors: Vendors, changes: dict[str, Any], headers: dict[str, str], status: int, code: int
) -> None:
    answer = await vendors.http.post("/email", json=MAIL | changes, headers=headers)
    assert (answer.status_code, answer.json()["ErrorCode"]) == (status, code)


async def test_a_payment_goes_from_intent_to_signed_events(vendors: Vendors) -> None:
    intent = (await vendors.intent()).json()
    assert (intent["status"], intent["currency"], intent["amount"]) == (
        "requires_payment_method",
        "rub",
        150000,
    )
    await vendors.pay(intent["id"])
    await vendors.clinic.until(lambda: len(vendors.clinic.requests) == 3)
    assert vendors.clinic.kinds() == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
    ]
    succeeded = vendors.clinic.events()[2]["data"]["object"]
    assert succeeded["metadata"] == {"invoice_id": "invoice-1"}
    assert succeeded["amount_received"] == 150000
    assert (await vendors.stripe(f"/v1/payment_intents/{intent['id']}"))["status"] == "succeeded"


async def test_stripes_signature_covers_time_and_raw_body(vendors: Vendors) -> None:
    await vendors.intent()
    await vendors.clinic.until(lambda: bool(vendors.clinic.requests))
    _, body, headers = vendors.clinic.requests[0]
    parts = dict(part.split("=", 1) for part in headers["stripe-signature"].split(","))
    signed = f"{parts['t']}.".encode() + body
    assert (
        parts["v1"] == hmac.new(SETTINGS.stripe_webhook_secret.encode(), signed, hashlib.sha256).hexdigest()
    )


async def test_events_come_duplicated_and_reordered_on_request(vendors: Vendors) -> None:
    intent = (await vendors.intent()).json()
    await vendors.clinic.until(lambda: len(vendors.clinic.requests) == 1)
    await vendors.pay(intent["id"], deliveries=2, reorder=True)
    await vendors.clinic.until(lambda: len(vendors.clinic.requests) == 7)
    late = ["payment_intent.succeeded", "charge.succeeded", "payment_intent.created"]
    assert vendors.clinic.kinds()[1:] == [kind for kind in late for _ in range(2)]
    assert len({event["id"] for event in vendors.clinic.events()}) == 3


async def test_a_refused_webhook_is_retried(vendors: Vendors) -> None:
    vendors.clinic.answers = [500, 503]
    await vendors.intent()
    await vendors.clinic.until(lambda: len(vendors.clinic.requests) == 3)
    assert len({event["id"] for event in vendors.clinic.events()}) == 1


async def test_the_same_key_gives_the_same_intent_and_another_body_is_refused(vendors: Vendors) -> None:
    first, again = await vendors.intent("key-1"), await vendors.intent("key-1")
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    other = await vendors.intent("key-1", amount="1")
    assert (other.status_code, other.json()["error"]["type"]) == (400, "idempotency_error")


async def test_a_key_works_across_a_lost_answer(vendors: Vendors) -> None:
    await vendors.http.post(
        "/_control/faults", json={"vendor": "stripe", "delay_seconds": 30, "after_accepting": True}
    )
    headers = STRIPE_AUTH | {"idempotency-key": "key-2"}
    with pytest.raises(httpx.ReadTimeout):
        await vendors.http.post("/v1/payment_intents", data=INTENT, headers=headers, timeout=2)
    assert (await vendors.intent("key-2")).headers["idempotent-replayed"] == "true"
    events = (await vendors.http.get("/_control/stripe/events")).json()["items"]
    assert [event["type"] for event in events] == ["payment_intent.created"]


async def test_a_checkout_session_is_paid_on_its_page(vendors: Vendors) -> None:
    form = {
        "mode": "payment",
        "line_items[0][price_data][currency]": "rub",
        "line_items[0][price_data][unit_amount]": "50000",
        "line_items[0][quantity]": "2",
        "client_reference_id": "invoice-1",
    }
    session = (await vendors.http.post("/v1/checkout/sessions", data=form, headers=STRIPE_AUTH)).json()
    assert (session["amount_total"], session["payment_status"]) == (100000, "unpaid")
    assert "Paid" in (await vendors.http.post(session["url"])).text
    await vendors.clinic.until(lambda: "checkout.session.completed" in vendors.clinic.kinds())
    paid = await vendors.stripe(f"/v1/checkout/sessions/{session['id']}")
    assert paid["payment_status"] == "paid"
    assert (await vendors.stripe(f"/v1/payment_intents/{paid['payment_intent']}"))["status"] == "succeeded"


async def test_a_declined_card_can_be_tried_again(vendors: Vendors) -> None:
    intent = (await vendors.intent()).json()
    await vendors.pay(intent["id"], outcome="card_declined")
    await vendors.clinic.until(lambda: "payment_intent.payment_failed" in vendors.clinic.kinds())
    await vendors.pay(intent["id"])
    assert (await vendors.stripe(f"/v1/payment_intents/{intent['id']}"))["amount_received"] == 150000


async def test_no_more_is_refunded_than_was_paid(vendors: Vendors) -> None:
    intent = (await vendors.intent()).json()
    await vendors.pay(intent["id"])
    refund = {"payment_intent": intent["id"], "amount": "100000"}
    answer = await vendors.http.post("/v1/refunds", data=refund, headers=STRIPE_AUTH)
    assert (answer.json()["status"], answer.json()["amount"]) == ("succeeded", 100000)
    assert (await vendors.http.post("/v1/refunds", data=refund, headers=STRIPE_AUTH)).status_code == 400
    await vendors.clinic.until(lambda: "charge.refunded" in vendors.clinic.kinds())


@pytest.mark.parametrize(
    ("form", "headers", "status"),
    [
        (INTENT, {"authorization": "Bearer x"}, 401),
        (INTENT | {"amount": "0"}, STRIPE_AUTH, 400),
        (INTENT | {"amount": "10.50"}, STRIPE_AUTH, 400),
        (INTENT | {"currency": "roubles"}, STRIPE_AUTH, 400),
    ],
)
async def test_a_wrong_payment_is_refused_in_stripes_shape(
    vendors: Vendors, form: dict[str, str], headers: dict[str, str], status: int
) -> None:
    answer = await vendors.http.post("/v1/payment_intents", data=form, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_an_outage_answers_errors_as_long_as_asked_for(vendors: Vendors) -> None:
    await vendors.http.post("/_control/faults", json={"vendor": "stripe", "status": 503, "times": 2})
    assert [(await vendors.intent("k")).status_code for _ in range(3)] == [503, 503, 200]
