"""Breaches of personal data: recorded, whom they affect by the log, told in time, closed by two officers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.metrics import REGISTRY
from clinic_shared.service import Runtime
from clinic_shared.timers import Timer, Timers
from prometheus_client import Gauge
from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_audit.breach_domain import Breach, BreachState, Clock, Scope, clocks_of
from clinic_audit.breach_tables import breach, breach_clock
from clinic_audit.search import Wanted
from clinic_audit.tables import audit_record

timers = Timers()

CLOCK = "breach-clock"
_SUCCESS = "0"
_LISTED = 200
_SCOPE = tuple(Scope.__dataclass_fields__)

OVERDUE = Gauge(
    "clinic_audit_breach_notices_overdue",
    "Notices of breaches that are past their deadline",
    registry=REGISTRY,
)
DUE = Gauge(
    "clinic_audit_breach_notice_due_timestamp_seconds",
    "When the next notice of a breach is due; 0 when none is waited for",
    registry=REGISTRY,
)


@dataclass(frozen=True, kw_only=True)
class Affected:
    """A patient whose record was reached within a breach's scope."""

    patient_id: UUID
    accesses: int
    first_at: datetime
    last_at: datetime


async def record(
    tx: Transaction,
    *,
    jurisdiction: str,
    summary: str,
    scope: Scope,
    discovered_at: datetime,
    owner_id: UUID | None,
) -> Breach:
    """Record a breach; its clocks have run since it was discovered, not since somebody wrote it down."""
    by = tx.context.principal.subject
    found = Breach(
        breach_id=uuid7(),
        version=1,
        state=BreachState.OPEN,
        jurisdiction=jurisdiction,
        summary=summary,
        scope=scope,
        discovered_at=discovered_at,
        recorded_at=tx.now,
        recorded_by=by,
        owner_id=owner_id or by,
        clocks=clocks_of(jurisdiction, discovered_at),
    )
    await tx.execute(insert(breach).values(_values(found)))
    await _save_clocks(tx, found)
    for clock in found.clocks:
        await tx.schedule(
            Timer(
                kind=CLOCK,
                subject=found.breach_id,
                subject_version=1,
                occurrence=clock.name,
                due_at=clock.due_at,
            )
        )
    _audit(tx, Action.CREATE, found)
    return found


async def list_some(tx: Transaction, *, state: BreachState | None) -> list[Breach]:
    """Return what isn't closed, or what is in one state, the oldest first."""
    wanted = breach.c.state != BreachState.CLOSED.value if state is None else breach.c.state == state.value
    rows = await tx.fetch_all(select(breach).where(wanted).order_by(breach.c.breach_id).limit(_LISTED))
    found = await _with_clocks(tx, rows)
    for one in found:
        _audit(tx, Action.READ, one)
    return found


async def read(tx: Transaction, breach_id: UUID) -> Breach:
    """Raises NotFoundError."""
    found = await _find(tx, breach_id)
    _audit(tx, Action.READ, found)
    return found


async def affected(tx: Transaction, breach_id: UUID, *, after: UUID | None, limit: int) -> list[Affected]:
    """Return whose records were reached, by id. The log doesn't change, so neither does the list."""
    found = await _find(tx, breach_id)
    of, columns = found.scope, audit_record.c
    wanted = Wanted(
        since=of.since,
        until=of.until,
        agent=of.actor,
        action=of.action,
        producer=of.service,
        entity_type=of.resource_type,
        outcome=_SUCCESS,
        of_people_only=True,
    )
    statement = (
        select(
            columns.patient_id,
            func.count().label("accesses"),
            func.min(columns.recorded_at).label("first_at"),
            func.max(columns.recorded_at).label("last_at"),
        )
        .where(*wanted.conditions(), columns.patient_id.is_not(None))
        .group_by(columns.patient_id)
        .order_by(columns.patient_id)
        .limit(limit)
    )
    rows = await tx.fetch_all(statement if after is None else statement.where(columns.patient_id > after))
    _audit(tx, Action.READ, found, patients=str(len(rows)))
    return [Affected(**row._mapping) for row in rows]  # noqa: SLF001  # SQLAlchemy's public name for it


async def meet(tx: Transaction, breach_id: UUID, name: str, *, note: str) -> Breach:
    """Record that a notice was given, or why it isn't due."""
    found = await _lock(tx, breach_id)
    changed = found.with_met(name, by=tx.context.principal.subject, at=tx.now, note=note)
    return await _save(tx, changed, clock=name)


async def ask_to_close(tx: Transaction, breach_id: UUID, *, conclusion: str) -> Breach:
    found = await _lock(tx, breach_id)
    return await _save(tx, found.closing(by=tx.context.principal.subject, at=tx.now, conclusion=conclusion))


async def reopen(tx: Transaction, breach_id: UUID) -> Breach:
    return await _save(tx, (await _lock(tx, breach_id)).reopened())


async def close(tx: Transaction, breach_id: UUID) -> Breach:
    found = await _lock(tx, breach_id)
    return await _save(tx, found.closed(by=tx.context.principal.subject, at=tx.now))


@timers.on(CLOCK)
async def note_overdue(tx: Transaction, timer: Timer) -> None:
    found = await _lock(tx, timer.subject)
    if any(clock.name == timer.occurrence and clock.met_at is None for clock in found.clocks):
        await _save(tx, found.overdue(timer.occurrence, tx.now), overdue=timer.occurrence)


async def measure_breaches(_: Runtime, tx: Transaction) -> None:
    late = breach_clock.c.overdue_at.is_not(None)
    row = await tx.fetch_one(
        select(
            func.count().filter(late).label("late"),
            func.min(breach_clock.c.due_at).filter(~late).label("next_due_at"),
        ).where(breach_clock.c.met_at.is_(None))
    )
    OVERDUE.set(row.late if row else 0)
    DUE.set(row.next_due_at.timestamp() if row and row.next_due_at else 0)


async def _lock(tx: Transaction, breach_id: UUID) -> Breach:
    await tx.execute(select(breach.c.breach_id).where(breach.c.breach_id == breach_id).with_for_update())
    return await _find(tx, breach_id)


async def _find(tx: Transaction, breach_id: UUID) -> Breach:
    found = await _with_clocks(tx, await tx.fetch_all(select(breach).where(breach.c.breach_id == breach_id)))
    if not found:
        raise NotFoundError
    return found[0]


async def _with_clocks(tx: Transaction, rows: Sequence[Row[Any]]) -> list[Breach]:
    ids = [row.breach_id for row in rows]
    clocks: dict[UUID, list[Clock]] = {breach_id: [] for breach_id in ids}
    for row in await tx.fetch_all(
        select(breach_clock)
        .where(breach_clock.c.breach_id.in_(ids))
        .order_by(breach_clock.c.due_at, breach_clock.c.name)
    ):
        values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
        clocks[values.pop("breach_id")].append(Clock(**values))
    return [_breach(row, clocks[row.breach_id]) for row in rows]


async def _save(tx: Transaction, changed: Breach, **details: str) -> Breach:
    this = breach.c.breach_id == changed.breach_id
    await tx.execute(update(breach).where(this).values(_values(changed)))
    await _save_clocks(tx, changed)
    _audit(tx, Action.UPDATE, changed, **details)
    return changed


async def _save_clocks(tx: Transaction, of: Breach) -> None:
    rows = [{"breach_id": of.breach_id, **asdict(clock)} for clock in of.clocks]
    statement = upsert(breach_clock)
    changing = {name: statement.excluded[name] for name in ("met_at", "met_by", "note", "overdue_at")}
    await tx.execute(
        statement.on_conflict_do_update(index_elements=breach_clock.primary_key.columns, set_=changing), rows
    )


def _values(of: Breach) -> dict[str, Any]:
    values: dict[str, Any] = asdict(of)
    del values["clocks"]
    scope: dict[str, Any] = values.pop("scope")
    return values | scope | {"state": of.state.value}


def _breach(row: Row[Any], clocks: Sequence[Clock]) -> Breach:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    scope = Scope(**{name: values.pop(name) for name in _SCOPE})
    return Breach(**values | {"state": BreachState(row.state)}, scope=scope, clocks=clocks)


def _audit(tx: Transaction, action: Action, of: Breach, **details: str) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="Breach",
            resource_id=of.breach_id,
            details={"state": of.state.value, **details},
        )
    )
