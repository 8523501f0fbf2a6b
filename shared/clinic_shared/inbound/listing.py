"""Received items row by row, by cause, and one in full. Never their content: that is `reveal`'s alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Text, case, cast, func, or_, select

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.encryption.ciphers import OVERHEAD_BYTES
from clinic_shared.errors import NotFoundError
from clinic_shared.inbound.accounts import Interface, fates_of, standing
from clinic_shared.inbound.tables import history_table
from clinic_shared.intake_store import CONTENT_ATTRIBUTES, answer_of, body_of, intake_table

item = intake_table.c
COLUMNS = (
    *(column for column in item if column.name not in {"body", "answer", "state", "data_key"}),
    standing.label("state"),
    case(
        (item.data_key.is_(None), func.length(item.body)), else_=func.length(item.body) - OVERHEAD_BYTES
    ).label("size_bytes"),
)
MOST_CAUSES = 100
_CONTENT = {*CONTENT_ATTRIBUTES, "sealed"}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to list. `reference` is what a sender calls a message: a control id, an event's id, its digest."""

    interface: str | None = None
    sender: str | None = None
    state: str | None = None
    cause: str | None = None
    reference: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        exact = {"interface": item.interface, "state": standing, "cause": item.cause}
        found = [
            column == value for name, column in exact.items() if (value := getattr(self, name)) is not None
        ]
        if self.sender is not None:
            found.append(or_(item.sender == self.sender, item.attributes["partner_id"].astext == self.sender))
        if self.reference is not None:
            found.append(
                or_(
                    item.attributes["control_id"].astext == self.reference,
                    func.encode(item.digest, "hex") == self.reference.lower(),
                )
            )
        if self.since is not None:
            found.append(item.received_at >= self.since)
        if self.until is not None:
            found.append(item.received_at < self.until)
        return found


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parked items that failed alike."""

    cause: str
    interface: str
    error: str
    count: int
    first_received_at: datetime
    last_received_at: datetime
    last_id: UUID


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of an item's way. `error` names classes and codes."""

    at: datetime | None
    step: str
    error: str | None = None
    decided_by: UUID | None = None
    reason: str | None = None
    other_id: UUID | None = None


async def listed(tx: Transaction, wanted: Wanted, *, before: UUID | None, limit: int) -> Sequence[Row[Any]]:
    """Return items, the newest first."""
    statement = select(*COLUMNS).where(*wanted.conditions()).order_by(item.id.desc()).limit(limit)
    return await tx.fetch_all(statement if before is None else statement.where(item.id < before))


async def groups(tx: Transaction) -> list[Group]:
    """Return what is parked, by cause, the largest group first."""
    cause = func.coalesce(item.cause, "").label("cause")
    statement = (
        select(
            cause,
            item.interface,
            func.coalesce(func.max(item.last_error), "").label("error"),
            func.count().label("count"),
            func.min(item.received_at).label("first_received_at"),
            func.max(item.received_at).label("last_received_at"),
            # PostgreSQL before 18 has no max of uuid.
            func.max(cast(item.id, Text)).label("last_id"),
        )
        .where(item.state == "parked")
        .group_by(cause, item.interface)
        .order_by(func.count().desc())
        .limit(MOST_CAUSES)
    )
    return [
        Group(**{**row._mapping, "last_id": UUID(row.last_id)})  # noqa: SLF001  # public, by its documentation
        for row in await tx.fetch_all(statement)
    ]


async def shown(tx: Transaction, item_id: UUID) -> Row[Any]:
    """Raises NotFoundError."""
    row = await tx.fetch_one(select(*COLUMNS).where(item.id == item_id))
    if row is None:
        raise NotFoundError
    return row


def envelope(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was noted of an item before its answer, without bytes of its content."""
    return {name: value for name, value in attributes.items() if name not in _CONTENT}


async def fates(tx: Transaction, row: Row[Any], interfaces: Mapping[str, Interface]) -> Sequence[Row[Any]]:
    """Return what became of each part of an item."""
    interface = interfaces.get(row.interface)
    return await tx.fetch_all(fates_of(interface, row.id)) if interface is not None else []


async def history(tx: Transaction, row: Row[Any]) -> list[Step]:
    """Return an item's way from its arrival on, in the order of time."""
    ordinary = (
        (row.received_at, "received"),
        (row.durable_at, f"durable in the {row.via}" if row.via == "database" else "taken from the queue"),
        (row.processed_at, "processed"),
    )
    steps = [Step(at=at, step=step) for at, step in ordinary if at is not None]
    table = history_table.c
    rows = await tx.fetch_all(
        select(table.at, table.step, table.error, table.decided_by, table.reason, table.other_id)
        .where(table.intake_id == row.id)
        .order_by(table.id)
    )
    steps += [Step(**one._mapping) for one in rows]  # noqa: SLF001  # as above
    return sorted(steps, key=lambda step: step.at or row.received_at)


async def reveal(tx: Transaction, item_id: UUID, *, reason: str) -> tuple[bytes, bytes | None]:
    """Return an item's bytes and those of its answer; who looked and why is audited."""
    columns = (item.id, item.data_key, item.body, item.answer)
    row = await tx.fetch_one(select(*columns).where(item.id == item_id))
    if row is None:
        raise NotFoundError
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type="InboundMessage",
            resource_id=item_id,
            reason=reason,
            details={"decision": "reveal"},
        )
    )
    return body_of(tx, row), answer_of(tx, row)
