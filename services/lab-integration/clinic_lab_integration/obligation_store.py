"""The queries of obligations and of who is on duty. An obligation is never deleted: the database refuses it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared.bulk import InsertRows
from clinic_shared.database import Transaction
from sqlalchemy import Row, exists, func, select, true, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_lab_integration.escalation import Duty, ObligationKind, ObligationStatus, OwnerRole, Rung
from clinic_lab_integration.tables import duty, obligation, practitioner


@dataclass(frozen=True, kw_only=True)
class Obligation:
    """Somebody has to answer for a version of a result. `due_at` is when the next one is asked."""

    obligation_id: UUID
    kind: ObligationKind
    version: int
    status: ObligationStatus
    result_id: UUID
    result_version: int
    patient_id: UUID
    partner_id: UUID
    lab_order_id: UUID | None
    practitioner_id: UUID | None
    centre_id: UUID | None
    department_id: UUID | None
    reader_id: UUID | None
    seconds: int
    owner_role: OwnerRole
    owner_id: UUID | None
    raised_at: datetime
    acknowledge_by_at: datetime
    due_at: datetime
    escalations: int = 0
    acknowledged_at: datetime | None = None
    acknowledged_by: UUID | None = None
    comment: str | None = None

    def escalated(self, to: Rung, now: datetime) -> "Obligation":
        return replace(
            self,
            version=self.version + 1,
            status=ObligationStatus.ESCALATED,
            owner_role=to.role,
            owner_id=to.owner_id,
            due_at=now + to.patience,
            escalations=self.escalations + 1,
        )

    def acknowledged(self, by: UUID, comment: str, now: datetime) -> "Obligation":
        return replace(
            self,
            version=self.version + 1,
            status=ObligationStatus.ACKNOWLEDGED,
            acknowledged_at=now,
            acknowledged_by=by,
            comment=comment,
        )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Which obligations a list holds; `within` are the (centre ids, department ids) that the reader works in."""

    reader_id: UUID
    within: tuple[Iterable[UUID], Iterable[UUID]] | None
    kind: ObligationKind | None = None
    waiting: bool = True
    mine: bool = False


_ADD = upsert(obligation).on_conflict_do_nothing(constraint="obligation_once")
_ADD_FIRST = InsertRows(obligation, named=Obligation.__dataclass_fields__, or_nothing=True)


def add_first(tx: Transaction, new: Obligation) -> None:
    """Add what is about a version that nobody can have an obligation about yet."""
    tx.write_later(_ADD_FIRST, vars(new))


async def add(tx: Transaction, new: Obligation) -> bool:
    """Returns False when there is this obligation already."""
    row = await tx.fetch_one(_ADD.values(vars(new)).returning(obligation.c.obligation_id))
    return row is not None


async def save(tx: Transaction, changed: Obligation) -> None:
    await tx.execute(
        update(obligation)
        .where(obligation.c.obligation_id == changed.obligation_id)
        .values({name: value for name, value in vars(changed).items() if name != "obligation_id"})
    )


async def find(tx: Transaction, obligation_id: UUID, *, lock: bool = False) -> Obligation | None:
    statement = select(obligation).where(obligation.c.obligation_id == obligation_id)
    row = await tx.fetch_one(statement.with_for_update() if lock else statement)
    return None if row is None else _obligation(row)


async def lock_waiting_for(tx: Transaction, owner_id: UUID) -> list[Obligation]:
    rows = await tx.fetch_all(
        select(obligation)
        .where(obligation.c.owner_id == owner_id, _waits())
        .order_by(obligation.c.obligation_id)
        .with_for_update()
    )
    return [_obligation(row) for row in rows]


async def is_waiting(tx: Transaction, kind: ObligationKind, result_id: UUID) -> bool:
    row = await tx.fetch_one(
        select(exists().where(obligation.c.result_id == result_id, obligation.c.kind == kind.value, _waits()))
    )
    return bool(row and row[0])


async def list_shown(tx: Transaction, shown: Shown, *, after: UUID | None, limit: int) -> list[Obligation]:
    """Return obligations, the oldest first."""
    columns = obligation.c
    statement = select(obligation).order_by(columns.obligation_id).limit(limit)
    statement = statement.where(_waits() if shown.waiting else ~_waits())
    if shown.within is not None:
        centres, departments = shown.within
        nowhere = columns.centre_id.is_(None) & columns.department_id.is_(None)
        here = columns.centre_id.in_(centres) | columns.department_id.in_(departments)
        statement = statement.where(nowhere | here | (columns.owner_id == shown.reader_id))
    if shown.mine:
        statement = statement.where(columns.owner_id == shown.reader_id)
    if shown.kind is not None:
        statement = statement.where(columns.kind == shown.kind.value)
    if after is not None:
        statement = statement.where(columns.obligation_id > after)
    return [_obligation(row) for row in await tx.fetch_all(statement)]


async def count_waiting(tx: Transaction) -> Sequence[Row[Any]]:
    """Return (kind, waiting, overdue): overdue is past the first deadline, whoever is asked now."""
    columns = obligation.c
    return await tx.fetch_all(
        select(
            columns.kind,
            func.count().label("waiting"),
            func.count().filter(columns.acknowledge_by_at < tx.now).label("overdue"),
        )
        .where(_waits())
        .group_by(columns.kind)
    )


def _waits() -> Any:
    # As the partial index says it.
    return obligation.c.status != ObligationStatus.ACKNOWLEDGED.value


# -- who is on duty


async def find_duty(tx: Transaction, department_id: UUID, *, lock: bool = False) -> Duty | None:
    statement = select(duty).where(duty.c.department_id == department_id)
    row = await tx.fetch_one(statement.with_for_update() if lock else statement)
    return None if row is None else _duty(row)


async def list_duties(tx: Transaction) -> list[Duty]:
    return [_duty(row) for row in await tx.fetch_all(select(duty).order_by(duty.c.department_id))]


async def save_duty(tx: Transaction, changed: Duty) -> None:
    values = {**vars(changed), "changed_at": tx.now}
    await tx.execute(
        upsert(duty).values(values).on_conflict_do_update(index_elements=["department_id"], set_=values)
    )


async def absent_among(tx: Transaction, people: Iterable[UUID | None]) -> list[UUID]:
    """Those who are known to have left, or to see no patients any more."""
    asked = [person for person in people if person is not None]
    if not asked:
        return []
    rows = await tx.fetch_all(
        select(practitioner.c.practitioner_id).where(
            practitioner.c.practitioner_id.in_(asked), practitioner.c.active != true()
        )
    )
    return [row.practitioner_id for row in rows]


async def is_at_work(tx: Transaction, practitioner_id: UUID) -> bool | None:
    """None: nobody knows this person yet."""
    row = await tx.fetch_one(
        select(practitioner.c.active).where(practitioner.c.practitioner_id == practitioner_id)
    )
    return None if row is None else bool(row.active)


# -- rows to values


def _obligation(row: Row[Any]) -> Obligation:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
    values["kind"] = ObligationKind(row.kind)
    values["status"] = ObligationStatus(row.status)
    values["owner_role"] = OwnerRole(row.owner_role)
    return Obligation(**values)


def _duty(row: Row[Any]) -> Duty:
    return Duty(
        department_id=row.department_id, version=row.version, head_id=row.head_id, on_call_id=row.on_call_id
    )
