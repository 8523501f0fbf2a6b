"""What waits, row by row and grouped by cause. Never a payload."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select

from clinic_shared.database import Transaction
from clinic_shared.dead_letters.selection import Filter, letter, shown_state
from clinic_shared.errors import NotFoundError
from clinic_shared.held import attempt_table, held_table

COLUMNS = [column for column in letter if column.name not in {"body", "state"}] + [shown_state.label("state")]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Messages that failed alike. `selectable` of them are parked and nobody has decided about them."""

    cause: str
    type: str
    queue: str
    error: str
    count: int
    held: int
    parked: int
    redriving: int
    discarded: int
    superseded: int
    selectable: int
    first_seen_at: datetime
    last_seen_at: datetime
    example_id: int
    last_id: int


class SettledError(NotFoundError):
    """The message took effect since; nothing of it waits any more."""


async def count_by_state(tx: Transaction) -> dict[str, int]:
    statement = select(letter.state, func.count().label("messages")).group_by(letter.state)
    return {row.state: row.messages for row in await tx.fetch_all(statement)}


async def groups(tx: Transaction, chosen: Filter | None = None) -> list[Group]:
    """Return messages grouped by cause, the largest group first.

    Without a state to filter by, groups of which nothing waits any more are left out.
    """
    chosen = chosen or Filter()
    waiting = letter.state.in_(("held", "parked"))
    open_parked = (letter.state == "parked") & letter.run_id.is_(None)

    def counted(*states: str) -> Any:
        return func.count().filter(shown_state.in_(states))

    statement = (
        select(
            letter.cause,
            letter.type,
            letter.queue,
            func.max(letter.error).label("error"),
            func.count().label("count"),
            *(counted(state).label(state) for state in ("held", "parked", "discarded", "superseded")),
            func.count().filter(letter.run_id.is_not(None)).label("redriving"),
            func.count().filter(open_parked).label("selectable"),
            func.min(letter.first_failed_at).label("first_seen_at"),
            func.max(letter.last_failed_at).label("last_seen_at"),
            func.min(letter.id).label("example_id"),
            func.max(letter.id).label("last_id"),
        )
        .where(*chosen.conditions())
        .group_by(letter.cause, letter.type, letter.queue)
        .order_by(func.count().desc(), letter.cause)
    )
    if chosen.state is None:
        statement = statement.having(func.count().filter(waiting) > 0)
    return [Group(**row._mapping) for row in await tx.fetch_all(statement)]  # noqa: SLF001  # SQLAlchemy's public name for it


async def listed(
    tx: Transaction, chosen: Filter | None = None, *, limit: int = 100, after_id: int = 0
) -> Sequence[Row[Any]]:
    """Return rows without their bodies, oldest first."""
    where = (chosen or Filter()).conditions()
    statement = select(*COLUMNS).where(letter.id > after_id, *where).order_by(letter.id)
    return await tx.fetch_all(statement.limit(limit))


async def shown(tx: Transaction, row_id: int) -> Row[Any]:
    """Return one row with its body. Raises NotFoundError, SettledError for what has taken effect."""
    row = await tx.fetch_one(select(held_table.c.body, *COLUMNS).where(letter.id == row_id))
    if row is not None:
        return row
    last = await tx.fetch_one(
        select(attempt_table.c.attempted_at, attempt_table.c.outcome, attempt_table.c.run_id)
        .where(attempt_table.c.held_id == row_id, attempt_table.c.outcome != "failed")
        .order_by(attempt_table.c.id.desc())
        .limit(1)
    )
    if last is None:
        raise NotFoundError
    raise SettledError(
        f"The message took effect by {last.attempted_at.isoformat(timespec='seconds')}.",
        outcome=last.outcome,
        run_id=last.run_id,
    )
