"""What payment providers notify us of, and what became of each notification.

Each is in exactly one state: applied, superseded (it tells what is known), duplicate, rejected (without
effect here, or of a payment that the provider doesn't know), discarded by a person, parked (money that nobody
asked for, a wrong amount, a claim that the provider doesn't bear out: a person decides), or in flight until
its payment has been read again (`rereading.py`). So duplicates, any order, lies and forgeries are harmless.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, NotFoundError
from clinic_shared.intake import Item
from clinic_shared.intake_worker import redrive_item

from clinic_billing import notification_store, payment_store
from clinic_billing.providers.port import Claim, Notice, PaymentProvider

READ_PAYMENT = "read-payment"


class Disposition(StrEnum):
    IN_FLIGHT = "in-flight"
    APPLIED = "applied"
    SUPERSEDED = "superseded"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    PARKED = "parked"
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
    error: str | None = None
    payment_id: UUID | None = None


@dataclass
class Processing:
    """Takes notifications off the intake; nothing is asked of a provider in here."""

    providers: Mapping[str, PaymentProvider]

    async def process(self, tx: Transaction, item: Item) -> None:
        """Note what is to be read again. What raises is parked, or tried again if it may pass."""
        notice = self.providers[item.interface].read_notice(item.body, item.attributes)
        if not await notification_store.claim_event(tx, item.interface, notice.event_id, item.id):
            outcome = Outcome(disposition=Disposition.DUPLICATE)
        else:
            outcome = _expected(notice)
        await notification_store.record(
            tx, intake_id=item.id, provider=item.interface, notice=notice, outcome=outcome
        )
        if outcome.disposition is Disposition.IN_FLIGHT:
            await payment_store.request_call(tx, READ_PAYMENT, item.id)


def _expected(notice: Notice) -> Outcome:
    """Raises DisputeError."""
    if notice.claim is Claim.DISPUTED:
        raise DisputeError
    if notice.payment_reference is None:
        return Outcome(disposition=Disposition.REJECTED, reason="event-type-without-effect")
    return Outcome(disposition=Disposition.IN_FLIGHT)


async def redrive(tx: Transaction, intake_id: UUID) -> None:
    """Let a parked notification be looked at again. Raises NotFoundError."""
    if await notification_store.reopen_parked(tx, intake_id):
        await payment_store.repeat_call(tx, READ_PAYMENT, intake_id)
    else:
        await redrive_item(tx, intake_id)


async def discard(tx: Transaction, intake_id: UUID, *, reason: str) -> None:
    """A person decides that a parked notification has no effect. Raises NotFoundError."""
    if not await notification_store.discard_parked(tx, intake_id, reason=reason):
        provider = await notification_store.take_parked(tx, intake_id)
        if provider is None:
            raise NotFoundError
        outcome = Outcome(disposition=Disposition.DISCARDED, reason=reason)
        unread = Notice(event_id="unread", event_type="unread")
        await notification_store.record(
            tx, intake_id=intake_id, provider=provider, notice=unread, outcome=outcome
        )
    tx.audit(
        AuditEntry(
            action=Action.UPDATE,
            resource_type="PaymentNotification",
            resource_id=intake_id,
            details={"disposition": Disposition.DISCARDED.value},
        )
    )
