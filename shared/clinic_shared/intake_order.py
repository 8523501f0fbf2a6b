"""In which order what was accepted takes effect: that of the database, however wrong the clocks of its processes are.

A row that is stored directly takes the next number of a sequence: whoever sends after an acknowledgement comes
later. One that waited on the queue, the database being away, comes right behind the last that was durable
when it was put there. When that was is told by the database's clock, which its process had looked at before.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import inf
from operator import attrgetter
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, func, text, tuple_

from clinic_shared.database import Transaction

MEASURED_ANEW_SECONDS = 10.0
LOOKS = 3
SHARPER_FOR_SECONDS = 300.0
"""So long a sharper measurement is kept: two machines' quartzes drift apart by some milliseconds meanwhile."""


class Placed(Protocol):
    """A row or an item. Of the release before it has no place, and comes first."""

    @property
    def place(self) -> Decimal | None: ...

    @property
    def id(self) -> UUID: ...


def turn_of(one: Placed) -> tuple[Decimal, UUID]:
    """Return what is compared to tell who comes first."""
    return one.place or Decimal(0), one.id


def by_turn(table: FromClause) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Return what rows of the intake are ordered by."""
    return func.coalesce(table.c.place, 0), table.c.id


def comes_before(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    return tuple_(*by_turn(one)) < tuple_(*by_turn(other))


# The fraction stays below one for three centuries, and keeps what waited on the queue in its own order.
_PLACES = text("""
    SELECT coalesce(earlier.place, 0)
        + CAST(extract(epoch FROM given.queued_at - coalesce(earlier.durable_at, 'epoch')) AS numeric) / 1e10 AS place
    FROM unnest(CAST(:moments AS timestamptz[])) WITH ORDINALITY AS given (queued_at, number)
    LEFT JOIN LATERAL (
        SELECT place, durable_at FROM intake
        WHERE place IS NOT NULL AND via = 'database' AND durable_at <= given.queued_at
        ORDER BY place DESC LIMIT 1
    ) AS earlier ON true
    ORDER BY given.number
""")


async def places_of_queued(tx: Transaction, moments: Sequence[datetime]) -> list[Decimal]:
    """Return the places of what was put on the queue at these moments, by the database's clock."""
    return [row.place for row in await tx.fetch_all(_PLACES, {"moments": list(moments)})]


@dataclass(frozen=True)
class _Measured:
    at: datetime
    measured_at: float
    uncertain_seconds: float


class DatabaseTime:
    """What time it is at the database, for when it is away: counted from the last look by a clock that nobody sets.

    It is never ahead, so that what is durable afterwards comes later, and behind by no more than a question
    to the database took.
    """

    def __init__(self) -> None:
        self._known: _Measured | None = None
        self._looked_at = -inf

    def now(self) -> datetime | None:
        """Return None while the database hasn't been met."""
        if self._known is None:
            return None
        return self._known.at + timedelta(seconds=time.monotonic() - self._known.measured_at)

    async def look(self, tx: Transaction) -> None:
        """Look again, unless it was just done."""
        now = time.monotonic()
        if now - self._looked_at < MEASURED_ANEW_SECONDS:
            return
        self._looked_at = now
        sharpest = min([await _measure(tx) for _ in range(LOOKS)], key=attrgetter("uncertain_seconds"))
        known = self._known
        if (
            known is None
            or sharpest.uncertain_seconds <= known.uncertain_seconds
            or now - known.measured_at > SHARPER_FOR_SECONDS
        ):
            self._known = sharpest


async def _measure(tx: Transaction) -> _Measured:
    before = time.monotonic()
    rows = await tx.fetch_all(text("SELECT clock_timestamp() AS now"))
    after = time.monotonic()
    return _Measured(rows[0].now.astimezone(UTC), measured_at=after, uncertain_seconds=after - before)
