"""What billing asks of a payment provider, in no provider's words.

A notification is a hint: it names a payment, and may lie, lag or be forged. What takes effect is what the
provider answers when that payment is read again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from clinic_shared.errors import DomainError, InvalidRequestError

TIMEOUT_SECONDS = 10.0


class SignatureError(DomainError):
    """The notification isn't signed by the provider: no signature, another secret or body, or too old."""

    slug = "signature-invalid"
    title = "The notification's signature is not valid"
    status = 400
    fix = "Check the endpoint's signing secret and the clocks on both sides."


class UnreadableEventError(DomainError):
    """Sent by the provider, but not in the shape of its events."""

    slug = "unreadable-notification"
    title = "The notification can't be read"
    fix = "Set the provider's endpoint to a supported API version and have the event sent again."


class ProviderNotInstalledError(InvalidRequestError):
    """The clinic has no account at this provider."""

    slug = "provider-not-installed"
    title = "Payments can't be made through this provider"
    fix = "Ask for one of `providers`."


class ProviderRefusedError(Exception):
    """The provider says no and will say so again. `code` is one of its own."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class NotAtProviderError(ProviderRefusedError):
    """The provider knows no such object."""


class ProviderUnavailableError(Exception):
    """No answer, or one that may be another next time. The call may have taken effect."""


class Claim(StrEnum):
    """What a notification says has happened to its payment."""

    PAID = "paid"
    REFUNDED = "refunded"
    DISPUTED = "disputed"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A notification, read. Without a payment it has no effect here; a dispute has none at all."""

    event_id: str
    event_type: str
    claim: Claim = Claim.OTHER
    payment_reference: str | None = None


class PaymentState(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    FAILED = "failed"


class RefundState(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class RefundAtProvider:
    """`refund_id` is ours, where the refund began here."""

    reference: str
    state: RefundState
    amount_minor: int
    currency: str
    refund_id: UUID | None = None
    failure_code: str | None = None


@dataclass(frozen=True, kw_only=True)
class PaymentAtProvider:
    """A payment as the provider has it now. `amount_minor` is what arrived; `payment_id` is ours."""

    reference: str
    state: PaymentState
    amount_minor: int
    currency: str
    payment_id: UUID | None
    failure_code: str | None = None
    refunds: tuple[RefundAtProvider, ...] = ()

    def bears_out(self, claim: Claim) -> bool:
        """Tell whether a notification's claim is true, as far as it can be told from the payment."""
        if claim is Claim.PAID:
            return self.state is PaymentState.SUCCEEDED
        if claim is Claim.REFUNDED:
            return any(refund.state is RefundState.SUCCEEDED for refund in self.refunds)
        return True


@dataclass(frozen=True, kw_only=True)
class AskedPayment:
    payment_id: UUID
    invoice_id: UUID
    amount_minor: int
    currency: str
    return_url: str


@dataclass(frozen=True, kw_only=True)
class AskedRefund:
    refund_id: UUID
    payment_reference: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, kw_only=True)
class StartedPayment:
    """How the customer pays: with a secret for the provider's form, or at an address."""

    reference: str
    client_secret: str | None = field(default=None, repr=False)
    confirmation_url: str | None = None


class PaymentProvider(Protocol):
    """`key` makes a call idempotent: repeated, it answers what it did first.

    Calls raise ProviderRefusedError and ProviderUnavailableError.
    """

    name: str

    def authenticate(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> dict[str, str]:
        """Check that a notification is the provider's; return what of its headers must be kept with it.

        Raises SignatureError.
        """

    def read_notice(self, body: bytes, attributes: Mapping[str, str]) -> Notice:
        """Raises UnreadableEventError, which tells nothing of the content."""

    async def start_payment(self, asked: AskedPayment, *, key: UUID) -> StartedPayment: ...

    async def cancel_payment(self, reference: str, *, key: UUID) -> None: ...

    async def refund(self, asked: AskedRefund, *, key: UUID) -> RefundAtProvider: ...

    async def read_payment(self, reference: str) -> PaymentAtProvider:
        """Read a payment with all its refunds, as they are now. Raises NotAtProviderError."""

    async def aclose(self) -> None: ...


def own_id(metadata: Mapping[str, str], name: str) -> UUID | None:
    """Return an id that we gave an object of the provider."""
    try:
        return UUID(metadata[name])
    except (KeyError, ValueError):
        return None
