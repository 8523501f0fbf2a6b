"""What was found suspicious, as incidents: kept once, told, taken by a privacy officer and closed with a finding."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, NotFoundError
from clinic_shared.ids import uuid7
from sqlalchemy import Row, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from clinic_audit.detection import Alarm
from clinic_audit.detection_rules import Rule, Severity
from clinic_audit.detection_tables import suspicion

REVIEWED_WITHIN = {Severity.HIGH: timedelta(hours=24), Severity.MEDIUM: timedelta(hours=72)}


class State(StrEnum):
    OPEN = "open"
    TAKEN = "taken"
    CLOSED = "closed"


class Finding(StrEnum):
    MISUSE = "misuse"
    EXPLAINED = "explained"
    """It happened, and there was a reason that the log doesn't tell."""
    FALSE_ALARM = "false-alarm"


class SuspicionStateError(DomainError):
    """Somebody took it before, or it is closed, or nobody has taken it yet."""

    slug: ClassVar[str] = "suspicion-state"
    title: ClassVar[str] = "Its state doesn't allow this"
    fix: ClassVar[str] = "Read it again: one who has taken it closes it, and what is closed stays so."


class OwnSuspicionError(DomainError):
    """Nobody judges what they are suspected of."""

    slug: ClassVar[str] = "suspicion-own"
    title: ClassVar[str] = "Another privacy officer has to judge this"
    fix: ClassVar[str] = "Ask another privacy officer: this one is about you."


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    suspicion_id: UUID
    version: int
    occasion: str
    rule: Rule
    severity: Severity
    state: State
    person: UUID
    patient_id: UUID | None
    first_at: datetime
    last_at: datetime
    records: Sequence[int]
    figures: dict[str, int]
    detected_at: datetime
    review_due_at: datetime
    taken_by: UUID | None = None
    taken_at: datetime | None = None
    closed_by: UUID | None = None
    closed_at: datetime | None = None
    finding: Finding | None = None
    comment: str | None = None

    @classmethod
    def of(cls, alarm: Alarm, now: datetime) -> "Suspicion":
        return cls(
            suspicion_id=uuid7(),
            version=1,
            occasion=alarm.occasion,
            rule=alarm.rule,
            severity=alarm.severity,
            state=State.OPEN,
            person=alarm.person,
            patient_id=alarm.patient,
            first_at=alarm.first_at,
            last_at=alarm.last_at,
            records=list(alarm.records),
            figures=dict(alarm.figures),
            detected_at=now,
            review_due_at=now + REVIEWED_WITHIN[alarm.severity],
        )

    def taken(self, by: UUID, now: datetime) -> "Suspicion":
        if self.state is not State.OPEN:
            raise SuspicionStateError(f"It is {self.state}.")
        if by == self.person:
            raise OwnSuspicionError
        return replace(self, version=self.version + 1, state=State.TAKEN, taken_by=by, taken_at=now)

    def closed(self, by: UUID, now: datetime, finding: Finding, comment: str) -> "Suspicion":
        if self.state is not State.TAKEN:
            raise SuspicionStateError(f"It is {self.state}.")
        if by == self.person:
            raise OwnSuspicionError
        return replace(
            self,
            version=self.version + 1,
            state=State.CLOSED,
            closed_by=by,
            closed_at=now,
            finding=finding,
            comment=comment,
        )


async def keep(tx: Transaction, alarm: Alarm) -> Suspicion | None:
    """Keep what was found; None when this occasion is known, since the log may be gone through again."""
    found = Suspicion.of(alarm, tx.now)
    row = await tx.fetch_one(
        insert(suspicion)
        .values(asdict(found))
        .on_conflict_do_nothing(index_elements=["occasion"])
        .returning(suspicion.c.suspicion_id)
    )
    return None if row is None else found


async def take(tx: Transaction, suspicion_id: UUID) -> Suspicion:
    found = await _lock(tx, suspicion_id)
    return await _save(tx, found.taken(tx.context.principal.subject, tx.now))


async def close(tx: Transaction, suspicion_id: UUID, *, finding: Finding, comment: str) -> Suspicion:
    found = await _lock(tx, suspicion_id)
    return await _save(tx, found.closed(tx.context.principal.subject, tx.now, finding, comment))


async def list_some(
    tx: Transaction,
    *,
    state: State | None,
    person: UUID | None,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Suspicion]:
    """Return what waits, the oldest first; or what is in one state."""
    columns = suspicion.c
    statement = select(suspicion).order_by(columns.detected_at, columns.suspicion_id).limit(limit)
    if state is None:
        statement = statement.where(columns.state != State.CLOSED.value)
    else:
        statement = statement.where(columns.state == state.value)
    if person is not None:
        statement = statement.where(columns.person == person)
    if after is not None:
        statement = statement.where(tuple_(columns.detected_at, columns.suspicion_id) > after)
    found = [_read(row) for row in await tx.fetch_all(statement)]
    for one in found:
        _audit(tx, one, Action.READ)
    return found


async def _lock(tx: Transaction, suspicion_id: UUID) -> Suspicion:
    row = await tx.fetch_one(
        select(suspicion).where(suspicion.c.suspicion_id == suspicion_id).with_for_update()
    )
    if row is None:
        raise NotFoundError
    return _read(row)


async def _save(tx: Transaction, changed: Suspicion) -> Suspicion:
    await tx.execute(
        update(suspicion).where(suspicion.c.suspicion_id == changed.suspicion_id).values(asdict(changed))
    )
    _audit(tx, changed, Action.UPDATE)
    return changed


def _audit(tx: Transaction, of: Suspicion, action: Action) -> None:
    details = {"rule": of.rule.value, "state": of.state.value, "person": str(of.person)}
    if of.finding is not None:
        details["finding"] = of.finding.value
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="Suspicion",
            resource_id=of.suspicion_id,
            patient_id=of.patient_id,
            details=details,
        )
    )


def _read(row: Row[Any]) -> Suspicion:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    return Suspicion(
        **{
            **values,
            "rule": Rule(row.rule),
            "severity": Severity(row.severity),
            "state": State(row.state),
            "finding": None if row.finding is None else Finding(row.finding),
        }
    )
