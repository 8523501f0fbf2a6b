"""Decisions that take two people: asked for by one, open for a day, taken by another.

Each kind has a table of its own with these columns and whatever it is about.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Table, insert, select, update

from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, NotFoundError
from clinic_shared.ids import uuid7

OPEN_FOR = timedelta(hours=24)
"""After that a decision that nobody took is off the table."""


class SelfApprovalError(DomainError):
    """Whoever asked for the decision can't be the second person."""

    slug = "self-approval"
    title = "Somebody else must decide about this"
    fix = "Ask another person who may approve. You can reject, that is withdraw, your own request."


class DecisionIsOverError(DomainError):
    """The request was approved, rejected or expired before."""

    slug = "decision-is-over"
    title = "This was decided before"
    fix = "Read the messages again; those that still wait can be asked for anew."


async def ask(tx: Transaction, table: Table, *, reason: str, **about: Any) -> UUID:
    """Ask for a second person; nothing changes until there is one. Returns the decision's id."""
    decision_id = uuid7()
    await tx.execute(
        insert(table).values(
            decision_id=decision_id,
            state="pending",
            reason=reason,
            requested_by=tx.context.principal.subject,
            requested_at=tx.now,
            expires_at=tx.now + OPEN_FOR,
            **about,
        )
    )
    return decision_id


async def open_one(tx: Transaction, table: Table, decision_id: UUID) -> Row[Any]:
    """Lock a decision that is still to be taken. Raises NotFoundError, DecisionIsOverError."""
    row = await tx.fetch_one(select(table).where(table.c.decision_id == decision_id).with_for_update())
    if row is None:
        raise NotFoundError
    if row.state != "pending":
        raise DecisionIsOverError(f"It is {row.state}.")
    if row.expires_at <= tx.now:
        raise DecisionIsOverError("It is expired.")
    return row


async def second(tx: Transaction, table: Table, decision_id: UUID) -> Row[Any]:
    """The same for whoever agrees: not for whoever asked. Raises SelfApprovalError besides."""
    row = await open_one(tx, table, decision_id)
    if row.requested_by == tx.context.principal.subject:
        raise SelfApprovalError
    return row


async def close(tx: Transaction, table: Table, decision_id: UUID, state: str, reason: str | None) -> None:
    await tx.execute(
        update(table)
        .where(table.c.decision_id == decision_id)
        .values(
            state=state,
            decided_by=tx.context.principal.subject,
            decided_at=tx.now,
            decision_reason=reason,
        )
    )
