"""Stripe's protocol: signatures and events of its webhooks, and the few calls that billing makes.

https://docs.stripe.com/api and https://docs.stripe.com/webhooks.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from pydantic import BaseModel, Field, ValidationError

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

NAME = "stripe"
TOLERANCE = timedelta(seconds=300)
API_VERSION = "2024-06-20"
_MAX_SIGNATURE_HEADER = 2048
_MOST_REFUNDS = "100"

_CLAIMS = {
    "payment_intent.succeeded": Claim.PAID,
    "payment_intent.payment_failed": Claim.OTHER,
    "payment_intent.canceled": Claim.OTHER,
    "charge.refunded": Claim.REFUNDED,
    "refund.created": Claim.OTHER,
    "refund.updated": Claim.OTHER,
    "refund.failed": Claim.OTHER,
    "charge.refund.updated": Claim.OTHER,
    "charge.dispute.created": Claim.DISPUTED,
}
_PAYMENT_STATES = {"succeeded": PaymentState.SUCCEEDED, "canceled": PaymentState.CANCELLED}
_REFUND_STATES = {
    "succeeded": RefundState.SUCCEEDED,
    "failed": RefundState.FAILED,
    "canceled": RefundState.FAILED,
}


def verify_signature(header: str, body: bytes, *, secrets: Sequence[str], now: datetime) -> None:
    """Check a Stripe-Signature header over the raw body. Raises SignatureError.

    Several `v1` come while a secret is being replaced; other schemes are ignored.
    """
    timestamp, signatures = _parse_signature(header)
    if abs(now.timestamp() - timestamp) > TOLERANCE.total_seconds():
        raise SignatureError("The timestamp is too far from now.")
    signed = f"{timestamp}.".encode() + body
    expected = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    # All pairs are compared, each in constant time.
    matches = [hmac.compare_digest(e.encode(), s) for e in expected for s in signatures]
    if not any(matches):
        raise SignatureError("No signature fits the body.")


def _parse_signature(header: str) -> tuple[int, list[bytes]]:
    parts = [part.partition("=") for part in header[:_MAX_SIGNATURE_HEADER].split(",")]
    times = [value for name, _, value in parts if name.strip() == "t"]
    signatures = [value.strip().encode() for name, _, value in parts if name.strip() == "v1"]
    # At most 12 digits: more would not be a time, and could be too large for a float.
    if len(times) != 1 or not (times[0].isascii() and times[0].isdecimal() and len(times[0]) <= 12):  # noqa: PLR2004
        raise SignatureError("The header has no single timestamp.")
    return int(times[0]), signatures


class EventObject(BaseModel):
    """An intent names itself, a charge or a refund its intent."""

    id: str = Field(min_length=1, max_length=200)
    object: str = ""
    payment_intent: str | None = None


class EventData(BaseModel):
    object: dict[str, Any]


class Event(BaseModel):
    """The envelope of every webhook. `data.object` is the object as it was when the event happened."""

    id: str = Field(min_length=1, max_length=255)
    type: str = Field(min_length=1, max_length=255)
    data: EventData


class PaymentError(BaseModel):
    code: str | None = None


class PaymentIntent(BaseModel):
    id: str = Field(min_length=1, max_length=200)
    status: str
    amount_received: int = 0
    currency: str
    client_secret: str | None = Field(default=None, repr=False)
    metadata: dict[str, str] = {}
    last_payment_error: PaymentError | None = None


class RefundObject(BaseModel):
    id: str = Field(min_length=1, max_length=200)
    status: str | None = None
    amount: int
    currency: str
    metadata: dict[str, str] = {}
    failure_reason: str | None = None

    def at_provider(self) -> RefundAtProvider:
        state = _REFUND_STATES.get(self.status or "", RefundState.PENDING)
        failed = state is RefundState.FAILED
        return RefundAtProvider(
            reference=self.id,
            state=state,
            amount_minor=self.amount,
            currency=self.currency.upper(),
            refund_id=own_id(self.metadata, "refund_id"),
            failure_code=(self.failure_reason or self.status) if failed else None,
        )


class RefundList(BaseModel):
    data: list[RefundObject]
    has_more: bool = False


class Stripe:
    """Calls that change something carry an idempotency key, which Stripe remembers for 24 hours."""

    name = NAME

    def __init__(self, http: httpx.AsyncClient, *, webhook_secrets: Sequence[str]) -> None:
        self._http = http
        self._webhook_secrets = webhook_secrets

    @classmethod
    def connect(cls, *, base_url: str, secret_key: str, webhook_secrets: Sequence[str]) -> "Stripe":
        http = httpx.AsyncClient(
            base_url=base_url, headers={"Stripe-Version": API_VERSION}, timeout=TIMEOUT_SECONDS
        )
        stripe = cls(http, webhook_secrets=webhook_secrets)
        stripe.use(secret_key=secret_key, webhook_secrets=webhook_secrets)
        return stripe

    def use(self, *, secret_key: str, webhook_secrets: Sequence[str]) -> None:
        """Authenticate the next calls and notifications with other secrets."""
        self._http.headers["Authorization"] = f"Bearer {secret_key}"
        self._webhook_secrets = webhook_secrets

    async def aclose(self) -> None:
        await self._http.aclose()

    def authenticate(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> dict[str, str]:
        header = headers.get("stripe-signature", "")
        verify_signature(header, body, secrets=self._webhook_secrets, now=now)
        return {}

    def read_notice(self, body: bytes, attributes: Mapping[str, str]) -> Notice:  # noqa: ARG002  # the port's
        try:
            event = Event.model_validate_json(body)
            claim = _CLAIMS.get(event.type)
            if claim is None or claim is Claim.DISPUTED:
                return Notice(event_id=event.id, event_type=event.type, claim=claim or Claim.OTHER)
            subject = EventObject.model_validate(event.data.object)
        except ValidationError:
            raise UnreadableEventError from None
        is_intent = event.type.startswith("payment_intent.")
        return Notice(
            event_id=event.id,
            event_type=event.type,
            claim=claim,
            payment_reference=subject.id if is_intent else subject.payment_intent,
        )

    async def start_payment(self, asked: AskedPayment, *, key: UUID) -> StartedPayment:
        form = {
            "amount": str(asked.amount_minor),
            "currency": asked.currency.lower(),
            "metadata[payment_id]": str(asked.payment_id),
            "metadata[invoice_id]": str(asked.invoice_id),
        }
        intent = PaymentIntent.model_validate(await self._post("/v1/payment_intents", form, key))
        return StartedPayment(reference=intent.id, client_secret=intent.client_secret)

    async def cancel_payment(self, reference: str, *, key: UUID) -> None:
        await self._post(f"/v1/payment_intents/{reference}/cancel", {}, key)

    async def refund(self, asked: AskedRefund, *, key: UUID) -> RefundAtProvider:
        form = {
            "payment_intent": asked.payment_reference,
            "amount": str(asked.amount_minor),
            "metadata[refund_id]": str(asked.refund_id),
        }
        return RefundObject.model_validate(await self._post("/v1/refunds", form, key)).at_provider()

    async def read_payment(self, reference: str) -> PaymentAtProvider:
        intent = PaymentIntent.model_validate(await self._get(f"/v1/payment_intents/{reference}"))
        query = {"payment_intent": reference, "limit": _MOST_REFUNDS}
        refunds = RefundList.model_validate(await self._get("/v1/refunds", query))
        if refunds.has_more:
            raise ProviderUnavailableError("more refunds than one page")
        return PaymentAtProvider(
            reference=intent.id,
            state=_PAYMENT_STATES.get(intent.status, PaymentState.PENDING),
            amount_minor=intent.amount_received,
            currency=intent.currency.upper(),
            payment_id=own_id(intent.metadata, "payment_id"),
            failure_code=intent.last_payment_error.code if intent.last_payment_error else None,
            refunds=tuple(refund.at_provider() for refund in refunds.data),
        )

    async def _post(self, path: str, form: dict[str, str], key: UUID) -> Any:
        headers = {"Idempotency-Key": str(key)}
        return await ask(self._http, "POST", path, data=form, headers=headers, refusal_code=_refusal_code)

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return await ask(self._http, "GET", path, params=query, refusal_code=_refusal_code)


def _refusal_code(document: Any) -> object:
    problem = document.get("error")
    return problem.get("code") or problem.get("type") if isinstance(problem, dict) else None
