"""Letting messages be, for a reason. Above a limit somebody else must agree before anything happens."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, any_, case, exists, func, select, update

from clinic_shared import two_people
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.dead_letters.selection import Selection, SelectionChangedError, audit_decision
from clinic_shared.dead_letters.tables import decision_table
from clinic_shared.held import held_table

LATELY = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class Discarded:
    """How many messages were let be; or which decision now waits for a second person."""

    count: int
    decision_id: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A discard that needs two people. `state` is pending, approved, rejected or expired."""

    decision_id: UUID
    state: str
    count: int
    cause: str | None
    reason: str
    requested_by: UUID
    requested_at: datetime
    expires_at: datetime
    decided_by: UUID | None
    decided_at: datetime | None
    decision_reason: str | None


async def discard(tx: Transaction, selection: Selection, *, reason: str, alone_at_most: int) -> Discarded:
    """Let messages be; more than `alone_at_most` of a person in a day wait for a second one.

    Raises SelectionChangedError.
    """
    rows = await selection.lock(tx)
    if not rows:
        raise SelectionChangedError("None of these messages waits any more.", found=0)
    if len(rows) + await _discarded_alone(tx) > alone_at_most:
        return Discarded(count=0, decision_id=await _ask(tx, selection, rows, reason))
    await _discard(tx, rows, reason)
    return Discarded(count=len(rows))


async def _discarded_alone(tx: Transaction) -> int:
    """Return how many this person discarded lately without anybody else: in portions it is as many."""
    agreed = exists().where(
        decision_table.c.state == "approved", held_table.c.id == any_(decision_table.c.held_ids)
    )
    row = await tx.fetch_one(
        select(func.count())
        .select_from(held_table)
        .where(
            held_table.c.state == "discarded",
            held_table.c.superseded_by.is_(None),
            held_table.c.decided_by == tx.context.principal.subject,
            held_table.c.decided_at > tx.now - LATELY,
            ~agreed,
        )
    )
    return int(row[0]) if row is not None else 0


async def _discard(tx: Transaction, rows: Sequence[Row[Any]], reason: str, **details: str) -> None:
    await tx.execute(
        update(held_table)
        .where(held_table.c.id.in_([row.id for row in rows]))
        .values(
            state="discarded",
            next_attempt_at=None,
            decided_by=tx.context.principal.subject,
            decided_at=tx.now,
            reason=reason,
        )
    )
    # Nothing of a copy took effect, so its original may be decided about again.
    originals = [row.corrects for row in rows if row.corrects is not None]
    await tx.execute(
        update(held_table).where(held_table.c.id.in_(originals)).values(superseded_by=None, state="parked")
    )
    audit_decision(tx, rows, "discard", reason=reason, **details)


async def _ask(tx: Transaction, selection: Selection, rows: Sequence[Row[Any]], reason: str) -> UUID:
    about = {"held_ids": [row.id for row in rows], "cause": selection.cause}
    decision_id = await two_people.ask(tx, decision_table, reason=reason, **about)
    _audit(tx, decision_id, "ask", reason, messages=str(len(rows)))
    return decision_id


async def approve(tx: Transaction, decision_id: UUID) -> Discarded:
    """Agree as the second person, and so let the messages be.

    Raises SelfApprovalError, DecisionIsOverError, NotFoundError; SelectionChangedError when any of the
    messages isn't as it was.
    """
    decision = await two_people.second(tx, decision_table, decision_id)
    rows = await Selection(ids=decision.held_ids).lock(tx)
    asked_by = str(decision.requested_by)
    await _discard(tx, rows, decision.reason, decision_id=str(decision_id), requested_by=asked_by)
    await _close(tx, decision_id, "approved", None)
    return Discarded(count=len(rows), decision_id=decision_id)


async def reject(tx: Transaction, decision_id: UUID, *, reason: str) -> None:
    """Refuse, or withdraw one's own request. The messages stay. Raises as `approve` does."""
    await two_people.open_one(tx, decision_table, decision_id)
    await _close(tx, decision_id, "rejected", reason)


async def _close(tx: Transaction, decision_id: UUID, state: str, reason: str | None) -> None:
    await two_people.close(tx, decision_table, decision_id, state, reason)
    _audit(tx, decision_id, state, reason)


def _audit(tx: Transaction, decision_id: UUID, decision: str, reason: str | None, **details: str) -> None:
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="DeadLetterDecision",
            resource_id=decision_id,
            reason=reason,
            details={"decision": decision, **details},
        )
    )


async def listed(tx: Transaction, *, pending_only: bool = False, limit: int = 50) -> list[Decision]:
    """Return decisions, the newest first."""
    table = decision_table.c
    expired = (table.state == "pending") & (table.expires_at <= tx.now)
    state = case((expired, "expired"), else_=table.state).label("state")
    count = func.cardinality(table.held_ids).label("count")
    plain = [table[name] for name in Decision.__dataclass_fields__ if name not in {"state", "count"}]
    statement = select(state, count, *plain).order_by(table.requested_at.desc()).limit(limit)
    if pending_only:
        statement = statement.where(table.state == "pending", table.expires_at > tx.now)
    return [Decision(**row._mapping) for row in await tx.fetch_all(statement)]  # noqa: SLF001
