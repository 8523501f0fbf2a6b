"""Razorpay-shaped payments: orders, the customer's tries to pay them, refunds, signed webhooks.

https://razorpay.com/docs/api. Orders know no idempotency: the same `receipt` twice makes two of them.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clinic_local.fakes.callbacks import Callback, SignedRequest
from clinic_local.fakes.customers import CustomerPayment, Document, VendorError, is_basic, status_of
from clinic_local.fakes.world import Vendor, World, hold_after, hold_before, token

VENDOR: Vendor = "razorpay"
Answer = Callable[[Request, bytes], Document]


class Razorpay:
    def __init__(self, world: World) -> None:
        self._world = world
        self.reset()

    def reset(self) -> None:
        self.orders: dict[str, Document] = {}
        self.payments: dict[str, Document] = {}
        self.refunds: dict[str, Document] = {}

    def routes(self) -> list[Route]:
        return [
            self._route("/v1/orders", self._create_order, "POST"),
            self._route("/v1/orders", self._list_orders),
            self._route("/v1/orders/{id}", self._read_order),
            self._route("/v1/orders/{id}/payments", self._list_payments),
            self._route("/v1/payments/{id}/refund", self._create_refund, "POST"),
            self._route("/v1/payments/{id}/refunds", self._list_refunds),
            Route("/_control/razorpay/{id}/pay", self.pay, methods=["POST"]),
            Route("/_control/razorpay/orders", self.list_all_orders),
        ]

    def _route(self, path: str, answer: Answer, method: str = "GET") -> Route:
        return Route(path, partial(self._answer, answer), methods=[method])

    async def _answer(self, answer: Answer, request: Request) -> Response:
        fault = self._world.take_fault(VENDOR)
        await hold_before(fault)
        body = await request.body()
        settings = self._world.settings
        try:
            if not is_basic(request, settings.razorpay_key_id, settings.razorpay_key_secret):
                raise _error(401, "BAD_REQUEST_ERROR")
            if (status := status_of(fault)) is not None:
                raise _error(status, (fault and fault.code) or "SERVER_ERROR")
            document = answer(request, body)
        except VendorError as error:
            return JSONResponse(error.document, status_code=error.status)
        await hold_after(fault)
        return JSONResponse(document)

    def _create_order(self, _: Request, body: bytes) -> Document:
        asked = json.loads(body)
        order: Document = {
            "id": f"order_{token(14)}",
            "entity": "order",
            "amount": _integer(asked.get("amount")),
            "amount_paid": 0,
            "currency": asked.get("currency"),
            "receipt": asked.get("receipt"),
            "status": "created",
            "attempts": 0,
            "notes": asked.get("notes") or [],
            "created_at": int(time.time()),
        }
        self.orders[str(order["id"])] = order
        return order

    def _list_orders(self, request: Request, _: bytes) -> Document:
        receipt = request.query_params.get("receipt")
        return _collection([order for order in self.orders.values() if order["receipt"] == receipt])

    def _read_order(self, request: Request, _: bytes) -> Document:
        return _find(self.orders, request.path_params["id"])

    def _list_payments(self, request: Request, _: bytes) -> Document:
        order = _find(self.orders, request.path_params["id"])
        return _collection([p for p in self.payments.values() if p["order_id"] == order["id"]])

    def _create_refund(self, request: Request, body: bytes) -> Document:
        payment, asked = _find(self.payments, request.path_params["id"]), json.loads(body or b"{}")
        left = _integer(payment["amount"]) - _integer(payment["amount_refunded"])
        amount = _integer(asked.get("amount", left))
        if payment["status"] != "captured" or not 0 < amount <= left:
            raise _error(400, "BAD_REQUEST_ERROR")
        payment["amount_refunded"] = _integer(payment["amount_refunded"]) + amount
        if amount == left:
            payment["status"] = "refunded"
        refund: Document = {
            "id": f"rfnd_{token(14)}",
            "entity": "refund",
            "amount": amount,
            "currency": payment["currency"],
            "payment_id": payment["id"],
            "notes": asked.get("notes") or [],
            "receipt": asked.get("receipt"),
            "status": "processed",
            "created_at": int(time.time()),
        }
        self.refunds[str(refund["id"])] = refund
        self._notify("refund.processed", {"refund": refund, "payment": payment}, times=1)
        return refund

    def _list_refunds(self, request: Request, _: bytes) -> Document:
        mine = request.path_params["id"]
        return _collection([refund for refund in self.refunds.values() if refund["payment_id"] == mine])

    async def pay(self, request: Request) -> Response:
        customer = CustomerPayment.model_validate_json(await request.body() or b"{}")
        try:
            order = _find(self.orders, request.path_params["id"])
            if order["status"] == "paid":
                raise _error(400, "BAD_REQUEST_ERROR")
        except VendorError as error:
            return JSONResponse(error.document, status_code=error.status)
        payment = _payment(order, captured=customer.outcome == "succeeded")
        if not customer.lie:
            self.payments[str(payment["id"])] = payment
            if payment["captured"]:
                order.update(status="paid", amount_paid=order["amount"])
        self._notify(f"payment.{payment['status']}", {"payment": payment}, times=customer.deliveries)
        return JSONResponse({"payment_id": payment["id"]})

    async def list_all_orders(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse(_collection(list(self.orders.values())))

    def _notify(self, event: str, entities: dict[str, Document], *, times: int) -> None:
        document = {
            "entity": "event",
            "account_id": "acc_fictitious",
            "event": event,
            "contains": list(entities),
            "payload": {name: {"entity": entity} for name, entity in entities.items()},
            "created_at": int(time.time()),
        }
        settings, body = self._world.settings, json.dumps(document).encode()
        headers = {
            "content-type": "application/json",
            "x-razorpay-event-id": token(14),
            "x-razorpay-signature": hmac.new(
                settings.razorpay_webhook_secret.encode(), body, hashlib.sha256
            ).hexdigest(),
        }
        callback = Callback(
            vendor=VENDOR,
            name=event,
            url=settings.razorpay_webhook,
            prepare=partial(SignedRequest, body, headers),
        )
        self._world.callbacks.send_series(self._world.disturb([callback] * times))


def _payment(order: Document, *, captured: bool) -> Document:
    return {
        "id": f"pay_{token(14)}",
        "entity": "payment",
        "amount": order["amount"],
        "currency": order["currency"],
        "status": "captured" if captured else "failed",
        "order_id": order["id"],
        "method": "upi",
        "amount_refunded": 0,
        "captured": captured,
        "notes": order["notes"],
        "error_code": None if captured else "BAD_REQUEST_ERROR",
        "created_at": int(time.time()),
    }


def _error(status: int, code: str) -> VendorError:
    return VendorError(status, {"error": {"code": code, "description": "Refused.", "reason": code.lower()}})


def _collection(items: list[Document]) -> Document:
    return {"entity": "collection", "count": len(items), "items": items}


def _find(objects: dict[str, Document], identifier: str) -> Document:
    if identifier not in objects:
        raise _error(404, "NOT_FOUND")
    return objects[identifier]


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise _error(400, "BAD_REQUEST_ERROR")
    return value
