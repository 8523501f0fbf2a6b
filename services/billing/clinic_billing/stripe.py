"""Stripe's protocol: signatures and events of its webhooks, and the few calls that billing makes.

https://docs.stripe.com/api and https://docs.stripe.com/webhooks. Nothing of it is known elsewhere.
"""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from clinic_shared.errors import DomainError
from pydantic import BaseModel, Field, ValidationError

TOLERANCE = timedelta(seconds=300)
API_VERSION = "2024-06-20"
TIMEOUT_SECONDS = 10.0
_MAX_SIGNATURE_HEADER = 2048


class SignatureError(DomainError):
    """The Stripe-Signature header is missing, of another secret or body, or older than five minutes."""

    slug = "signature-invalid"
    title = "The notification's signature is not valid"
    status = 400
    fix = "Check the endpoint's signing secret and the clocks on both sides."


class UnreadableEventError(DomainError):
    """Signed by the provider, but not in the shape of its events."""

    slug = "unreadable-notification"
    title = "The notification can't be read"
    fix = "Set the provider's endpoint to a supported API version and have the event sent again."


class ProviderRefusedError(Exception):
    """The provider says no and will say so again. `code` is one of its own."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class ProviderUnavailableError(Exception):
    """No answer, or one that may be another next time. The call may have taken effect."""


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
    payment_intent: str | None = None
    metadata: dict[str, str] = {}
    failure_reason: str | None = None


class RefundList(BaseModel):
    data: list[RefundObject] = []


class Charge(BaseModel):
    """`refunds` is there in older API versions only; then it names every refund of the charge."""

    id: str
    amount_refunded: int
    payment_intent: str | None = None
    metadata: dict[str, str] = {}
    refunds: RefundList | None = None


def read_event(body: bytes) -> Event:
    """Raises UnreadableEventError, which tells nothing of the content."""
    try:
        return Event.model_validate_json(body)
    except ValidationError:
        raise UnreadableEventError from None


def iso_currency(stripe_currency: str) -> str:
    """Stripe writes ISO 4217 codes in lower case."""
    return stripe_currency.upper()


def own_id(metadata: dict[str, str], name: str) -> UUID | None:
    """Return an id that we put into an object's metadata."""
    try:
        return UUID(metadata[name])
    except (KeyError, ValueError):
        return None


class StripeClient:
    """Calls that change something carry an idempotency key: repeated, they answer what they did first."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    @classmethod
    def connect(cls, *, base_url: str, secret_key: str) -> "StripeClient":
        headers = {"Authorization": f"Bearer {secret_key}", "Stripe-Version": API_VERSION}
        return cls(httpx.AsyncClient(base_url=base_url, headers=headers, timeout=TIMEOUT_SECONDS))

    def use(self, secret_key: str) -> None:
        """Authenticate the next calls with another key."""
        self._http.headers["Authorization"] = f"Bearer {secret_key}"

    async def aclose(self) -> None:
        await self._http.aclose()

    async def create_intent(
        self, *, payment_id: UUID, invoice_id: UUID, amount_minor: int, currency: str, key: UUID
    ) -> PaymentIntent:
        form = {
            "amount": str(amount_minor),
            "currency": currency.lower(),
            "metadata[payment_id]": str(payment_id),
            "metadata[invoice_id]": str(invoice_id),
        }
        return PaymentIntent.model_validate(await self._post("/v1/payment_intents", form, key))

    async def cancel_intent(self, reference: str, *, key: UUID) -> PaymentIntent:
        answer = await self._post(f"/v1/payment_intents/{reference}/cancel", {}, key)
        return PaymentIntent.model_validate(answer)

    async def create_refund(
        self, *, reference: str, refund_id: UUID, amount_minor: int, key: UUID
    ) -> RefundObject:
        form = {
            "payment_intent": reference,
            "amount": str(amount_minor),
            "metadata[refund_id]": str(refund_id),
        }
        return RefundObject.model_validate(await self._post("/v1/refunds", form, key))

    async def _post(self, path: str, form: dict[str, str], key: UUID) -> Any:
        """Raises ProviderRefusedError, ProviderUnavailableError."""
        try:
            answer = await self._http.post(path, data=form, headers={"Idempotency-Key": str(key)})
        except httpx.TransportError as error:
            raise ProviderUnavailableError(type(error).__name__) from error
        if answer.is_success:
            return _json(answer)
        # 401 and 403: our key is wrong, not the payment. 409 and 429: try again, says Stripe.
        if answer.status_code in {401, 403, 409, 429} or answer.is_server_error:
            raise ProviderUnavailableError(str(answer.status_code))
        raise ProviderRefusedError(_refusal_code(_json(answer)) or f"http-{answer.status_code}")


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise ProviderUnavailableError("not JSON") from error


def _refusal_code(document: Any) -> str | None:
    problem = document.get("error") if isinstance(document, dict) else None
    if not isinstance(problem, dict):
        return None
    code = problem.get("code") or problem.get("type")
    return code[:100] if isinstance(code, str) else None
