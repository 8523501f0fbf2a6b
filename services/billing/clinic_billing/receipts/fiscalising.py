"""Taking receipts to the registrar: describe -> register -> ask what became of it, each step repeatable.

What was described is kept before it is sent, so that every try sends the same. A submission has one external
id, under which the registrar registers once however often it is asked; the next submission begins only after
the registrar has said that this one failed. So whoever dies wherever, a movement has exactly one receipt.
"""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import structlog
from clinic_shared.crash import crash_point
from clinic_shared.database import Transaction
from clinic_shared.health import Health
from clinic_shared.lookout import Lookout
from clinic_shared.loops import keep_running
from clinic_shared.metrics import REGISTRY
from clinic_shared.service import Runtime
from clinic_shared.timers import Timer, Timers
from prometheus_client import Gauge
from sqlalchemy import func, select

from clinic_billing.receipts import store
from clinic_billing.receipts.describing import describe
from clinic_billing.receipts.events import receipt_fiscalised, receipt_overdue
from clinic_billing.receipts.receipt import Receipt, ReceiptStatus
from clinic_billing.receipts.registrar import (
    Company,
    Failed,
    Registered,
    Registrar,
    RegistrarRefusedError,
    RegistrarUnavailableError,
    Waiting,
)
from clinic_billing.receipts.tables import receipt as receipt_table

log = structlog.get_logger()
timers = Timers()

OVERDUE = "receipt-overdue"
OVERDUE_AFTER = timedelta(minutes=15)
POLL_SECONDS = 0.5
_DUE = "SELECT 1 FROM receipt WHERE status IN ('pending', 'sent') AND next_attempt_at <= now()"
BATCH = 10
LEASE_SECONDS = 30.0
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 300.0

OPEN = Gauge("clinic_receipts_open", "Receipts that aren't registered yet", ["status"], registry=REGISTRY)
OLDEST_SECONDS = Gauge(
    "clinic_receipts_oldest_open_seconds", "Age of the oldest receipt that is owed", registry=REGISTRY
)


class MisregisteredError(Exception):
    """The registrar says that it registered another amount than it was given."""


class Desk:
    """What the loop needs: a registrar, and what to do for a legal entity that has no profile."""

    def __init__(self, registrar: Registrar, *, fallback: Company | None) -> None:
        self.registrar = registrar
        self.fallback = fallback

    async def company_of(self, tx: Transaction, legal_entity_id: UUID) -> Company | None:
        return await store.find_company(tx, legal_entity_id) or self.fallback


async def fiscalise_receipts(runtime: Runtime, stop: asyncio.Event) -> None:
    """Take what is due to the registrar, until told to stop."""
    health = Health.of(runtime)
    await keep_running("receipts", stop, partial(_work, runtime, stop, health), health)


async def _work(runtime: Runtime, stop: asyncio.Event, health: Health) -> None:
    duty = Lookout.of(runtime).duty("receipts", _DUE, every_seconds=POLL_SECONDS)
    while not stop.is_set():
        if not await fiscalise_due(runtime):
            health.report("receipts", None)
            await duty.wait(stop)


async def fiscalise_due(runtime: Runtime) -> int:
    """Take up to a batch of receipts one step further each; returns how many."""
    async with runtime.database.transaction() as tx:
        leased = await store.lease(tx, limit=BATCH, seconds=LEASE_SECONDS)
    crash_point("receipt.lease.after")
    await asyncio.gather(*(_advance(runtime, one) for one in leased))
    return len(leased)


async def _advance(runtime: Runtime, leased: Receipt) -> None:
    try:
        described = leased if leased.document is not None else await _describe(runtime, leased)
        company = await _company(runtime, described)
        if described.status is ReceiptStatus.PENDING:
            await _register(runtime, described, company)
        else:
            await _ask(runtime, described, company)
    except (RegistrarUnavailableError, MisregisteredError) as error:
        delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(leased.attempts - 1, 20))
        log.warning("receipt_postponed", receipt_id=leased.receipt_id, reason=str(error))
        async with runtime.database.transaction() as tx:
            await store.postpone(tx, leased.receipt_id, str(error), in_seconds=delay)


async def _describe(runtime: Runtime, leased: Receipt) -> Receipt:
    async with runtime.database.transaction() as tx:
        found = await describe(tx, leased.receipt_id)
        described = replace(
            leased,
            version=leased.version + 1,
            document=found.document,
            invoice_id=found.invoice.invoice_id,
            payment_id=found.payment_id,
            patient_id=found.invoice.patient_id,
        )
        await store.save(tx, described, version_before=leased.version, in_seconds=LEASE_SECONDS)
        await tx.schedule(overdue_timer(leased.receipt_id, leased.owed_at))
    crash_point("receipt.describe.after")
    return described


def overdue_timer(receipt_id: UUID, owed_at: datetime) -> Timer:
    return Timer(kind=OVERDUE, subject=receipt_id, subject_version=1, due_at=owed_at + OVERDUE_AFTER)


async def _company(runtime: Runtime, described: Receipt) -> Company:
    async with runtime.database.transaction() as tx:
        company = await runtime.get(Desk).company_of(tx, described.legal_entity_id)
    if company is None:
        raise RegistrarUnavailableError("no-fiscal-profile")
    return company


async def _register(runtime: Runtime, described: Receipt, company: Company) -> None:
    assert described.document is not None  # noqa: S101  # made in the step before
    try:
        reference = await runtime.get(Desk).registrar.register(
            described.document,
            external_id=described.external_id,
            company=company,
            issued_at=described.owed_at,
        )
    except RegistrarRefusedError as refusal:
        await _save(runtime, described, described.refused(refusal.code))
        return
    crash_point("receipt.register.after")
    await _save(runtime, described, described.sent(reference), in_seconds=FIRST_DELAY_SECONDS)


async def _ask(runtime: Runtime, sent: Receipt, company: Company) -> None:
    assert sent.document is not None  # noqa: S101  # it was sent
    told = await runtime.get(Desk).registrar.report(
        sent.reference or "", company=company, currency=sent.document.currency
    )
    crash_point("receipt.report.after")
    match told:
        case Waiting():
            raise RegistrarUnavailableError("not registered yet")
        case Failed():
            await _save(runtime, sent, sent.not_registered(told))
        case Registered():
            if told.total_minor != sent.document.total_minor:
                raise MisregisteredError("registered with another amount")
            await _save(runtime, sent, sent.done(told))


async def _save(runtime: Runtime, before: Receipt, after: Receipt, *, in_seconds: float = 0) -> None:
    async with runtime.database.transaction() as tx:
        saved = await store.save(tx, after, version_before=before.version, in_seconds=in_seconds)
        if saved and after.status is ReceiptStatus.DONE:
            tx.emit(receipt_fiscalised(after))
    crash_point("receipt.save.after")


@timers.on(OVERDUE)
async def note_overdue(tx: Transaction, timer: Timer) -> None:
    """An obligation that isn't met in time is told, once; the gauges tell of it as long as it lasts."""
    late = await store.lock(tx, timer.subject)
    if late is None or late.status is ReceiptStatus.DONE or late.overdue_at is not None:
        return
    overdue = replace(late, version=late.version + 1, overdue_at=tx.now)
    await store.save(tx, overdue, version_before=late.version)
    tx.emit(receipt_overdue(overdue))


async def measure_receipts(_: Runtime, tx: Transaction) -> None:
    table = receipt_table
    rows = await tx.fetch_all(
        select(table.c.status, func.count().label("receipts"), func.min(table.c.owed_at).label("oldest_at"))
        .where(table.c.status != ReceiptStatus.DONE.value)
        .group_by(table.c.status)
    )
    counts = {row.status: row.receipts for row in rows}
    for status in (ReceiptStatus.PENDING, ReceiptStatus.SENT, ReceiptStatus.FAILED):
        OPEN.labels(status=status.value).set(counts.get(status.value, 0))
    oldest = min((row.oldest_at for row in rows), default=None)
    OLDEST_SECONDS.set((tx.now - oldest).total_seconds() if oldest else 0)
