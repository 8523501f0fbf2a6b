"""What a payment provider notifies us of, and what became of each notification.

Each is in exactly one state: applied, superseded (it tells what is known), duplicate, rejected (its type
has no effect here), discarded by a person, parked (money that nobody asked for, a wrong amount: a person
decides), or in flight. Duplicates and any order are harmless: an event counts once by the provider's id of
it, money once by the provider's reference.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError
from clinic_shared.intake import Item
from pydantic import ValidationError

from clinic_billing import notification_store, payment_store, settlement, stripe
from clinic_billing.domain import (
    STRIPE,
    Payment,
    PaymentNotYetReceivedError,
    PaymentStatus,
    UnknownPaymentError,
)
from clinic_billing.settlement import ToldPayment, ToldRefund


class Disposition(StrEnum):
    APPLIED = "applied"
    SUPERSEDED = "superseded"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    DISCARDED = "discarded"


class DisputeError(DomainError):
    """A customer disputes a charge: a person answers at the provider within its time limit."""

    slug = "payment-disputed"
    title = "A charge is disputed"
    fix = "Answer it at the provider, then discard the notification with the outcome as the reason."


@dataclass(frozen=True, kw_only=True)
class Outcome:
    disposition: Disposition
    reason: str | None = None
    payment_id: UUID | None = None

    @classmethod
    def of(cls, payment: Payment, *, changed: bool) -> "Outcome":
        told = Disposition.APPLIED if changed else Disposition.SUPERSEDED
        return cls(disposition=told, payment_id=payment.payment_id)


Handler = Callable[[Transaction, stripe.Event, datetime], Awaitable[Outcome]]
_handlers: dict[str, Handler] = {}


def _on(*event_types: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _handlers.update(dict.fromkeys(event_types, handler))
        return handler

    return register


async def process(tx: Transaction, item: Item) -> None:
    """Let one notification take effect. What raises is parked, or tried again if it may pass."""
    event = stripe.read_event(item.body)
    if await notification_store.claim_event(tx, STRIPE, event.id, item.id):
        outcome = await _handle(tx, event, item.received_at)
    else:
        outcome = Outcome(disposition=Disposition.DUPLICATE)
    await notification_store.record(
        tx,
        intake_id=item.id,
        event_id=event.id,
        event_type=event.type,
        disposition=outcome.disposition.value,
        reason=outcome.reason,
        payment_id=outcome.payment_id,
    )


async def _handle(tx: Transaction, event: stripe.Event, received_at: datetime) -> Outcome:
    handler = _handlers.get(event.type)
    if handler is None:
        return Outcome(disposition=Disposition.REJECTED, reason="event-type-without-effect")
    try:
        return await handler(tx, event, received_at)
    except ValidationError:
        raise stripe.UnreadableEventError from None


@_on("payment_intent.succeeded")
async def _succeeded(tx: Transaction, event: stripe.Event, received_at: datetime) -> Outcome:
    intent = stripe.PaymentIntent.model_validate(event.data.object)
    payment = await _payment_of(tx, intent.id, intent.metadata)
    told = ToldPayment(
        reference=intent.id,
        amount_minor=intent.amount_received,
        currency=stripe.iso_currency(intent.currency),
        received_at=received_at,
    )
    return Outcome.of(payment, changed=await settlement.receive(tx, payment.payment_id, told))


@_on("payment_intent.payment_failed")
async def _failed(tx: Transaction, event: stripe.Event, _: datetime) -> Outcome:
    intent = stripe.PaymentIntent.model_validate(event.data.object)
    payment = await _payment_of(tx, intent.id, intent.metadata)
    code = intent.last_payment_error.code if intent.last_payment_error else None
    changed = await settlement.decline(tx, payment.payment_id, failure_code=code)
    return Outcome.of(payment, changed=changed)


@_on("payment_intent.canceled")
async def _cancelled(tx: Transaction, event: stripe.Event, _: datetime) -> Outcome:
    intent = stripe.PaymentIntent.model_validate(event.data.object)
    payment = await _payment_of(tx, intent.id, intent.metadata)
    changed = await settlement.close(tx, payment.payment_id, PaymentStatus.CANCELLED)
    return Outcome.of(payment, changed=changed)


@_on("refund.created", "refund.updated", "refund.failed", "charge.refund.updated")
async def _refund(tx: Transaction, event: stripe.Event, received_at: datetime) -> Outcome:
    refund = stripe.RefundObject.model_validate(event.data.object)
    payment = await _payment_of(tx, refund.payment_intent, {})
    changed = await _apply_refund(tx, payment, refund, received_at)
    return Outcome.of(payment, changed=changed)


@_on("charge.refunded")
async def _charge_refunded(tx: Transaction, event: stripe.Event, received_at: datetime) -> Outcome:
    """The sum of a charge's refunds. Newer API versions tell each of them by an event of its own."""
    charge = stripe.Charge.model_validate(event.data.object)
    payment = await _payment_of(tx, charge.payment_intent, charge.metadata)
    refunds = charge.refunds.data if charge.refunds else []
    changes = [await _apply_refund(tx, payment, refund, received_at) for refund in refunds]
    current = await payment_store.find_payment(tx, payment.payment_id)
    if current is None or current.refunded_minor < charge.amount_refunded:
        # The refund itself is still on its way; this is tried again and is known by then.
        raise PaymentNotYetReceivedError("The refund hasn't been told yet.", reference="refund_id")
    return Outcome.of(payment, changed=any(changes))


@_on("charge.dispute.created")
async def _disputed(tx: Transaction, event: stripe.Event, _: datetime) -> Outcome:  # noqa: ARG001  # a handler's shape
    raise DisputeError


async def _apply_refund(
    tx: Transaction, payment: Payment, refund: stripe.RefundObject, refunded_at: datetime
) -> bool:
    refund_id = stripe.own_id(refund.metadata, "refund_id")
    if refund.status == "succeeded":
        told = ToldRefund(
            reference=refund.id,
            amount_minor=refund.amount,
            currency=stripe.iso_currency(refund.currency),
            refunded_at=refunded_at,
            refund_id=refund_id,
        )
        return await settlement.give_back(tx, payment.payment_id, told)
    known = await payment_store.find_refund_of(tx, STRIPE, refund.id)
    refund_id = known.refund_id if known else refund_id
    if refund.status in {"failed", "canceled"} and refund_id is not None:
        code = refund.failure_reason or refund.status
        return await settlement.fail_refund(tx, refund_id, failure_code=code)
    return False


async def _payment_of(tx: Transaction, reference: str | None, metadata: dict[str, str]) -> Payment:
    """Find the payment by the provider's reference or, before that is known here, by ours.

    Raises UnknownPaymentError.
    """
    if reference is None:
        raise UnknownPaymentError
    payment = await payment_store.find_payment_of(tx, STRIPE, reference)
    own_id = stripe.own_id(metadata, "payment_id")
    if payment is None and own_id is not None:
        payment = await payment_store.find_payment(tx, own_id)
    if payment is None or payment.provider_reference not in (None, reference):
        raise UnknownPaymentError
    return payment


async def discard(tx: Transaction, intake_id: UUID, *, reason: str) -> None:
    """A person decides that a parked notification has no effect. Raises NotFoundError."""
    item = await notification_store.take_parked(tx, intake_id)
    event = _identified(item.body)
    await notification_store.record(
        tx,
        intake_id=intake_id,
        event_id=event.id,
        event_type=event.type,
        disposition=Disposition.DISCARDED.value,
        reason=reason,
        payment_id=None,
    )
    tx.audit(
        AuditEntry(
            action=Action.UPDATE,
            resource_type="PaymentNotification",
            resource_id=intake_id,
            details={"disposition": Disposition.DISCARDED.value},
        )
    )


def _identified(body: bytes) -> stripe.Event:
    try:
        return stripe.read_event(body)
    except stripe.UnreadableEventError:
        return stripe.Event(id="unreadable", type="unreadable", data=stripe.EventData(object={}))
