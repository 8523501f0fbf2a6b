"""What is looked for in the log, and the rows it comes to."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared import merges
from clinic_shared.database import Transaction
from sqlalchemy import ColumnElement, Row, select

from clinic_audit.tables import audit_record

column = audit_record.c
OUTSIDE = "client"
"""The kind of callers outside the network: laboratories, apps."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Everything given must match; times are of the act, from `since` until before `until`."""

    person: Collection[UUID] = ()
    """The records of one patient: several, where they were merged."""
    agent: UUID | None = None
    entity_id: str | None = None
    entity_type: str | None = None
    producer: str | None = None
    action: str | None = None
    outcome: str | None = None
    request_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    outside_only: bool = False
    of_people_only: bool = False
    """Without what the platform did by itself."""

    def conditions(self) -> list[ColumnElement[bool]]:
        exact = (
            "agent",
            "entity_id",
            "entity_type",
            "producer",
            "action",
            "outcome",
            "request_id",
        )
        found = [column[name] == value for name in exact if (value := getattr(self, name)) is not None]
        if self.person:
            found.append(column.patient_id.in_(self.person))
        if self.since is not None:
            found.append(column.recorded_at >= self.since)
        if self.until is not None:
            found.append(column.recorded_at < self.until)
        if self.outside_only:
            found.append(column.agent_kind == OUTSIDE)
        if self.of_people_only:
            found.append(column.agent != UUID(int=0))
        return found


async def person_of(tx: Transaction, patient_id: UUID | None) -> Collection[UUID]:
    """Return the records that are searched when one patient is asked for: all that are the same person's."""
    return () if patient_id is None else await merges.records_of(tx, patient_id)


async def find(
    tx: Transaction, wanted: Wanted, *, after: int | None, limit: int, newest_first: bool = False
) -> Sequence[Row[Any]]:
    """Return records in the order of the log, or the newest first, beyond the one with index `after`."""
    statement = select(audit_record).where(*wanted.conditions()).limit(limit)
    if newest_first:
        statement = statement.order_by(column.leaf_index.desc())
        beyond = column.leaf_index < (after if after is not None else 0)
    else:
        statement = statement.order_by(column.leaf_index)
        beyond = column.leaf_index > (after if after is not None else 0)
    return await tx.fetch_all(statement if after is None else statement.where(beyond))


async def find_one(tx: Transaction, record_id: UUID) -> Row[Any] | None:
    rows = await tx.fetch_all(select(audit_record).where(column.record_id == record_id).limit(1))
    return rows[0] if rows else None
