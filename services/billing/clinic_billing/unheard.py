"""Pending payments of which nothing was heard: their provider is asked, after a while, again and again, not for ever.

A notification can get lost for good, and then only the daily reconciliation would find the money. What the provider
answers takes effect as after a notification; what can't is left to the reconciliation, which has a work list.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

import structlog
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError
from clinic_shared.health import Health
from clinic_shared.loops import keep_running, pause
from clinic_shared.metrics import REGISTRY
from clinic_shared.service import Runtime
from prometheus_client import Counter
from pydantic import ValidationError
from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_billing import settlement
from clinic_billing.domain import PaymentStatus
from clinic_billing.providers.installed import Providers
from clinic_billing.providers.port import (
    NotAtProviderError,
    ProviderNotInstalledError,
    ProviderRefusedError,
    ProviderUnavailableError,
)
from clinic_billing.tables import payment, unheard_payment

log = structlog.get_logger()

POLL_SECONDS = 5.0
BATCH = 10
FIRST_AFTER = timedelta(minutes=2)
"""Long enough for most to pay and for their notification to come; each next reading waits twice as long."""
MOST_READINGS = 10
"""The last one a day and a half after the payment was begun: after that the reconciliation has had its turn."""

READINGS = Counter(
    "clinic_unheard_payment_readings_total",
    "Readings of pending payments of which no notification came",
    ["outcome"],
    registry=REGISTRY,
)


@dataclass(frozen=True, kw_only=True)
class Unheard:
    payment_id: UUID
    provider: str
    reference: str


async def ask_about_unheard(runtime: Runtime, stop: asyncio.Event) -> None:
    """Ask about payments that are due, until told to stop."""
    health = Health.of(runtime)
    await keep_running("unheard-payments", stop, partial(_work, runtime, stop, health), health)


async def _work(runtime: Runtime, stop: asyncio.Event, health: Health) -> None:
    while not stop.is_set():
        if not await ask_about_due(runtime):
            health.report("unheard-payments", None)
            await pause(stop, POLL_SECONDS)


async def ask_about_due(runtime: Runtime) -> int:
    """Ask about up to a batch of payments at once; returns about how many."""
    async with runtime.database.transaction() as tx:
        due = await _take_due(tx)
    await asyncio.gather(*(_ask(runtime, one) for one in due))
    return len(due)


async def _take_due(tx: Transaction) -> list[Unheard]:
    """Take payments whose reading is due, and say when the next one is; who dies now leaves it to that one."""
    rows = await tx.fetch_all(
        select(payment.c.payment_id, payment.c.provider, payment.c.provider_reference)
        .outerjoin(unheard_payment, unheard_payment.c.payment_id == payment.c.payment_id)
        .where(
            payment.c.status == PaymentStatus.PENDING.value,
            payment.c.provider_reference.is_not(None),
            payment.c.desk_id.is_(None),
            _is_due(tx),
        )
        .order_by(payment.c.payment_id)
        .limit(BATCH)
        .with_for_update(of=payment, skip_locked=True)
    )
    if rows:
        first = [
            {"payment_id": row.payment_id, "readings": 1, "next_reading_at": tx.shared_now + 2 * FIRST_AFTER}
            for row in rows
        ]
        doubled = FIRST_AFTER * func.power(2, unheard_payment.c.readings + 1)
        await tx.execute(
            upsert(unheard_payment)
            .values(first)
            .on_conflict_do_update(
                index_elements=["payment_id"],
                set_={"readings": unheard_payment.c.readings + 1, "next_reading_at": tx.shared_now + doubled},
            )
        )
    return [
        Unheard(payment_id=r.payment_id, provider=r.provider, reference=r.provider_reference) for r in rows
    ]


def _is_due(tx: Transaction) -> ColumnElement[bool]:
    never_read = unheard_payment.c.payment_id.is_(None)
    return or_(
        and_(never_read, payment.c.requested_at <= tx.shared_now - FIRST_AFTER),
        and_(unheard_payment.c.next_reading_at <= tx.shared_now, unheard_payment.c.readings < MOST_READINGS),
    )


async def _ask(runtime: Runtime, one: Unheard) -> None:
    error: Exception | None = None
    try:
        outcome = "changed" if await _read(runtime, one) else "unchanged"
    except (NotAtProviderError, ProviderNotInstalledError, ProviderRefusedError) as refusal:
        outcome, error = "refused", refusal
    except (ProviderUnavailableError, ValidationError) as failure:
        outcome, error = "failed", failure
    except DomainError as contradiction:
        outcome, error = "contradicted", contradiction
    READINGS.labels(outcome=outcome).inc()
    if error is not None:
        await _note(runtime, one, error)


async def _read(runtime: Runtime, one: Unheard) -> bool:
    """Let a payment be as its provider has it; returns whether that changed anything."""
    found = await runtime.get(Providers).of(one.provider).read_payment(one.reference)
    async with runtime.database.transaction() as tx:
        _, changed = await settlement.bring_up_to(tx, one.provider, found, told_at=tx.now)
    return changed


async def _note(runtime: Runtime, one: Unheard, error: Exception) -> None:
    log.warning("unheard_payment_not_read", payment_id=one.payment_id, error_class=type(error).__name__)
    mine = update(unheard_payment).where(unheard_payment.c.payment_id == one.payment_id)
    async with runtime.database.transaction() as tx:
        await tx.execute(mine.values(last_error=type(error).__name__))
