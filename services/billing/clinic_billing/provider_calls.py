"""Intent -> call -> result: what was asked of the provider is done after the commit, outside transactions.

A call is leased, made with its id as idempotency key, and its answer takes effect in a transaction of its
own. Who dies in between leaves a lease that runs out; the repeated call answers what it did the first time.
"""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, cast
from uuid import UUID

import structlog
from clinic_shared.crash import crash_point
from clinic_shared.health import Health
from clinic_shared.lookout import Lookout
from clinic_shared.loops import keep_running
from clinic_shared.service import Runtime
from pydantic import ValidationError
from sqlalchemy import Row, case, func, select, update

from clinic_billing import payment_store, rereading, settlement
from clinic_billing.domain import Payment, PaymentStatus, Refund
from clinic_billing.notifications import READ_PAYMENT
from clinic_billing.payment_store import Call, settle_call
from clinic_billing.providers.installed import Providers
from clinic_billing.providers.port import (
    TIMEOUT_SECONDS,
    AskedPayment,
    AskedRefund,
    PaymentProvider,
    ProviderNotInstalledError,
    ProviderRefusedError,
    ProviderUnavailableError,
)
from clinic_billing.settings import BillingSettings
from clinic_billing.tables import provider_call

log = structlog.get_logger()

POLL_SECONDS = 0.5
_DUE = "SELECT 1 FROM provider_call WHERE state = 'pending' AND next_attempt_at <= now()"
BATCH = 10
LEASE = timedelta(seconds=3 * TIMEOUT_SECONDS)
# Reading twice at once changes nothing, so who waits for a notification needn't wait for a dead reader.
READING_LEASE = timedelta(seconds=10)
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 600.0
# Providers forget idempotency keys after 24 hours: a refund repeated later could pay twice.
KEY_VALID = timedelta(hours=23)


async def make_provider_calls(runtime: Runtime, stop: asyncio.Event) -> None:
    """Make the calls that are due, until told to stop."""
    health = Health.of(runtime)
    await keep_running("provider-calls", stop, partial(_work, runtime, stop, health), health)


async def _work(runtime: Runtime, stop: asyncio.Event, health: Health) -> None:
    duty = Lookout.of(runtime).duty("provider-calls", _DUE, every_seconds=POLL_SECONDS)
    while not stop.is_set():
        if not await make_due_calls(runtime):
            health.report("provider-calls", None)
            await duty.wait(stop)


async def make_due_calls(runtime: Runtime) -> int:
    """Make up to a batch of due calls at once; returns how many."""
    calls = await _lease(runtime)
    await asyncio.gather(*(_make(runtime, call) for call in calls))
    return len(calls)


async def _lease(runtime: Runtime) -> list[Call]:
    async with runtime.database.transaction() as tx:
        await tx.execute(
            update(provider_call)
            .where(
                provider_call.c.state == "pending",
                # Reading twice changes nothing, however late.
                provider_call.c.kind != READ_PAYMENT,
                provider_call.c.requested_at < tx.now - KEY_VALID,
            )
            .values(state="unresolved")
        )
        due = (
            select(provider_call.c.call_id)
            .where(
                provider_call.c.state == "pending",
                provider_call.c.next_attempt_at <= func.clock_timestamp(),
            )
            .order_by(provider_call.c.next_attempt_at)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        rows = await tx.fetch_all(
            update(provider_call)
            .where(provider_call.c.call_id.in_(due.scalar_subquery()))
            .values(
                attempts=provider_call.c.attempts + 1,
                next_attempt_at=func.clock_timestamp()
                + case((provider_call.c.kind == READ_PAYMENT, READING_LEASE), else_=LEASE),
            )
            .returning(provider_call)
        )
    return [_call(row) for row in rows]


def _call(row: Row[Any]) -> Call:
    return Call(call_id=row.call_id, kind=row.kind, subject_id=row.subject_id, attempts=row.attempts)


async def _make(runtime: Runtime, call: Call) -> None:
    try:
        await _KINDS[call.kind](runtime, call)
    except (ProviderUnavailableError, ProviderNotInstalledError, ValidationError) as error:
        await _postpone(runtime, call, type(error).__name__)


async def _postpone(runtime: Runtime, call: Call, error: str) -> None:
    delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(call.attempts - 1, 20))
    log.warning("provider_call_failed", kind=call.kind, subject_id=call.subject_id, error_class=error)
    async with runtime.database.transaction() as tx:
        again = func.clock_timestamp() + timedelta(seconds=delay)
        mine = update(provider_call).where(provider_call.c.call_id == call.call_id)
        await tx.execute(mine.values(next_attempt_at=again, last_error=error))


async def _start_payment(runtime: Runtime, call: Call) -> None:
    payment = await _payment(runtime, call.subject_id)
    settings = cast("BillingSettings", runtime.settings)
    asked = AskedPayment(
        payment_id=payment.payment_id,
        invoice_id=payment.invoice_id,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        return_url=settings.payment_return_url,
    )
    try:
        started = await _provider(runtime, payment).start_payment(asked, key=call.call_id)
    except ProviderRefusedError as refusal:
        async with runtime.database.transaction() as tx:
            await settlement.close(tx, payment.payment_id, PaymentStatus.FAILED, failure_code=refusal.code)
            await settle_call(tx, call, "refused", refusal.code)
        return
    crash_point("provider.call.after")
    async with runtime.database.transaction() as tx:
        await settlement.know(tx, payment.payment_id, started)
        await settle_call(tx, call, "answered")


async def _cancel_payment(runtime: Runtime, call: Call) -> None:
    payment = await _payment(runtime, call.subject_id)
    if payment.status is PaymentStatus.PENDING and payment.provider_reference is None:
        # It is still being started; what the provider doesn't have can't be cancelled there.
        raise ProviderUnavailableError("not started yet")
    state, error = "answered", None
    if payment.provider_reference is not None:
        try:
            await _provider(runtime, payment).cancel_payment(payment.provider_reference, key=call.call_id)
        except ProviderRefusedError as refusal:
            # Paid in the meantime (the notification of that says so), or nothing that can be cancelled.
            state, error = "refused", refusal.code
    async with runtime.database.transaction() as tx:
        if state == "answered":
            await settlement.close(tx, payment.payment_id, PaymentStatus.CANCELLED)
        await settle_call(tx, call, state, error)


async def _create_refund(runtime: Runtime, call: Call) -> None:
    refund, payment = await _refund(runtime, call.subject_id)
    asked = AskedRefund(
        refund_id=refund.refund_id,
        payment_reference=payment.provider_reference or "",
        amount_minor=refund.amount_minor,
        currency=payment.currency,
    )
    try:
        told = await _provider(runtime, payment).refund(asked, key=call.call_id)
    except ProviderRefusedError as refusal:
        async with runtime.database.transaction() as tx:
            await settlement.fail_refund(tx, refund.refund_id, failure_code=refusal.code)
            await settle_call(tx, call, "refused", refusal.code)
        return
    crash_point("provider.call.after")
    async with runtime.database.transaction() as tx:
        # By our own id, whatever the answer says of it.
        ours = replace(told, refund_id=refund.refund_id)
        await settlement.bring_up_refund(tx, payment, ours, told_at=tx.now)
        await settle_call(tx, call, "answered")


def _provider(runtime: Runtime, payment: Payment) -> PaymentProvider:
    return runtime.get(Providers).of(payment.provider)


async def _payment(runtime: Runtime, payment_id: UUID) -> Payment:
    async with runtime.database.transaction() as tx:
        payment = await payment_store.find_payment(tx, payment_id)
    assert payment is not None  # noqa: S101  # the call's row was made together with it
    return payment


async def _refund(runtime: Runtime, refund_id: UUID) -> tuple[Refund, Payment]:
    async with runtime.database.transaction() as tx:
        refund = await payment_store.find_refund(tx, refund_id)
    assert refund is not None  # noqa: S101  # the call's row was made together with it
    return refund, await _payment(runtime, refund.payment_id)


_KINDS = {
    "create-intent": _start_payment,
    "cancel-intent": _cancel_payment,
    "create-refund": _create_refund,
    READ_PAYMENT: rereading.read_again,
}
