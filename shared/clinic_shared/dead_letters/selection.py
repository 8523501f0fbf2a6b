"""Which messages a decision is about, and that they are still those which the person saw.

Rows are locked in id order before anything is decided; a selection that changed since it was seen is
refused as a whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, case, select

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.crash import mutated
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, InvalidRequestError
from clinic_shared.held import held_table

LARGEST = 20_000
"""So many messages may one decision be about."""

letter = held_table.c
shown_state: ColumnElement[str] = case((letter.superseded_by.is_not(None), "superseded"), else_=letter.state)
"""As operators see it. In the table a superseded message is a discarded one, as releases before know it."""
order = case((letter.place.is_not(None), letter.place), else_=letter.id)
"""The order of a key's messages: a corrected copy stands where its original stood."""


class SelectionChangedError(DomainError):
    """Messages of the selection were handled or decided about since you looked, or others joined them."""

    slug = "selection-changed"
    title = "The messages are no longer those that were seen"
    fix = "List the dead letters again, look at what changed, and decide about what is there now."


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Conditions on kept messages; what is None or empty restricts nothing. Times are of the last failure."""

    ids: Sequence[int] = ()
    cause: str | None = None
    state: str | None = None
    type: str | None = None
    queue: str | None = None
    key: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    up_to_id: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        wanted: list[tuple[Any, Callable[[Any], ColumnElement[bool]]]] = [
            (self.ids or None, letter.id.in_),
            (self.cause, letter.cause.__eq__),
            (self.state, shown_state.__eq__),
            (self.type, letter.type.__eq__),
            (self.queue, letter.queue.__eq__),
            (self.key, letter.partition_key.__eq__),
            (self.since, letter.last_failed_at.__ge__),
            (self.until, letter.last_failed_at.__lt__),
            (self.up_to_id, letter.id.__le__),
        ]
        return [condition(value) for value, condition in wanted if value is not None]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Given messages, or all parked ones of a cause as they were seen: so many, up to that id."""

    ids: Sequence[int] = field(default=())
    cause: str | None = None
    type: str | None = None
    queue: str | None = None
    expected_count: int | None = None
    up_to_id: int | None = None
    discarded: bool = False
    """Whether given messages that somebody discarded are meant too."""

    async def lock(self, tx: Transaction) -> Sequence[Row[Any]]:
        """Return the rows, locked, in the order of their keys. Raises SelectionChangedError."""
        found = await (self._given(tx) if self.ids else self._of_cause(tx))
        return sorted(found, key=lambda row: (row.place or row.id, row.id))

    async def _given(self, tx: Transaction) -> Sequence[Row[Any]]:
        rows = await _locked(tx, Filter(ids=self.ids))
        undecided = [row for row in rows if _is_open(row) and (self.discarded or row.state != "discarded")]
        if len(undecided) < len(set(self.ids)):
            raise SelectionChangedError(
                "Some of these messages are gone, or were decided about by somebody else.",
                gone=sorted(set(self.ids) - {row.id for row in rows}),
                redriving=[row.id for row in rows if row.run_id is not None],
                superseded=[row.id for row in rows if row.superseded_by is not None],
                discarded=[row.id for row in rows if row.state == "discarded" and row.superseded_by is None],
            )
        return undecided

    async def _of_cause(self, tx: Transaction) -> Sequence[Row[Any]]:
        chosen = Filter(
            cause=self.cause, type=self.type, queue=self.queue, state="parked", up_to_id=self.up_to_id
        )
        rows = [row for row in await _locked(tx, chosen) if _is_open(row)]
        if self.expected_count is not None and len(rows) != self.expected_count:
            raise SelectionChangedError(
                f"{self.expected_count} parked messages of this cause were seen, {len(rows)} are there.",
                expected=self.expected_count,
                found=len(rows),
            )
        return rows


def _is_open(row: Row[Any]) -> bool:
    return row.superseded_by is None and (row.run_id is None or mutated("decide-twice"))


async def _locked(tx: Transaction, chosen: Filter) -> Sequence[Row[Any]]:
    """Return rows without bodies. They are locked first and read then, as those before us left them."""
    where = chosen.conditions()
    locking = select(letter.id).where(*where).order_by(letter.id).limit(LARGEST + 1).with_for_update()
    ids = (await tx.execute(locking)).scalars().all()
    if len(ids) > LARGEST:
        raise InvalidRequestError(f"One decision is about at most {LARGEST} messages.", largest=LARGEST)
    columns = [column for column in letter if column.name != "body"]
    return await tx.fetch_all(select(*columns).where(letter.id.in_(ids), *where))


def audit_decision(
    tx: Transaction, rows: Sequence[Row[Any]], decision: str, *, reason: str | None, **details: str
) -> None:
    """Record what somebody decided about each message."""
    for row in rows:
        tx.audit(
            AuditEntry(
                action=Action.EXECUTE,
                resource_type="DeadLetter",
                resource_id=str(row.id),
                reason=reason,
                details={"decision": decision, "event": str(row.event_id), **details},
            )
        )
