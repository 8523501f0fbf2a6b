"""Dry runs: items are processed as this release would, told what they would publish, and rolled back."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Row, select, text

from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.failures import Failure, Verdict, judge
from clinic_shared.inbound.accounts import fates_of
from clinic_shared.inbound.registry import Inbound, work_off
from clinic_shared.inbound.selection import named, parked
from clinic_shared.intake_order import by_turn
from clinic_shared.intake_store import intake_table, item_of

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

LARGEST = 100


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """`would` is processed or failed; `fates` and `events` say what would follow, by number."""

    item_id: UUID
    would: str
    error: str | None = None
    fates: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)


class _RehearsedError(Exception):
    """Ends a dry run's transaction without a commit."""


async def dry_run(runtime: "Runtime", *, ids: list[UUID], cause: str | None) -> list[Rehearsed]:
    """Say what would become of items, each as if those before it had been processed."""
    chosen = named(ids, Inbound.of(runtime).repeatable) if ids else parked(cause)
    outcomes: list[Rehearsed] = []
    with suppress(_RehearsedError):
        async with runtime.database.transaction() as tx:
            in_order = select(intake_table).where(chosen).order_by(*by_turn(intake_table))
            rows = await tx.fetch_all(in_order.limit(LARGEST))
            outcomes += [await _try(tx, runtime, row) for row in rows]
            raise _RehearsedError
    return outcomes


async def _try(tx: Transaction, runtime: "Runtime", row: Row[Any]) -> Rehearsed:
    inbound = Inbound.of(runtime)
    try:
        async with tx.connection.begin_nested():
            received = item_of(tx, row)
            tx.context = Context(correlation_id=received.correlation_id, traceparent=received.traceparent)
            await work_off(inbound.processing[row.interface], tx, row, received)
            events = dict(Counter(event["type"] for event in tx.emitted))
            await tx.flush()
            await tx.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
            fates = await _fates(tx, inbound, row)
    except Exception as error:  # the answer to the question that was asked
        if judge(error) is Verdict.DISCONNECTED:
            raise
        failure = Failure.of(row.interface, error, consumer=tx.service)
        return Rehearsed(item_id=row.id, would="failed", error=failure.error)
    finally:
        tx.forget()
    return Rehearsed(item_id=row.id, would="processed", fates=fates, events=events)


async def _fates(tx: Transaction, inbound: Inbound, row: Row[Any]) -> Mapping[str, int]:
    interface = inbound.interfaces.get(row.interface)
    found = await tx.fetch_all(fates_of(interface, row.id)) if interface is not None else []
    return dict(Counter(fate.disposition for fate in found))
