"""Queries of what was opened in emergencies."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import Row, func, insert, select, update

from clinic_patients.break_glass_domain import (
    SUSPENDED_FOR,
    BreakGlass,
    BreakGlassState,
    ReasonCode,
    Verdict,
)
from clinic_patients.tables import break_glass

_COLUMNS = break_glass.c
_LOCK = 0x0C4A_0002


async def add(tx: Transaction, new: BreakGlass) -> None:
    await tx.execute(insert(break_glass).values(asdict(new)))


async def save(tx: Transaction, changed: BreakGlass) -> None:
    await tx.execute(
        update(break_glass).where(_COLUMNS.break_glass_id == changed.break_glass_id).values(asdict(changed))
    )


async def lock(tx: Transaction, break_glass_id: UUID) -> BreakGlass | None:
    row = await tx.fetch_one(
        select(break_glass).where(_COLUMNS.break_glass_id == break_glass_id).with_for_update()
    )
    return None if row is None else _read(row)


async def lock_person(tx: Transaction, staff_id: UUID) -> None:
    """Let one person's starts be counted one after the other."""
    await tx.execute(select(func.pg_advisory_xact_lock(_LOCK, func.hashtext(str(staff_id)))))


async def count_recent(tx: Transaction, staff_id: UUID) -> int:
    """Return how often somebody did it within a day; what was only asked for doesn't count."""
    return await _count(tx, staff_id, _COLUMNS.started_at > tx.now - timedelta(days=1))


async def count_unreviewed(tx: Transaction, staff_id: UUID) -> int:
    """Return what has ended and waits for a judgement."""
    return await _count(tx, staff_id, _COLUMNS.state == BreakGlassState.ENDED.value)


async def is_suspended(tx: Transaction, staff_id: UUID) -> bool:
    judged = _COLUMNS.verdict == Verdict.UNJUSTIFIED.value
    return await _count(tx, staff_id, judged & (_COLUMNS.reviewed_at > tx.now - SUSPENDED_FOR)) > 0


async def _count(tx: Transaction, staff_id: UUID, condition: Any) -> int:
    row = await tx.fetch_one(select(func.count()).where(_COLUMNS.staff_id == staff_id, condition))
    assert row is not None  # noqa: S101  # an aggregate always answers
    return int(row[0])


async def list_open(
    tx: Transaction, *, state: BreakGlassState | None, after: tuple[datetime, UUID] | None, limit: int
) -> list[BreakGlass]:
    """Return what was opened, the longest waiting first; without `state`, all that isn't judged."""
    statement = select(break_glass).order_by(_COLUMNS.requested_at, _COLUMNS.break_glass_id).limit(limit)
    if state is not None:
        statement = statement.where(_COLUMNS.state == state.value)
    else:
        statement = statement.where(_COLUMNS.state != BreakGlassState.REVIEWED.value)
    if after is not None:
        requested_at, break_glass_id = after
        statement = statement.where(
            (_COLUMNS.requested_at > requested_at)
            | ((_COLUMNS.requested_at == requested_at) & (_COLUMNS.break_glass_id > break_glass_id))
        )
    return _all(await tx.fetch_all(statement))


async def list_of_patient(tx: Transaction, patient_id: UUID) -> list[BreakGlass]:
    """Return at most 500, the newest first."""
    return _all(
        await tx.fetch_all(
            select(break_glass)
            .where(_COLUMNS.patient_id == patient_id, _COLUMNS.started_at.is_not(None))
            .order_by(_COLUMNS.started_at.desc(), _COLUMNS.break_glass_id)
            .limit(500)
        )
    )


def _all(rows: Sequence[Row[Any]]) -> list[BreakGlass]:
    return [_read(row) for row in rows]


def _read(row: Row[Any]) -> BreakGlass:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    verdict = values.pop("verdict")
    return BreakGlass(
        **values
        | {
            "state": BreakGlassState(values["state"]),
            "reason_code": ReasonCode(values["reason_code"]),
            "verdict": Verdict(verdict) if verdict else None,
        }
    )
