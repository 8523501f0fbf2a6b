"""Dry runs: messages are handled in the order of their keys, and everything is rolled back.

Handlers call nobody outside (that is a worker's business, after a commit), so nothing leaves either.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from sqlalchemy import Row, func, select, text

from clinic_shared.consumer import Disposition, context_of
from clinic_shared.database import Transaction
from clinic_shared.dead_letters.handling import envelope_of, handle
from clinic_shared.dead_letters.selection import Filter, letter
from clinic_shared.failures import Failure, Verdict, judge
from clinic_shared.held import held_table

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

LARGEST = 200
"""So many messages in one answer; the rest is asked for after the last id."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`applied`, `duplicate`, `failed` with its error, or `skipped`: an earlier one of its key fails."""

    held_id: int
    event_id: UUID
    outcome: str
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What would become of the first messages of a selection; `left` is how many it has beyond them."""

    outcomes: list[Outcome]
    left: int


class _RehearsedError(Exception):
    """Ends a dry run's transaction without a commit."""


async def dry_run(runtime: "Runtime", chosen: Filter, *, after_id: int = 0) -> Rehearsal:
    """Say what a redrive would do now. Keys are rehearsed apart, so that locks are held shortly."""
    where = [*chosen.conditions(), letter.superseded_by.is_(None), letter.id > after_id]
    async with runtime.database.transaction() as tx:
        rows = await tx.fetch_all(select(held_table).where(*where).order_by(letter.id).limit(LARGEST))
        total = await tx.fetch_one(select(func.count()).select_from(held_table).where(*where))
    outcomes: list[Outcome] = []
    by_key = sorted(rows, key=lambda row: (row.partition_key, row.place or row.id, row.id))
    for _, members in groupby(by_key, key=lambda row: row.partition_key):
        outcomes += await _rehearse(runtime, list(members))
    return Rehearsal(
        outcomes=sorted(outcomes, key=lambda outcome: outcome.held_id),
        left=(total[0] if total is not None else 0) - len(rows),
    )


async def _rehearse(runtime: "Runtime", rows: Sequence[Row[Any]]) -> list[Outcome]:
    """Handle one key's messages one after the other, each as if those before it had taken effect."""
    outcomes: list[Outcome] = []
    with suppress(_RehearsedError):
        await _handle_all(runtime, rows, outcomes)
    return outcomes


async def _handle_all(runtime: "Runtime", rows: Sequence[Row[Any]], outcomes: list[Outcome]) -> NoReturn:
    async with runtime.database.transaction() as tx:
        for row in rows:
            if outcomes and outcomes[-1].outcome in {"failed", "skipped"}:
                one = Outcome(held_id=row.id, event_id=row.event_id, outcome="skipped", error="EarlierFailed")
            else:
                one = await _try(tx, runtime, row)
            outcomes.append(one)
        raise _RehearsedError


async def _try(tx: Transaction, runtime: "Runtime", row: Row[Any]) -> Outcome:
    try:
        async with tx.connection.begin_nested():
            tx.context = context_of(envelope_of(row))
            disposition: Disposition = await handle(tx, runtime.service.handlers, row)
            await tx.flush()
            # What is checked at the commit is checked here instead.
            await tx.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    except Exception as error:  # the answer to the question that was asked
        if judge(error) is Verdict.DISCONNECTED:
            raise
        failure = Failure.of(row.type, error, consumer=tx.service)
        return Outcome(held_id=row.id, event_id=row.event_id, outcome="failed", error=failure.error)
    finally:
        tx.forget()
    return Outcome(held_id=row.id, event_id=row.event_id, outcome=disposition.value)
