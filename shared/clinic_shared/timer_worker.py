"""Fires due timers: one transaction each, claimed with SKIP LOCKED so that replicas share the work."""

import asyncio
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Row, select, update

from clinic_shared import tracing
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.lookout import Lookout
from clinic_shared.metrics import TIMERS_TOTAL
from clinic_shared.service import Runtime
from clinic_shared.timers import Timer, timer_table

log = structlog.get_logger()

POLL_SECONDS = 0.5
_DUE = "SELECT 1 FROM timer WHERE state = 'pending' AND next_attempt_at <= now()"
RETRY_DELAYS = tuple(timedelta(seconds=s) for s in (5, 30, 120, 600, 3600))


class TimerWorker:
    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.handlers = runtime.service.timers.handlers
        self._duty = Lookout.of(runtime).duty("timers", _DUE, every_seconds=POLL_SECONDS)

    async def run(self, stop: asyncio.Event) -> None:
        """Fire timers until told to stop. Survives every error; nothing fires without handlers."""
        if not self.handlers:
            return
        while not stop.is_set():
            try:
                fired = await self.fire_next()
            except Exception as error:  # noqa: BLE001  # the loop must outlive a database that is down
                log.warning("timer_loop_failed", error_class=type(error).__name__)
                fired = False
            if not fired:
                await self._duty.wait(stop)

    async def fire_next(self) -> bool:
        """Fire one due timer in its own transaction. Returns False when none is due."""
        with ExitStack() as trace:  # its span ends after the commit
            async with self.runtime.database.transaction(Context()) as transaction:
                row = await self._claim_next(transaction)
                if row is None:
                    return False
                trace.enter_context(tracing.firing(row.kind, traceparent=row.traceparent))
                transaction.context = _context_of(row)
                await self._fire(transaction, row)
            return True

    async def _claim_next(self, transaction: Transaction) -> Row[Any] | None:
        return await transaction.fetch_one(
            select(timer_table, (timer_table.c.useful_until <= transaction.shared_now).label("is_outlived"))
            .where(
                timer_table.c.state == "pending",
                timer_table.c.next_attempt_at <= transaction.shared_now,
                timer_table.c.kind.in_(self.handlers),
            )
            .order_by(timer_table.c.next_attempt_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )

    async def _fire(self, transaction: Transaction, row: Row[Any]) -> None:
        timer = _timer(row)
        mine = update(timer_table).where(timer_table.c.timer_id == row.timer_id)
        if row.is_outlived:
            await transaction.execute(mine.values(state="expired", finished_at=transaction.now))
            TIMERS_TOTAL.labels(kind=timer.kind, outcome="expired").inc()
            return
        try:
            # A savepoint: a handler that fails takes its own writes back and leaves the row to us.
            async with transaction.connection.begin_nested():
                await self.handlers[timer.kind](transaction, timer)
                await transaction.execute(mine.values(state="done", finished_at=transaction.now))
        except Exception as error:  # noqa: BLE001  # one timer's failure never stops the others
            transaction.forget()
            delay = RETRY_DELAYS[min(row.attempts, len(RETRY_DELAYS) - 1)]
            await transaction.execute(
                mine.values(
                    attempts=row.attempts + 1,
                    next_attempt_at=transaction.shared_now + delay,
                    last_error=type(error).__name__,
                )
            )
            log.warning("timer_failed", timer_kind=timer.kind, error_class=type(error).__name__)
            TIMERS_TOTAL.labels(kind=timer.kind, outcome="failed").inc()
            return
        TIMERS_TOTAL.labels(kind=timer.kind, outcome="done").inc()


def _timer(row: Row[Any]) -> Timer:
    return Timer(
        kind=row.kind,
        subject=row.subject,
        subject_version=row.subject_version,
        occurrence=row.occurrence,
        due_at=row.due_at,
        useful_until=row.useful_until,
        payload=row.payload,
    )


def _context_of(row: Row[Any]) -> Context:
    """Return the context of what a timer causes: that of what set it."""
    if row.correlation_id is None:  # set by an earlier release
        return Context()
    return Context(
        correlation_id=row.correlation_id, causation_id=row.causation_id, traceparent=row.traceparent
    )
