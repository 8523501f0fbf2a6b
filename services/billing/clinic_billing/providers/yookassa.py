"""YooKassa's protocol. Its notifications bear no signature: only reading the payment again makes them true.

https://yookassa.ru/developers/api and https://yookassa.ru/developers/using-api/webhooks.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import httpx
from pydantic import BaseModel, Field, ValidationError

from clinic_billing.amounts import to_minor, to_text
from clinic_billing.providers.calls import ask
from clinic_billing.providers.port import (
    TIMEOUT_SECONDS,
    AskedPayment,
    AskedRefund,
    Claim,
    Notice,
    PaymentAtProvider,
    PaymentState,
    ProviderUnavailableError,
    RefundAtProvider,
    RefundState,
    SignatureError,
    StartedPayment,
    UnreadableEventError,
    own_id,
)

NAME = "yookassa"
_MOST_REFUNDS = "100"
_CLAIMS = {
    "payment.succeeded": Claim.PAID,
    "payment.canceled": Claim.OTHER,
    "refund.succeeded": Claim.REFUNDED,
}
_PAYMENT_STATES = {"succeeded": PaymentState.SUCCEEDED, "canceled": PaymentState.FAILED}
_REFUND_STATES = {"succeeded": RefundState.SUCCEEDED, "canceled": RefundState.FAILED}
# cancellation_details.reason of what nobody tried to pay.
_GIVEN_UP = frozenset({"canceled_by_merchant", "expired_on_confirmation", "expired_on_capture"})

# Ids become parts of paths: a notification is anybody's until its payment has been read.
Reference = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,50}$")]


class NotificationObject(BaseModel):
    id: Reference
    payment_id: Reference | None = None


class Notification(BaseModel):
    type: str = Field(pattern="^notification$")
    event: str = Field(min_length=1, max_length=100)
    object: NotificationObject


class Amount(BaseModel):
    value: str
    currency: str

    def minor(self) -> int:
        return to_minor(self.value, self.currency)


class Cancellation(BaseModel):
    reason: str


class Confirmation(BaseModel):
    confirmation_url: str | None = None


class PaymentObject(BaseModel):
    id: Reference
    status: str
    amount: Amount
    metadata: dict[str, str] = {}
    confirmation: Confirmation | None = None
    cancellation_details: Cancellation | None = None

    @property
    def failure_code(self) -> str | None:
        return self.cancellation_details.reason if self.cancellation_details else None

    @property
    def state(self) -> PaymentState:
        if self.status == "canceled" and self.failure_code in _GIVEN_UP:
            return PaymentState.CANCELLED
        return _PAYMENT_STATES.get(self.status, PaymentState.PENDING)


class RefundObject(BaseModel):
    id: Reference
    status: str
    amount: Amount
    metadata: dict[str, str] = {}
    cancellation_details: Cancellation | None = None

    def at_provider(self) -> RefundAtProvider:
        return RefundAtProvider(
            reference=self.id,
            state=_REFUND_STATES.get(self.status, RefundState.PENDING),
            amount_minor=self.amount.minor(),
            currency=self.amount.currency,
            refund_id=own_id(self.metadata, "refund_id"),
            failure_code=self.cancellation_details.reason if self.cancellation_details else None,
        )


class RefundList(BaseModel):
    items: list[RefundObject]
    next_cursor: str | None = None


class YooKassa:
    """Every POST carries an `Idempotence-Key`, which YooKassa remembers for 24 hours."""

    name = NAME

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    @classmethod
    def connect(cls, *, base_url: str, shop_id: str, secret_key: str) -> "YooKassa":
        yookassa = cls(httpx.AsyncClient(base_url=base_url, timeout=TIMEOUT_SECONDS))
        yookassa.use(shop_id=shop_id, secret_key=secret_key)
        return yookassa

    def use(self, *, shop_id: str, secret_key: str) -> None:
        self._http.auth = httpx.BasicAuth(shop_id, secret_key)

    async def aclose(self) -> None:
        await self._http.aclose()

    def authenticate(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> dict[str, str]:  # noqa: ARG002  # the port's
        """Take only what has the shape of a notification: there is nothing else to know it by."""
        try:
            Notification.model_validate_json(body)
        except ValidationError:
            raise SignatureError("This isn't a notification of YooKassa.") from None
        return {}

    def read_notice(self, body: bytes, attributes: Mapping[str, str]) -> Notice:  # noqa: ARG002  # the port's
        try:
            told = Notification.model_validate_json(body)
        except ValidationError:
            raise UnreadableEventError from None
        claim = _CLAIMS.get(told.event)
        subject = told.object
        reference = subject.payment_id if told.event.startswith("refund.") else subject.id
        return Notice(
            # There are no ids of events: what happened to which object is the same fact each time.
            event_id=f"{told.event}:{subject.id}",
            event_type=told.event,
            claim=claim or Claim.OTHER,
            payment_reference=None if claim is None else reference,
        )

    async def start_payment(self, asked: AskedPayment, *, key: UUID) -> StartedPayment:
        body = {
            "amount": _amount(asked.amount_minor, asked.currency),
            "capture": True,
            "confirmation": {"type": "redirect", "return_url": asked.return_url},
            "metadata": {"payment_id": str(asked.payment_id), "invoice_id": str(asked.invoice_id)},
        }
        made = PaymentObject.model_validate(await self._post("/v3/payments", body, key))
        url = made.confirmation.confirmation_url if made.confirmation else None
        return StartedPayment(reference=made.id, confirmation_url=url)

    async def cancel_payment(self, reference: str, *, key: UUID) -> None:
        await self._post(f"/v3/payments/{reference}/cancel", {}, key)

    async def refund(self, asked: AskedRefund, *, key: UUID) -> RefundAtProvider:
        body = {
            "payment_id": asked.payment_reference,
            "amount": _amount(asked.amount_minor, asked.currency),
            "metadata": {"refund_id": str(asked.refund_id)},
        }
        return RefundObject.model_validate(await self._post("/v3/refunds", body, key)).at_provider()

    async def read_payment(self, reference: str) -> PaymentAtProvider:
        payment = PaymentObject.model_validate(await self._get(f"/v3/payments/{reference}"))
        query = {"payment_id": reference, "limit": _MOST_REFUNDS}
        refunds = RefundList.model_validate(await self._get("/v3/refunds", query))
        if refunds.next_cursor is not None:
            raise ProviderUnavailableError("more refunds than one page")
        return PaymentAtProvider(
            reference=payment.id,
            state=payment.state,
            amount_minor=payment.amount.minor(),
            currency=payment.amount.currency,
            payment_id=own_id(payment.metadata, "payment_id"),
            failure_code=payment.failure_code,
            refunds=tuple(refund.at_provider() for refund in refunds.items),
        )

    async def _post(self, path: str, body: Mapping[str, Any], key: UUID) -> Any:
        headers = {"Idempotence-Key": str(key)}
        return await ask(self._http, "POST", path, json=body, headers=headers, refusal_code=_refusal_code)

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return await ask(self._http, "GET", path, params=query, refusal_code=_refusal_code)


def _amount(amount_minor: int, currency: str) -> dict[str, str]:
    return {"value": to_text(amount_minor, currency), "currency": currency}


def _refusal_code(document: Any) -> object:
    return document.get("code")
