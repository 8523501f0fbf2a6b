"""YooKassa-shaped payments: JSON, `Idempotence-Key` required, notifications without a signature.

https://yookassa.ru/developers/api. A declined card cancels the payment for good, as it does there.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clinic_local.fakes.callbacks import Callback, SignedRequest
from clinic_local.fakes.customers import CustomerPayment, Document, VendorError, is_basic, status_of
from clinic_local.fakes.world import Vendor, World, hold_after, hold_before

VENDOR: Vendor = "yookassa"
Make = Callable[[Document, str], Document]


class YooKassa:
    def __init__(self, world: World) -> None:
        self._world = world
        self.reset()

    def reset(self) -> None:
        self.payments: dict[str, Document] = {}
        self.refunds: dict[str, Document] = {}
        self._answers: dict[str, Document] = {}

    def routes(self) -> list[Route]:
        return [
            self._route("/v3/payments", self._create_payment),
            self._route("/v3/payments/{id}/cancel", self._cancel_payment),
            self._route("/v3/refunds", self._create_refund),
            Route("/v3/payments/{id}", partial(self._answer, self._read_payment)),
            Route("/v3/refunds", partial(self._answer, self._list_refunds)),
            Route("/_control/yookassa/{id}/pay", self.pay, methods=["POST"]),
            Route("/_control/yookassa/payments", self.list_payments),
        ]

    def _route(self, path: str, make: Make) -> Route:
        return Route(path, partial(self._answer, partial(self._once, make)), methods=["POST"])

    async def _answer(self, answer: Callable[[Request, bytes], Document], request: Request) -> Response:
        fault = self._world.take_fault(VENDOR)
        await hold_before(fault)
        body = await request.body()
        settings = self._world.settings
        try:
            if not is_basic(request, settings.yookassa_shop_id, settings.yookassa_secret_key):
                raise _error(401, "invalid_credentials")
            if (status := status_of(fault)) is not None:
                raise _error(status, (fault and fault.code) or "internal_server_error")
            document = answer(request, body)
        except VendorError as error:
            return JSONResponse(error.document, status_code=error.status)
        await hold_after(fault)
        return JSONResponse(document)

    def _once(self, make: Make, request: Request, body: bytes) -> Document:
        key = request.headers.get("idempotence-key")
        if not key:
            raise _error(400, "invalid_request", "Idempotence-Key")
        if key not in self._answers:
            document = json.loads(body or b"{}")
            # A copy: what is answered again is what was answered first.
            self._answers[key] = json.loads(json.dumps(make(document, request.path_params.get("id", ""))))
        return self._answers[key]

    def _create_payment(self, asked: Document, _: str) -> Document:
        identifier = str(uuid4())
        payment: Document = {
            "id": identifier,
            "status": "pending",
            "paid": False,
            "amount": _amount_of(asked),
            "confirmation": {
                "type": "redirect",
                "confirmation_url": f"https://yookassa.example/checkout/{identifier}",
            },
            "created_at": _now(),
            "metadata": asked.get("metadata") or {},
            "refundable": False,
            "test": True,
        }
        self.payments[identifier] = payment
        return payment

    def _cancel_payment(self, _: Document, identifier: str) -> Document:
        payment = self._find(identifier)
        if payment["status"] != "waiting_for_capture":
            raise _error(400, "invalid_request", "status")
        payment["status"] = "canceled"
        return payment

    def _create_refund(self, asked: Document, _: str) -> Document:
        payment = self._find(str(asked.get("payment_id")))
        amount = _amount_of(asked)
        mine = [refund for refund in self.refunds.values() if refund["payment_id"] == payment["id"]]
        left = _value(payment) - sum((_value(refund) for refund in mine), Decimal(0))
        if payment["status"] != "succeeded" or Decimal(str(amount["value"])) > left:
            raise _error(400, "invalid_request", "amount")
        refund: Document = {
            "id": str(uuid4()),
            "payment_id": payment["id"],
            "status": "succeeded",
            "amount": amount,
            "created_at": _now(),
            "metadata": asked.get("metadata") or {},
        }
        self.refunds[str(refund["id"])] = refund
        self._notify("refund.succeeded", refund, times=1)
        return refund

    def _read_payment(self, request: Request, _: bytes) -> Document:
        return self._find(request.path_params["id"])

    def _list_refunds(self, request: Request, _: bytes) -> Document:
        of = request.query_params.get("payment_id")
        return {"type": "list", "items": [r for r in self.refunds.values() if r["payment_id"] == of]}

    async def pay(self, request: Request) -> Response:
        customer = CustomerPayment.model_validate_json(await request.body() or b"{}")
        try:
            payment = self._find(request.path_params["id"])
            if payment["status"] != "pending":
                raise _error(400, "invalid_request", "status")
        except VendorError as error:
            return JSONResponse(error.document, status_code=error.status)
        told = dict(payment) if customer.lie else payment
        if customer.outcome == "succeeded":
            told.update(status="succeeded", paid=True, captured_at=_now())
        else:
            details = {"party": "payment_network", "reason": "insufficient_funds"}
            told.update(status="canceled", cancellation_details=details)
        self._notify(f"payment.{told['status']}", told, times=customer.deliveries)
        return JSONResponse({"payment_id": payment["id"]})

    async def list_payments(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse({"items": list(self.payments.values())})

    def _find(self, identifier: str) -> Document:
        if identifier not in self.payments:
            raise _error(404, "not_found")
        return self.payments[identifier]

    def _notify(self, event: str, subject: Document, *, times: int) -> None:
        body = json.dumps({"type": "notification", "event": event, "object": subject}).encode()
        callback = Callback(
            vendor=VENDOR,
            name=f"{event} {subject['id']}",
            url=self._world.settings.yookassa_webhook,
            prepare=partial(SignedRequest, body, {"content-type": "application/json"}),
        )
        self._world.callbacks.send_series(self._world.disturb([callback] * times))


def _error(status: int, code: str, parameter: str | None = None) -> VendorError:
    problem: Document = {"type": "error", "id": str(uuid4()), "code": code, "description": "Refused."}
    return VendorError(status, problem | ({"parameter": parameter} if parameter else {}))


def _amount_of(asked: Document) -> Document:
    amount = asked.get("amount")
    if not isinstance(amount, dict) or not isinstance(amount.get("value"), str):
        raise _error(400, "invalid_request", "amount")
    return {"value": amount["value"], "currency": amount.get("currency")}


def _value(document: Document) -> Decimal:
    amount = document["amount"]
    return Decimal(str(amount["value"])) if isinstance(amount, dict) else Decimal(0)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
