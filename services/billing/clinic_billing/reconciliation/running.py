"""One run for one day: ask the providers outside transactions, then compare and keep what doesn't agree.

A day is a day of UTC. Running it again renews its list: what agrees now is `gone`, what a person settled stays so.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from clinic_shared.database import Transaction
from clinic_shared.health import Health
from clinic_shared.ids import uuid7
from clinic_shared.loops import keep_running, pause
from clinic_shared.metrics import REGISTRY
from clinic_shared.service import Runtime
from prometheus_client import Gauge
from sqlalchemy import Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_billing.providers.installed import Providers
from clinic_billing.providers.port import (
    NotAtProviderError,
    PaymentAtProvider,
    PaymentState,
    ProviderNotInstalledError,
    ProviderRefusedError,
    ProviderUnavailableError,
    RefundState,
)
from clinic_billing.reconciliation.comparing import (
    AtProvider,
    Booked,
    Discrepancy,
    Kind,
    OwedReceipt,
    with_bank,
    with_provider,
    with_receipts,
)
from clinic_billing.reconciliation.statements import BankLine
from clinic_billing.reconciliation.tables import PAYER, bank_line, bank_statement, discrepancy, run

log = structlog.get_logger()

POLL_SECONDS = 60.0
DUE_AFTER = timedelta(hours=3)
"""A day is compared three hours after it ended: what was under way has been decided by then."""
AT_ONCE = 8

OPEN = Gauge(
    "clinic_reconciliation_open", "Discrepancies that nobody has settled", ["kind"], registry=REGISTRY
)

# Payments that were begun, received or refunded on the day, with what the ledger has of each in all.
_BOOKED = text("""
    SELECT p.payment_id, p.provider, p.provider_reference, p.currency,
           (SELECT coalesce(sum(e.amount_minor), 0) FROM ledger_movement m JOIN ledger_entry e USING (movement_id)
            WHERE m.kind = 'payment-received' AND m.source_id = p.payment_id AND e.account LIKE 'cash:%')::bigint
               AS received,
           (SELECT coalesce(-sum(e.amount_minor), 0) FROM refund r
            JOIN ledger_movement m ON m.kind = 'payment-refunded' AND m.source_id = r.refund_id
            JOIN ledger_entry e USING (movement_id)
            WHERE r.payment_id = p.payment_id AND e.account LIKE 'cash:%')::bigint AS refunded
    FROM payment p
    WHERE p.desk_id IS NULL AND p.provider_reference IS NOT NULL
      AND (p.requested_at >= :first AND p.requested_at < :end
           OR p.received_at >= :first AND p.received_at < :end
           OR EXISTS (SELECT FROM refund d WHERE d.payment_id = p.payment_id
                      AND d.refunded_at >= :first AND d.refunded_at < :end))
""")
_RECEIPTS = text("""
    SELECT m.movement_id, max(abs(e.amount_minor)) AS amount, min(e.currency) AS currency,
           r.receipt_id IS NOT NULL AS "exists", coalesce(r.status = 'done', false) AS done,
           (SELECT sum(value::bigint) FROM jsonb_each_text(r.document -> 'payments')
            WHERE key <> 'credit')::bigint AS tendered
    FROM ledger_movement m
    JOIN ledger_entry e ON e.movement_id = m.movement_id AND e.currency = 'RUB'
    LEFT JOIN receipt r ON r.receipt_id = m.movement_id
    WHERE m.kind IN ('payment-received', 'payment-refunded', 'advance-applied')
      AND m.booked_at >= :first AND m.booked_at < :end
    GROUP BY m.movement_id, r.receipt_id
""")
_HELD = text("""
    SELECT e.account, e.currency, sum(e.amount_minor)::bigint AS amount
    FROM ledger_movement m JOIN ledger_entry e ON e.movement_id = m.movement_id
    WHERE e.account LIKE 'cash:%' AND e.account NOT LIKE 'cash:desk:%' AND e.account NOT LIKE 'cash:terminal:%'
      AND m.legal_entity_id = :legal_entity_id AND m.booked_at >= :first AND m.booked_at < :end
    GROUP BY e.account, e.currency
""")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    day: date
    found: list[Discrepancy]
    asked: int
    away: int


async def reconcile_daily(runtime: Runtime, stop: asyncio.Event) -> None:
    """Compare each day once it is over, days that were missed included; until told to stop."""
    health = Health.of(runtime)
    await keep_running("reconciliation", stop, partial(_work, runtime, stop, health), health)


async def _work(runtime: Runtime, stop: asyncio.Event, health: Health) -> None:
    while not stop.is_set():
        day = await next_day(runtime)
        if day is not None:
            await reconcile(runtime, day)
        health.report("reconciliation", None)
        await pause(stop, POLL_SECONDS)


async def next_day(runtime: Runtime) -> date | None:
    """Return the oldest day that is over and hasn't been compared since the first run or payment."""
    last = (runtime.clock.now() - DUE_AFTER).astimezone(UTC).date() - timedelta(days=1)
    async with runtime.database.transaction() as tx:
        row = await tx.fetch_one(select(func.max(run.c.day).label("done")))
        first = await tx.fetch_one(text("SELECT min(booked_at) AS at FROM ledger_movement"))
    if row is not None and row.done is not None:
        following: date = row.done + timedelta(days=1)
    elif first is not None and first.at is not None:
        following = first.at.astimezone(UTC).date()
    else:
        return None
    return following if following <= last else None


async def reconcile(runtime: Runtime, day: date) -> Outcome:
    """Compare one day. A provider that can't be asked now is not compared, and that is kept too."""
    window = {
        "first": datetime.combine(day, time(), UTC),
        "end": datetime.combine(day + timedelta(days=1), time(), UTC),
    }
    async with runtime.database.transaction() as tx:
        booked = [_booked(row) for row in await tx.fetch_all(_BOOKED, window)]
    answers = await _ask(runtime, booked)
    there = {key: answer for key, answer in answers.items() if not isinstance(answer, Exception)}
    async with runtime.database.transaction() as tx:
        owed = [_owed(row) for row in await tx.fetch_all(_RECEIPTS, window)]
        found = with_provider(booked, there) + with_receipts(owed) + await _compare_bank(tx, day, window)
        outcome = Outcome(day=day, found=found, asked=len(answers), away=len(answers) - len(there))
        await _keep(tx, outcome)
    log.info("reconciled", day=day.isoformat(), discrepancies=len(found), providers_away=outcome.away)
    return outcome


async def _ask(runtime: Runtime, booked: list[Booked]) -> dict[str, AtProvider | Exception | None]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(payment: Booked) -> AtProvider | Exception | None:
        async with gate:
            try:
                provider = runtime.get(Providers).of(payment.provider)
                return _at_provider(await provider.read_payment(payment.reference or ""))
            except NotAtProviderError:
                return None
            except (ProviderNotInstalledError, ProviderRefusedError, ProviderUnavailableError) as error:
                return error

    answers = await asyncio.gather(*(ask(payment) for payment in booked))
    return {payment.payment_id: answer for payment, answer in zip(booked, answers, strict=True)}


def _at_provider(found: PaymentAtProvider) -> AtProvider:
    received = found.amount_minor if found.state is PaymentState.SUCCEEDED else 0
    refunded = sum(r.amount_minor for r in found.refunds if r.state is RefundState.SUCCEEDED)
    return AtProvider(received_minor=received, refunded_minor=refunded, currency=found.currency)


async def _compare_bank(tx: Transaction, day: date, window: dict[str, Any]) -> list[Discrepancy]:
    """Compare with the statements of the day that are there; without one there is nothing to compare with."""
    entities = await tx.fetch_all(
        select(bank_line.c.legal_entity_id).where(bank_line.c.booked_on == day).distinct()
    )
    found: list[Discrepancy] = []
    for entity in entities:
        held = await tx.fetch_all(_HELD, window | {"legal_entity_id": entity.legal_entity_id})
        expected = {(row.account.partition(":")[2], row.currency): row.amount for row in held}
        rows = await tx.fetch_all(
            select(bank_line)
            .where(bank_line.c.booked_on == day, bank_line.c.legal_entity_id == entity.legal_entity_id)
            .order_by(bank_line.c.line_id)
        )
        found += with_bank(expected, [(str(row.line_id), _line(tx, row)) for row in rows])
    return found


async def _keep(tx: Transaction, outcome: Outcome) -> None:
    done = {
        "ran_at": tx.now,
        "providers_asked": outcome.asked,
        "providers_away": outcome.away,
    }
    await tx.execute(
        upsert(run).values(day=outcome.day, **done).on_conflict_do_update(index_elements=["day"], set_=done)
    )
    still = {(found.kind.value, found.subject) for found in outcome.found}
    known = await tx.fetch_all(select(discrepancy).where(discrepancy.c.day == outcome.day).with_for_update())
    gone = [
        row.discrepancy_id for row in known if (row.kind, row.subject) not in still and row.state == "open"
    ]
    await tx.execute(
        update(discrepancy)
        .where(discrepancy.c.discrepancy_id.in_(gone))
        .values(state="gone", settled_at=tx.now)
    )
    for found in outcome.found:
        values = {
            "provider": found.provider,
            "expected_minor": found.expected_minor,
            "found_minor": found.found_minor,
            "currency": found.currency,
        }
        made = upsert(discrepancy).values(
            discrepancy_id=uuid7(),
            day=outcome.day,
            kind=found.kind.value,
            subject=found.subject,
            found_at=tx.now,
            state="open",
            **values,
        )
        await tx.execute(
            made.on_conflict_do_update(
                constraint="discrepancy_once",
                set_=values | {"state": "open", "settled_at": None},
                where=discrepancy.c.state == "gone",
            )
        )


def _booked(row: Row[Any]) -> Booked:
    return Booked(
        payment_id=str(row.payment_id),
        provider=row.provider,
        reference=row.provider_reference,
        received_minor=int(row.received),
        refunded_minor=int(row.refunded),
        currency=row.currency,
    )


def _owed(row: Row[Any]) -> OwedReceipt:
    return OwedReceipt(
        movement_id=str(row.movement_id),
        amount_minor=int(row.amount),
        currency=row.currency,
        exists=row.exists,
        done=row.done,
        tendered_minor=None if row.tendered is None else int(row.tendered),
    )


def _line(tx: Transaction, stored: Row[Any]) -> BankLine:
    row = PAYER.opened(tx, stored)
    return BankLine(
        reference=row.bank_reference,
        booked_on=row.booked_on,
        amount_minor=row.amount_minor,
        currency=row.currency,
        counterparty=row.counterparty,
        purpose=row.purpose,
    )


async def keep_statement(
    tx: Transaction,
    *,
    legal_entity_id: UUID,
    digest: bytes,
    fmt: str,
    lines: list[BankLine],
    by: UUID,
) -> tuple[UUID, int]:
    """Keep a statement's lines that aren't known yet; returns its id and how many were new.

    The same file again, or one that overlaps, changes nothing that is there.
    """
    known = await tx.fetch_one(
        select(bank_statement.c.statement_id).where(
            bank_statement.c.legal_entity_id == legal_entity_id, bank_statement.c.digest == digest
        )
    )
    if known is not None:
        return known.statement_id, 0
    statement_id = uuid7()
    await tx.execute(
        bank_statement.insert().values(
            statement_id=statement_id,
            legal_entity_id=legal_entity_id,
            digest=digest,
            format=fmt,
            lines=len(lines),
            imported_at=tx.now,
            imported_by=by,
        )
    )
    rows = [
        {
            "line_id": uuid7(),
            "statement_id": statement_id,
            "legal_entity_id": legal_entity_id,
            "bank_reference": line.reference,
            "booked_on": line.booked_on,
            "amount_minor": line.amount_minor,
            "currency": line.currency,
            "counterparty": line.counterparty,
            "purpose": line.purpose,
        }
        for line in lines
    ]
    before = await _count_lines(tx, legal_entity_id)
    sealed = [PAYER.stored(tx, row) for row in rows]
    await tx.execute(upsert(bank_line).on_conflict_do_nothing(), sealed)
    return statement_id, await _count_lines(tx, legal_entity_id) - before


async def _count_lines(tx: Transaction, legal_entity_id: UUID) -> int:
    mine = select(func.count()).where(bank_line.c.legal_entity_id == legal_entity_id)
    row = await tx.fetch_one(mine)
    return int(row[0]) if row else 0


async def measure_reconciliation(_: Runtime, tx: Transaction) -> None:
    rows = await tx.fetch_all(
        select(discrepancy.c.kind, func.count().label("open"))
        .where(discrepancy.c.state == "open")
        .group_by(discrepancy.c.kind)
    )
    counts = {row.kind: row.open for row in rows}
    for kind in Kind:
        OPEN.labels(kind=kind.value).set(counts.get(kind.value, 0))
