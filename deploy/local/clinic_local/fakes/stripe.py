"""Stripe-shaped payments: intents, checkout sessions, refunds, and the customer who pays on command.

https://docs.stripe.com/api: form-encoded requests, `Idempotency-Key` honoured for answers that took
effect, webhooks signed over the raw body, at least once and unordered.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from clinic_local.fakes import stripe_objects as objects
from clinic_local.fakes.callbacks import Callback
from clinic_local.fakes.stripe_objects import Document, StripeError
from clinic_local.fakes.world import Fault, World, hold_after, hold_before


@dataclass(frozen=True)
class Call:
    params: Mapping[str, str]
    identifier: str
    base_url: str
    idempotency_key: str | None


class Payment(BaseModel):
    """How the customer pays; `reorder` also sends the old `payment_intent.created` again, last of all."""

    outcome: Literal["succeeded", "card_declined"] = "succeeded"
    deliveries: int = Field(default=1, ge=0, le=10, description="how often (0: lost) each event is delivered")
    reorder: bool = False
    lie: bool = Field(default=False, description="only tell of it: nothing is paid")


class Stripe:
    def __init__(self, world: World) -> None:
        self._world = world
        self.reset()

    def reset(self) -> None:
        self._objects: dict[str, Document] = {}
        self._created: dict[str, Document] = {}
        self._answers: dict[str, tuple[str, Document]] = {}
        self.events: list[Document] = []

    def routes(self) -> list[Route]:
        return [
            self._writing("/v1/payment_intents", self._create_intent),
            self._writing("/v1/payment_intents/{id}/cancel", self._cancel_intent),
            self._writing("/v1/checkout/sessions", self._create_session),
            self._writing("/v1/refunds", self._create_refund),
            Route("/v1/payment_intents/{id}", self.read),
            Route("/v1/checkout/sessions/{id}", self.read),
            Route("/v1/charges/{id}", self.read),
            Route("/v1/refunds/{id}", self.read),
            Route("/v1/refunds", self.list_refunds),
            Route("/checkout/{id}", self.checkout_page, methods=["GET", "POST"]),
            Route("/_control/stripe/{id}/pay", self.pay, methods=["POST"]),
            Route("/_control/stripe/events", self.list_events),
        ]

    def _writing(self, path: str, create: Callable[[Call], Document]) -> Route:
        return Route(path, partial(self._write, create), methods=["POST"])

    async def _write(self, create: Callable[[Call], Document], request: Request) -> Response:
        fault = self._world.take_fault("stripe")
        await hold_before(fault)
        body = await request.body()
        try:
            self._authenticate(request)
            _act_out(fault)
            answer, replayed = self._once(create, request, body)
        except StripeError as error:
            return JSONResponse(error.document, status_code=error.status)
        await hold_after(fault)
        headers = {"idempotent-replayed": "true"} if replayed else {}
        return JSONResponse(answer, headers=headers)

    def _once(
        self, create: Callable[[Call], Document], request: Request, body: bytes
    ) -> tuple[Document, bool]:
        key = request.headers.get("idempotency-key")
        fingerprint = f"{request.url.path}\n{body.decode()}"
        if key is not None and key in self._answers:
            first, answer = self._answers[key]
            if first != fingerprint:
                raise StripeError(
                    400,
                    "idempotency_error",
                    "Keys for idempotent requests can only be used with the same parameters they were first used with.",
                )
            return answer, True
        params = dict(parse_qsl(body.decode(), keep_blank_values=True))
        call = Call(params, request.path_params.get("id", ""), str(request.base_url), key)
        answer = dict(create(call))
        if key is not None:
            self._answers[key] = (fingerprint, answer)
        return answer, False

    def _authenticate(self, request: Request) -> None:
        key = self._world.settings.stripe_api_key
        basic = "Basic " + base64.b64encode(f"{key}:".encode()).decode()
        if request.headers.get("authorization") not in (f"Bearer {key}", basic):
            raise StripeError(401, "invalid_request_error", "Invalid API Key provided.")

    def _create_intent(self, call: Call) -> Document:
        intent = objects.payment_intent(call.params)
        self._add_intent(intent, call.idempotency_key)
        if call.params.get("confirm") == "true":
            self._settle(intent, Payment())
        return intent

    def _add_intent(self, intent: Document, key: str | None) -> None:
        self._store(intent)
        created = self._record("payment_intent.created", intent, key)
        self._created[str(intent["id"])] = created
        self._deliver([created])

    def _cancel_intent(self, call: Call) -> Document:
        intent = self._find(call.identifier)
        if intent["status"] != "requires_payment_method":
            raise StripeError(
                400,
                "invalid_request_error",
                f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}.",
                code="payment_intent_unexpected_state",
            )
        intent["status"] = "canceled"
        self._deliver([self._record("payment_intent.canceled", intent, call.idempotency_key)])
        return intent

    def _create_session(self, call: Call) -> Document:
        session = objects.checkout_session(call.params, call.base_url)
        self._store(session)
        return session

    def _create_refund(self, call: Call) -> Document:
        charged = self._charge_of(call.params)
        left = _integer(charged["amount_captured"]) - _integer(charged["amount_refunded"])
        amount = objects.amount_of(call.params, "amount") if "amount" in call.params else left
        if not 0 < amount <= left:
            raise StripeError(
                400, "invalid_request_error", "Refund amount is greater than unrefunded amount on charge."
            )
        charged["amount_refunded"] = _integer(charged["amount_refunded"]) + amount
        charged["refunded"] = charged["amount_refunded"] == charged["amount_captured"]
        refund = objects.refund(charged, amount, call.params)
        self._store(refund)
        kinds = {"refund.created": refund, "charge.refunded": charged}
        self._deliver([self._record(kind, subject, call.idempotency_key) for kind, subject in kinds.items()])
        return refund

    def _charge_of(self, params: Mapping[str, str]) -> Document:
        if "charge" in params:
            return self._find(params["charge"])
        intent = self._find(params.get("payment_intent", ""))
        if intent["latest_charge"] is None:
            raise StripeError(
                400, "invalid_request_error", "This PaymentIntent does not have a successful charge."
            )
        return self._find(str(intent["latest_charge"]))

    async def read(self, request: Request) -> Response:
        fault = self._world.take_fault("stripe")
        await hold_before(fault)
        try:
            self._authenticate(request)
            _act_out(fault)
            return JSONResponse(self._find(request.path_params["id"]))
        except StripeError as error:
            return JSONResponse(error.document, status_code=error.status)

    async def list_refunds(self, request: Request) -> Response:
        fault = self._world.take_fault("stripe")
        await hold_before(fault)
        try:
            self._authenticate(request)
            _act_out(fault)
        except StripeError as error:
            return JSONResponse(error.document, status_code=error.status)
        of = request.query_params.get("payment_intent")
        refunds = [o for o in self._objects.values() if o["object"] == "refund" and o["payment_intent"] == of]
        return JSONResponse({"object": "list", "data": refunds, "has_more": False})

    async def pay(self, request: Request) -> Response:
        payment = Payment.model_validate_json(await request.body() or b"{}")
        try:
            subject = self._find(request.path_params["id"])
            intent, events = self._tell(subject) if payment.lie else self._pay(subject, payment)
        except StripeError as error:
            return JSONResponse(error.document, status_code=error.status)
        return JSONResponse({"payment_intent": intent["id"], "events": [event["id"] for event in events]})

    async def checkout_page(self, request: Request) -> Response:
        session = self._objects.get(request.path_params["id"])
        if session is None:
            return HTMLResponse("<h1>No such checkout</h1>", status_code=404)
        if request.method == "POST" and session["status"] == "open":
            self._pay(session, Payment())
        if session["status"] == "open":
            return HTMLResponse(
                f"<title>Fictitious checkout</title><h1>{session['amount_total']} {session['currency']}"
                " (minor units)</h1><form method=post><button>Pay</button></form>"
            )
        return HTMLResponse("<title>Paid</title><h1>Paid</h1>")

    def _pay(self, subject: Document, payment: Payment) -> tuple[Document, list[Document]]:
        if subject["object"] != "checkout.session":
            return subject, self._settle(subject, payment)
        intent = self._intent_of_session(subject)
        extra = []
        if payment.outcome == "succeeded":
            subject.update(status="complete", payment_status="paid")
            extra = [self._record("checkout.session.completed", subject, None)]
        return intent, self._settle(intent, payment, extra)

    def _tell(self, intent: Document) -> tuple[Document, list[Document]]:
        paid = intent | {"status": "succeeded", "amount_received": intent["amount"]}
        events = [self._record("payment_intent.succeeded", paid, None)]
        self._deliver(events)
        return intent, events

    def _intent_of_session(self, session: Document) -> Document:
        if session["payment_intent"] is not None:
            return self._find(str(session["payment_intent"]))
        params = {"amount": str(session["amount_total"]), "currency": str(session["currency"])}
        intent = objects.payment_intent(params)
        intent["metadata"] = session["metadata"]
        session["payment_intent"] = intent["id"]
        self._add_intent(intent, None)
        return intent

    def _settle(
        self, intent: Document, payment: Payment, extra: list[Document] | None = None
    ) -> list[Document]:
        if intent.get("status") != "requires_payment_method":
            raise StripeError(400, "invalid_request_error", "This object can't be paid in its state.")
        paid = payment.outcome == "succeeded"
        charged = objects.charge(intent, paid=paid)
        self._store(charged)
        _apply_charge(intent, charged, paid=paid)
        kinds = (
            ("charge.succeeded", "payment_intent.succeeded")
            if paid
            else (
                "charge.failed",
                "payment_intent.payment_failed",
            )
        )
        subjects = (charged, intent)
        events = [self._record(kind, subject, None) for kind, subject in zip(kinds, subjects, strict=True)]
        events += extra or []
        if payment.reorder:
            events = [*reversed(events), self._created[str(intent["id"])]]
        self._deliver([event for event in events for _ in range(payment.deliveries)])
        return events

    def _store(self, document: Document) -> None:
        self._objects[str(document["id"])] = document

    def _find(self, identifier: str) -> Document:
        document = self._objects.get(identifier)
        if document is None:
            raise StripeError(
                404,
                "invalid_request_error",
                f"No such object: '{identifier}'",
                code="resource_missing",
                param="id",
            )
        return document

    def _record(self, kind: str, subject: Document, key: str | None) -> Document:
        event = objects.event(kind, subject, key)
        self.events.append(event)
        return event

    def _deliver(self, events: list[Document]) -> None:
        settings = self._world.settings
        self._world.callbacks.send_series(
            [
                Callback(
                    vendor="stripe",
                    name=f"{event['type']} {event['id']}",
                    url=settings.stripe_webhook,
                    prepare=partial(objects.signed, event, settings.stripe_webhook_secret),
                )
                for event in self._world.disturb(events)
            ]
        )

    async def list_events(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse({"items": self.events})


def _apply_charge(intent: Document, charged: Document, *, paid: bool) -> None:
    intent["latest_charge"] = charged["id"]
    if paid:
        intent.update(status="succeeded", amount_received=intent["amount"], payment_method="pm_" + "0" * 24)
    else:
        intent["last_payment_error"] = {"code": "card_declined", "type": "card_error"}


def _act_out(fault: Fault | None) -> None:
    if fault is not None and (fault.status or fault.code):
        status = fault.status or 402
        kind = "rate_limit_error" if status == 429 else "api_error"  # noqa: PLR2004
        raise StripeError(status, kind, "The request could not be completed.", code=fault.code or kind)


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value
