"""Which items an act is about: those named, or all parked ones of one cause as they were seen."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, or_, select

from clinic_shared.database import Transaction
from clinic_shared.dead_letters.selection import SelectionChangedError
from clinic_shared.intake_order import by_turn
from clinic_shared.intake_store import intake_table

item = intake_table.c


def parked(cause: str | None) -> ColumnElement[bool]:
    return and_(item.state == "parked", item.cause == cause)


def named(ids: Sequence[UUID], repeatable: Collection[str] = ()) -> ColumnElement[bool]:
    """Those that are parked; and of `repeatable` interfaces those processed that nobody has set aside."""
    processed = and_(item.state == "processed", item.set_aside.is_(None), item.interface.in_(repeatable))
    return and_(item.id.in_(ids), or_(item.state == "parked", processed))


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """`expected_count` and `up_to_id` say what was seen of a cause, so that what came since isn't decided about."""

    ids: Sequence[UUID] = field(default_factory=tuple)
    cause: str | None = None
    expected_count: int | None = None
    up_to_id: UUID | None = None

    async def lock(self, tx: Transaction, *, repeatable: Collection[str] = ()) -> Sequence[Row[Any]]:
        """Return the rows in the order in which they came. Raises SelectionChangedError."""
        statement = select(intake_table).order_by(*by_turn(intake_table)).with_for_update()
        if self.ids:
            rows = await tx.fetch_all(statement.where(named(self.ids, repeatable)))
            expected = len(set(self.ids))
        else:
            statement = statement.where(parked(self.cause))
            if self.up_to_id is not None:
                statement = statement.where(item.id <= self.up_to_id)
            rows = await tx.fetch_all(statement)
            expected = len(rows) if self.expected_count is None else self.expected_count
        if not rows or len(rows) != expected:
            raise SelectionChangedError(
                "The messages are no longer those, or can't be processed again.", found=len(rows)
            )
        return rows
