"""Redrive runs: a durable list of messages that the worker handles again, one after the other.

A message stays parked until its turn, so it holds up nothing of its key meanwhile. Everything about a
run is in the database: any worker goes on where another one died.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, insert, select, update

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.dead_letters.selection import Selection, SelectionChangedError, audit_decision
from clinic_shared.dead_letters.tables import item_table, run_table
from clinic_shared.errors import DomainError, NotFoundError
from clinic_shared.held import held_table
from clinic_shared.ids import uuid7

DEFAULT_RATE_PER_SECOND = 50


class RunIsOverError(DomainError):
    """The run has ended, so there is nothing left to cancel."""

    slug = "run-is-over"
    title = "The run has ended"
    fix = "Read the run: it says what became of each message."


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A run and what became of its messages; the counts add up to `total`."""

    run_id: UUID
    state: str
    cause: str | None
    total: int
    waiting: int
    applied: int
    duplicate: int
    failed: int
    skipped: int
    cancelled: int
    rate_per_second: int
    reason: str | None
    requested_by: UUID
    requested_at: datetime
    cancelled_by: UUID | None
    finished_at: datetime | None


async def start(
    tx: Transaction,
    selection: Selection,
    *,
    rate_per_second: int = DEFAULT_RATE_PER_SECOND,
    reason: str | None = None,
) -> UUID:
    """Let messages be handled again, in order per key. Raises SelectionChangedError."""
    rows = await selection.lock(tx)
    if not rows:
        raise SelectionChangedError("None of these messages waits any more.", found=0)
    run_id = uuid7()
    await tx.execute(
        insert(run_table).values(
            run_id=run_id,
            state="running",
            cause=selection.cause,
            total=len(rows),
            rate_per_second=rate_per_second,
            reason=reason,
            requested_by=tx.context.principal.subject,
            requested_at=tx.now,
        )
    )
    await tx.execute(insert(item_table), [_item(run_id, row) for row in rows])
    await tx.execute(_taken_by(run_id, tx).where(held_table.c.id.in_([row.id for row in rows])))
    # What somebody discarded and now wants handled is parked until its turn.
    reopened = [row.id for row in rows if row.state == "discarded"]
    await tx.execute(update(held_table).where(held_table.c.id.in_(reopened)).values(state="parked"))
    audit_decision(tx, rows, "redrive", reason=reason, run=str(run_id))
    return run_id


def _taken_by(run_id: UUID, tx: Transaction) -> Any:
    return update(held_table).values(
        run_id=run_id, decided_by=tx.context.principal.subject, decided_at=tx.now, reason=None
    )


def _item(run_id: UUID, row: Row[Any]) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "held_id": row.id,
        "place": row.place or row.id,
        "event_id": row.event_id,
        "partition_key": row.partition_key,
    }


async def cancel(tx: Transaction, run_id: UUID) -> None:
    """Let what hasn't been handled yet be as it was; the one in hand just now is finished.

    Raises NotFoundError, RunIsOverError.
    """
    run = await tx.fetch_one(select(run_table).where(run_table.c.run_id == run_id).with_for_update())
    if run is None:
        raise NotFoundError
    if run.state != "running":
        raise RunIsOverError(f"The run is {run.state}.")
    waiting = select(item_table.c.held_id).where(
        item_table.c.run_id == run_id, item_table.c.state == "waiting"
    )
    ids = (await tx.execute(waiting.with_for_update(skip_locked=True))).scalars().all()
    await tx.execute(
        update(item_table)
        .where(item_table.c.run_id == run_id, item_table.c.held_id.in_(ids))
        .values(state="cancelled", settled_at=tx.now)
    )
    await tx.execute(
        update(held_table).where(held_table.c.id.in_(ids), held_table.c.run_id == run_id).values(run_id=None)
    )
    await tx.execute(
        update(run_table)
        .where(run_table.c.run_id == run_id)
        .values(state="cancelled", cancelled_by=tx.context.principal.subject, finished_at=tx.now)
    )
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="RedriveRun",
            resource_id=run_id,
            details={"decision": "cancel", "messages": str(len(ids))},
        )
    )


async def listed(
    tx: Transaction, *, run_id: UUID | None = None, before: UUID | None = None, limit: int = 50
) -> list[Progress]:
    """Return runs, the newest first (their ids know), or the one asked for."""
    chosen = select(run_table).order_by(run_table.c.run_id.desc()).limit(limit)
    if run_id is not None:
        chosen = chosen.where(run_table.c.run_id == run_id)
    if before is not None:
        chosen = chosen.where(run_table.c.run_id < before)
    run = chosen.subquery()
    settled = func.count(item_table.c.held_id).filter
    states = ("waiting", "applied", "duplicate", "failed", "skipped", "cancelled")
    plain = [run.c[name] for name in Progress.__dataclass_fields__ if name not in states]
    statement = (
        select(*plain, *(settled(item_table.c.state == state).label(state) for state in states))
        .join(item_table, item_table.c.run_id == run.c.run_id)
        .group_by(*plain)
        .order_by(run.c.run_id.desc())
    )
    return [Progress(**row._mapping) for row in await tx.fetch_all(statement)]  # noqa: SLF001


async def progress(tx: Transaction, run_id: UUID) -> Progress:
    """Raises NotFoundError."""
    found = await listed(tx, run_id=run_id)
    if not found:
        raise NotFoundError
    return found[0]


async def items(
    tx: Transaction, run_id: UUID, *, state: str | None = None, after: int = 0, limit: int = 50
) -> Sequence[Row[Any]]:
    """Return what became of each message of a run, in the order of their ids."""
    statement = (
        select(item_table)
        .where(item_table.c.run_id == run_id, item_table.c.held_id > after)
        .order_by(item_table.c.held_id)
        .limit(limit)
    )
    if state is not None:
        statement = statement.where(item_table.c.state == state)
    return await tx.fetch_all(statement)
