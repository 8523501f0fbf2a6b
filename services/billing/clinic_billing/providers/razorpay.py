"""Razorpay's protocol: an order is what is asked for; the customer's payments of it are tries.

https://razorpay.com/docs/api and https://razorpay.com/docs/webhooks. Orders have no idempotency keys: a
repeated call first looks for what the one before it made.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import httpx
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from clinic_billing.providers.calls import ask
from clinic_billing.providers.port import (
    TIMEOUT_SECONDS,
    AskedPayment,
    AskedRefund,
    Claim,
    Notice,
    PaymentAtProvider,
    PaymentState,
    ProviderRefusedError,
    RefundAtProvider,
    RefundState,
    SignatureError,
    StartedPayment,
    UnreadableEventError,
    own_id,
)

NAME = "razorpay"
_CLAIMS = {
    "payment.captured": Claim.PAID,
    "order.paid": Claim.PAID,
    "payment.failed": Claim.OTHER,
    "refund.created": Claim.OTHER,
    "refund.processed": Claim.REFUNDED,
    "refund.failed": Claim.OTHER,
    "payment.dispute.created": Claim.DISPUTED,
}
_REFUND_STATES = {"processed": RefundState.SUCCEEDED, "failed": RefundState.FAILED}
_ARRIVED = frozenset({"captured", "refunded"})
_MAX_EVENT_ID = 100

Reference = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,50}$")]
# Empty notes come as an empty list.
Notes = Annotated[dict[str, str], BeforeValidator(lambda notes: notes or {})]


class OrderObject(BaseModel):
    id: Reference
    amount: int
    currency: str
    receipt: str | None = None
    notes: Notes = {}


class PaymentObject(BaseModel):
    id: Reference
    order_id: Reference | None = None
    status: str
    amount: int
    currency: str
    error_code: str | None = None


class RefundObject(BaseModel):
    id: Reference
    status: str
    amount: int
    currency: str
    notes: Notes = {}

    def at_provider(self) -> RefundAtProvider:
        state = _REFUND_STATES.get(self.status, RefundState.PENDING)
        return RefundAtProvider(
            reference=self.id,
            state=state,
            amount_minor=self.amount,
            currency=self.currency,
            refund_id=own_id(self.notes, "refund_id"),
            failure_code="failed" if state is RefundState.FAILED else None,
        )


class Orders(BaseModel):
    items: list[OrderObject]


class Payments(BaseModel):
    items: list[PaymentObject]


class Refunds(BaseModel):
    items: list[RefundObject]


class NamedOrder(BaseModel):
    """A payment names its order, an order itself."""

    id: Reference
    order_id: Reference | None = None


class Entity(BaseModel):
    entity: NamedOrder


class Payload(BaseModel):
    payment: Entity | None = None
    order: Entity | None = None

    @property
    def order_id(self) -> str | None:
        if self.order is not None:
            return self.order.entity.id
        return self.payment.entity.order_id if self.payment is not None else None


class Event(BaseModel):
    event: str = Field(min_length=1, max_length=100)
    payload: Payload


class Razorpay:
    """`provider_reference` of our payments is the order's id."""

    name = NAME

    def __init__(self, http: httpx.AsyncClient, *, webhook_secrets: Sequence[str]) -> None:
        self._http = http
        self._webhook_secrets = webhook_secrets

    @classmethod
    def connect(
        cls, *, base_url: str, key_id: str, key_secret: str, webhook_secrets: Sequence[str]
    ) -> "Razorpay":
        http = httpx.AsyncClient(base_url=base_url, timeout=TIMEOUT_SECONDS)
        razorpay = cls(http, webhook_secrets=webhook_secrets)
        razorpay.use(key_id=key_id, key_secret=key_secret, webhook_secrets=webhook_secrets)
        return razorpay

    def use(self, *, key_id: str, key_secret: str, webhook_secrets: Sequence[str]) -> None:
        self._http.auth = httpx.BasicAuth(key_id, key_secret)
        self._webhook_secrets = webhook_secrets

    async def aclose(self) -> None:
        await self._http.aclose()

    def authenticate(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> dict[str, str]:  # noqa: ARG002  # the signature has no time
        given = headers.get("x-razorpay-signature", "").encode()
        expected = [hmac.new(s.encode(), body, hashlib.sha256).hexdigest() for s in self._webhook_secrets]
        matches = [hmac.compare_digest(e.encode(), given) for e in expected]
        if not any(matches):
            raise SignatureError("No signature fits the body.")
        event_id = headers.get("x-razorpay-event-id", "")[:_MAX_EVENT_ID]
        # Not part of what is signed. Whoever replays a body under another id gets another reading, no more.
        return {"event_id": event_id} if event_id else {}

    def read_notice(self, body: bytes, attributes: Mapping[str, str]) -> Notice:
        try:
            event = Event.model_validate_json(body)
        except ValidationError:
            raise UnreadableEventError from None
        claim = _CLAIMS.get(event.event)
        return Notice(
            event_id=attributes.get("event_id") or hashlib.sha256(body).hexdigest(),
            event_type=event.event,
            claim=claim or Claim.OTHER,
            payment_reference=None if claim is None else event.payload.order_id,
        )

    async def start_payment(self, asked: AskedPayment, *, key: UUID) -> StartedPayment:
        made = await self._get("/v1/orders", {"receipt": str(key)})
        for order in Orders.model_validate(made).items:
            return StartedPayment(reference=order.id)
        body = {
            "amount": asked.amount_minor,
            "currency": asked.currency,
            "receipt": str(key),
            "notes": {"payment_id": str(asked.payment_id), "invoice_id": str(asked.invoice_id)},
        }
        order = OrderObject.model_validate(await self._post("/v1/orders", body))
        return StartedPayment(reference=order.id)

    async def cancel_payment(self, reference: str, *, key: UUID) -> None:  # noqa: ARG002  # the port's
        """An order can't be cancelled at Razorpay."""
        raise ProviderRefusedError("orders-are-not-cancelled")

    async def refund(self, asked: AskedRefund, *, key: UUID) -> RefundAtProvider:
        paid = await self._arrived(asked.payment_reference)
        if not paid:
            raise ProviderRefusedError("not-captured")
        for known in await self._refunds(paid[0].id):
            if known.refund_id == asked.refund_id:
                return known
        body = {
            "amount": asked.amount_minor,
            "notes": {"refund_id": str(asked.refund_id)},
            "receipt": str(key),
        }
        answer = await self._post(
            f"/v1/payments/{paid[0].id}/refund", body, {"X-Refund-Idempotency": str(key)}
        )
        return RefundObject.model_validate(answer).at_provider()

    async def read_payment(self, reference: str) -> PaymentAtProvider:
        order = OrderObject.model_validate(await self._get(f"/v1/orders/{reference}"))
        tries = await self._tries(reference)
        paid = [payment for payment in tries if payment.status in _ARRIVED]
        failed = [payment.error_code for payment in tries if payment.status == "failed"]
        return PaymentAtProvider(
            reference=order.id,
            state=PaymentState.SUCCEEDED if paid else PaymentState.PENDING,
            amount_minor=sum(payment.amount for payment in paid),
            currency=order.currency,
            payment_id=own_id(order.notes, "payment_id"),
            failure_code=failed[-1] if failed and not paid else None,
            refunds=tuple([refund for payment in paid for refund in await self._refunds(payment.id)]),
        )

    async def _arrived(self, order_id: str) -> list[PaymentObject]:
        return [payment for payment in await self._tries(order_id) if payment.status in _ARRIVED]

    async def _tries(self, order_id: str) -> list[PaymentObject]:
        return Payments.model_validate(await self._get(f"/v1/orders/{order_id}/payments")).items

    async def _refunds(self, payment_id: str) -> list[RefundAtProvider]:
        found = await self._get(f"/v1/payments/{payment_id}/refunds", {"count": "100"})
        return [refund.at_provider() for refund in Refunds.model_validate(found).items]

    async def _post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> Any:
        return await ask(self._http, "POST", path, json=body, headers=headers, refusal_code=_refusal_code)

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return await ask(self._http, "GET", path, params=query, refusal_code=_refusal_code)


def _refusal_code(document: Any) -> object:
    problem = document.get("error")
    return problem.get("reason") or problem.get("code") if isinstance(problem, dict) else None
