"""Stripe's objects in the shape of API version 2024-06-20, and the signature of its webhooks."""

import hashlib
import hmac
import json
import time
from collections.abc import Mapping

from clinic_local.fakes.callbacks import SignedRequest
from clinic_local.fakes.world import token

API_VERSION = "2024-06-20"
Document = dict[str, object]


class StripeError(Exception):
    def __init__(self, status: int, kind: str, message: str, **members: str) -> None:
        super().__init__(message)
        self.status = status
        self.document = {"error": {"type": kind, "message": message, **members}}


def payment_intent(params: Mapping[str, str]) -> Document:
    identifier = "pi_" + token()
    return {
        "id": identifier,
        "object": "payment_intent",
        "amount": amount_of(params, "amount"),
        "amount_capturable": 0,
        "amount_received": 0,
        "canceled_at": None,
        "capture_method": "automatic",
        "client_secret": f"{identifier}_secret_{token()}",
        "created": int(time.time()),
        "currency": currency_of(params, "currency"),
        "customer": None,
        "description": params.get("description"),
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": metadata_of(params),
        "payment_method": None,
        "payment_method_types": ["card"],
        "receipt_email": params.get("receipt_email"),
        "status": "requires_payment_method",
    }


def charge(intent: Mapping[str, object], *, paid: bool) -> Document:
    return {
        "id": "ch_" + token(),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"] if paid else 0,
        "amount_refunded": 0,
        "balance_transaction": "txn_" + token() if paid else None,
        "captured": paid,
        "created": int(time.time()),
        "currency": intent["currency"],
        "failure_code": None if paid else "card_declined",
        "failure_message": None if paid else "Your card was declined.",
        "livemode": False,
        "metadata": intent["metadata"],
        "paid": paid,
        "payment_intent": intent["id"],
        "payment_method_details": {"card": {"brand": "visa", "last4": "4242"}, "type": "card"},
        "refunded": False,
        "status": "succeeded" if paid else "failed",
    }


def refund(charged: Mapping[str, object], amount: int, params: Mapping[str, str]) -> Document:
    return {
        "id": "re_" + token(),
        "object": "refund",
        "amount": amount,
        "charge": charged["id"],
        "created": int(time.time()),
        "currency": charged["currency"],
        "metadata": metadata_of(params),
        "payment_intent": charged["payment_intent"],
        "reason": params.get("reason"),
        "status": "succeeded",
    }


def checkout_session(params: Mapping[str, str], base_url: str) -> Document:
    identifier = "cs_test_" + token()
    price = "line_items[0][price_data]"
    total = amount_of(params, f"{price}[unit_amount]") * int(params.get("line_items[0][quantity]", "1"))
    return {
        "id": identifier,
        "object": "checkout.session",
        "amount_subtotal": total,
        "amount_total": total,
        "client_reference_id": params.get("client_reference_id"),
        "created": int(time.time()),
        "currency": currency_of(params, f"{price}[currency]"),
        "livemode": False,
        "metadata": metadata_of(params),
        "mode": params.get("mode", "payment"),
        "payment_intent": None,
        "payment_status": "unpaid",
        "status": "open",
        "success_url": params.get("success_url"),
        "url": f"{base_url}checkout/{identifier}",
    }


def event(kind: str, subject: Mapping[str, object], idempotency_key: str | None) -> Document:
    """Return an event with a snapshot of its object: later changes must not reach into it."""
    return {
        "id": "evt_" + token(),
        "object": "event",
        "api_version": API_VERSION,
        "created": int(time.time()),
        "data": {"object": json.loads(json.dumps(subject))},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": "req_" + token(14), "idempotency_key": idempotency_key},
        "type": kind,
    }


def signed(document: Document, secret: str) -> SignedRequest:
    """Sign as https://docs.stripe.com/webhooks#verify-manually says: `t` is the time of this attempt."""
    body = json.dumps(document, indent=2).encode()
    timestamp = int(time.time())
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "content-type": "application/json; charset=utf-8",
        "stripe-signature": f"t={timestamp},v1={digest}",
        "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
    }
    return SignedRequest(body, headers)


def amount_of(params: Mapping[str, str], name: str) -> int:
    value = params.get(name, "")
    if not value.isdigit() or int(value) == 0:
        raise StripeError(400, "invalid_request_error", f"Invalid positive integer: {name}", param=name)
    return int(value)


def currency_of(params: Mapping[str, str], name: str) -> str:
    value = params.get(name, "")
    if not (len(value) == 3 and value.isalpha()):  # noqa: PLR2004  # ISO 4217
        raise StripeError(400, "invalid_request_error", f"Invalid currency: {name}", param=name)
    return value.lower()


def metadata_of(params: Mapping[str, str], prefix: str = "metadata") -> dict[str, str]:
    start = f"{prefix}["
    return {name[len(start) : -1]: value for name, value in params.items() if name.startswith(start)}
