"""Which parked items an act is about: those named, or all of one cause as they were seen."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select

from clinic_shared.database import Transaction
from clinic_shared.dead_letters.selection import SelectionChangedError
from clinic_shared.intake_store import intake_table

item = intake_table.c


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """`expected_count` and `up_to_id` say what was seen of a cause, so that what came since isn't decided about."""

    ids: Sequence[UUID] = field(default_factory=tuple)
    cause: str | None = None
    expected_count: int | None = None
    up_to_id: UUID | None = None

    async def lock(self, tx: Transaction) -> Sequence[Row[Any]]:
        """Return the rows in the order in which they came. Raises SelectionChangedError."""
        statement = select(intake_table).where(item.state == "parked").order_by(item.id).with_for_update()
        if self.ids:
            rows = await tx.fetch_all(statement.where(item.id.in_(self.ids)))
            expected = len(set(self.ids))
        else:
            statement = statement.where(item.cause == self.cause)
            if self.up_to_id is not None:
                statement = statement.where(item.id <= self.up_to_id)
            rows = await tx.fetch_all(statement)
            expected = len(rows) if self.expected_count is None else self.expected_count
        if not rows or len(rows) != expected:
            raise SelectionChangedError("The parked messages are no longer those.", found=len(rows))
        return rows
