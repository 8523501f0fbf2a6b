"""Reading a payment again at its provider because a notification said that something happened to it.

The provider's answer takes effect, whatever the notification said. A claim that the provider doesn't bear
out may be early, so it is asked a few times more; then a person looks at it.
"""

from typing import Any

import structlog
from clinic_shared.crash import crash_point
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError
from clinic_shared.service import Runtime
from sqlalchemy import Row

from clinic_billing import notification_store, payment_store, settlement
from clinic_billing.notifications import Disposition, Outcome
from clinic_billing.payment_store import Call
from clinic_billing.providers.installed import Providers
from clinic_billing.providers.port import (
    Claim,
    NotAtProviderError,
    PaymentAtProvider,
    ProviderRefusedError,
    ProviderUnavailableError,
)

log = structlog.get_logger()

MOST_READINGS = 6
"""With the delays between calls, half a minute: longer than providers' replicas lag."""
NOT_AT_PROVIDER = "not-at-provider"


class ContradictedError(DomainError):
    """A notification told of money, and the provider says that it hasn't moved."""

    slug = "notification-contradicted"
    title = "The provider doesn't bear out what its notification says"
    fix = "Look the payment up at the provider. Redrive the notification if it is right, else discard it."


async def read_again(runtime: Runtime, call: Call) -> None:
    """Let the payment of one notification be as the provider has it. Raises ProviderUnavailableError."""
    async with runtime.database.transaction() as tx:
        told = await notification_store.find(tx, call.subject_id)
    assert told is not None  # noqa: S101  # the call's row was made together with it
    try:
        found = await runtime.get(Providers).of(told.provider).read_payment(told.payment_reference)
    except NotAtProviderError as error:
        await _conclude(runtime, call, await _of_unknown(runtime, call, told, error))
        return
    except ProviderRefusedError as refusal:
        await _conclude(runtime, call, Outcome(disposition=Disposition.PARKED, error=refusal.code))
        return
    crash_point("provider.reread.after")
    await _let_it_be(runtime, call, told, found)


async def _of_unknown(runtime: Runtime, call: Call, told: Row[Any], error: NotAtProviderError) -> Outcome:
    """What the provider doesn't know is somebody's invention, unless we know it: then a person looks at it."""
    async with runtime.database.transaction() as tx:
        ours = await payment_store.find_payment_of(tx, told.provider, told.payment_reference)
    if ours is None:
        return Outcome(disposition=Disposition.REJECTED, reason=NOT_AT_PROVIDER)
    if call.attempts < MOST_READINGS:
        raise ProviderUnavailableError(NOT_AT_PROVIDER) from error
    log.warning("notification_parked", notification_id=call.subject_id, problem=NOT_AT_PROVIDER)
    return Outcome(disposition=Disposition.PARKED, error=NOT_AT_PROVIDER, payment_id=ours.payment_id)


async def _let_it_be(runtime: Runtime, call: Call, told: Row[Any], found: PaymentAtProvider) -> None:
    try:
        async with runtime.database.transaction() as tx:
            outcome = await _outcome(tx, told, found)
            await _note(tx, call, outcome)
    except DomainError as error:
        if isinstance(error, ContradictedError) and call.attempts < MOST_READINGS:
            raise ProviderUnavailableError(error.slug) from error
        log.warning("notification_parked", notification_id=call.subject_id, problem=error.slug)
        parked = Outcome(disposition=Disposition.PARKED, error=f"{error.slug}: {error.detail}")
        await _conclude(runtime, call, parked)


async def _outcome(tx: Transaction, told: Row[Any], found: PaymentAtProvider) -> Outcome:
    """Raises ContradictedError, and what `settlement` raises."""
    payment, changed = await settlement.bring_up_to(tx, told.provider, found, told_at=told.received_at)
    if not changed and not found.bears_out(Claim(told.claim)):
        raise ContradictedError
    disposition = Disposition.APPLIED if changed else Disposition.SUPERSEDED
    return Outcome(disposition=disposition, payment_id=payment.payment_id)


async def _conclude(runtime: Runtime, call: Call, outcome: Outcome) -> None:
    async with runtime.database.transaction() as tx:
        await _note(tx, call, outcome)


async def _note(tx: Transaction, call: Call, outcome: Outcome) -> None:
    await notification_store.conclude(tx, call.subject_id, outcome)
    await payment_store.settle_call(tx, call, "answered")
