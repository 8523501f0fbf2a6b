"""How many events this service has published and applied, by type: counted in the transaction of the act itself.

The act inserts a small row (`tally_delta`) that nobody else touches, so that nothing waits for a counter; the
measuring loop sums them up. Counts are kept by the hour in the event's id, which producer and consumers know alike:
once an hour is past, both counts of it must be equal, whoever was down meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Integer, Row, Table, Text, func, select, text

from clinic_shared.database import Transaction
from clinic_shared.events import runtime_metadata

HOUR_MS = 3_600_000
MINUTE_SECONDS = 60
HOURS_KEPT = 48
ACCOUNTED_HOURS = 24
SETTLING_SECONDS = 600
"""An event younger than this may still be on its way."""
RATE_MINUTES = 5
MINUTES_KEPT = 60
_LOCK = 0x0C11_71C5


class Direction(StrEnum):
    PUBLISHED = "published"
    APPLIED = "applied"


tally_table = Table(
    "tally",
    runtime_metadata,
    Column("direction", Text, primary_key=True),
    Column("type", Text, primary_key=True),
    Column("event_hour", Integer, primary_key=True),
    Column("events", BigInteger, nullable=False),
)
minute_table = Table(
    "tally_minute",
    runtime_metadata,
    Column("direction", Text, primary_key=True),
    Column("type", Text, primary_key=True),
    Column("minute", Integer, primary_key=True),
    Column("events", BigInteger, nullable=False),
)

_SUM_UP = text("""
    WITH gone AS (
        DELETE FROM tally_delta RETURNING direction, type, event_hour, events
    ), by_minute AS (
        INSERT INTO tally_minute (direction, type, minute, events)
        SELECT direction, type, CAST(:minute AS integer), sum(events) FROM gone GROUP BY direction, type
        ON CONFLICT (direction, type, minute) DO UPDATE SET events = tally_minute.events + excluded.events
    )
    INSERT INTO tally (direction, type, event_hour, events)
    SELECT direction, type, event_hour, sum(events) FROM gone GROUP BY direction, type, event_hour
    ON CONFLICT (direction, type, event_hour) DO UPDATE SET events = tally.events + excluded.events
""")
_MERGE_OLD_HOURS = text("""
    WITH old AS (
        DELETE FROM tally WHERE event_hour > 0 AND event_hour < :oldest RETURNING direction, type, events
    )
    INSERT INTO tally (direction, type, event_hour, events)
    SELECT direction, type, 0, sum(events) FROM old GROUP BY direction, type
    ON CONFLICT (direction, type, event_hour) DO UPDATE SET events = tally.events + excluded.events
""")
_DROP_OLD_MINUTES = text("DELETE FROM tally_minute WHERE minute < :oldest")


@dataclass(frozen=True)
class Window:
    """The hours whose counts must agree by now: `[first, end)`, in hours since the epoch."""

    first: int
    end: int

    @classmethod
    def at(cls, epoch_seconds: float) -> "Window":
        end = int(epoch_seconds - SETTLING_SECONDS) * 1000 // HOUR_MS
        return cls(end - ACCOUNTED_HOURS, end)

    @property
    def ids(self) -> tuple[UUID, UUID]:
        """The bounds of the ids of its events."""
        return _first_id(self.first), _first_id(self.end)


@dataclass(frozen=True, kw_only=True)
class Count:
    """Of one event type in one direction: ever, since the window began, within it, and per second these minutes."""

    direction: Direction
    type: str
    total: int
    recent: int
    accounted: int
    per_second: float


def producer_of(event_type: str) -> str:
    return event_type.partition(".")[0]


def event_hour(event_id: UUID) -> int:
    """Return the hour, since the epoch, in which an event got its id."""
    return (event_id.int >> 80) // HOUR_MS


def _first_id(hour: int) -> UUID:
    return UUID(int=(hour * HOUR_MS) << 80)


async def sum_up(tx: Transaction, *, epoch_seconds: float) -> None:
    """Add what came since the last time to the counts. Of several replicas one does it."""
    mine = await tx.fetch_one(select(func.pg_try_advisory_xact_lock(_LOCK)))
    if mine is None or not mine[0]:
        return
    minute = int(epoch_seconds) // MINUTE_SECONDS
    await tx.execute(_SUM_UP, {"minute": minute})
    await tx.execute(_DROP_OLD_MINUTES, {"oldest": minute - MINUTES_KEPT})
    await tx.execute(_MERGE_OLD_HOURS, {"oldest": Window.at(epoch_seconds).end - HOURS_KEPT})


async def counts(tx: Transaction, *, epoch_seconds: float) -> list[Count]:
    """Return the counts of every type that was ever published or applied here."""
    window = Window.at(epoch_seconds)
    since = tally_table.c.event_hour >= window.first
    within = tally_table.c.event_hour.between(window.first, window.end - 1)
    rows = await tx.fetch_all(
        select(
            tally_table.c.direction,
            tally_table.c.type,
            func.sum(tally_table.c.events).label("total"),
            func.coalesce(func.sum(tally_table.c.events).filter(since), 0).label("recent"),
            func.coalesce(func.sum(tally_table.c.events).filter(within), 0).label("accounted"),
        ).group_by(tally_table.c.direction, tally_table.c.type)
    )
    rates = await _rates(tx, epoch_seconds)
    return [_count(row, rates) for row in rows]


async def _rates(tx: Transaction, epoch_seconds: float) -> dict[tuple[str, str], float]:
    first = int(epoch_seconds) // MINUTE_SECONDS - RATE_MINUTES
    seconds = epoch_seconds - first * MINUTE_SECONDS
    rows: Sequence[Row[Any]] = await tx.fetch_all(
        select(minute_table.c.direction, minute_table.c.type, func.sum(minute_table.c.events).label("events"))
        .where(minute_table.c.minute >= first)
        .group_by(minute_table.c.direction, minute_table.c.type)
    )
    return {(row.direction, row.type): int(row.events) / seconds for row in rows}


def _count(row: Row[Any], rates: dict[tuple[str, str], float]) -> Count:
    return Count(
        direction=Direction(row.direction),
        type=row.type,
        total=int(row.total),
        recent=int(row.recent),
        accounted=int(row.accounted),
        per_second=rates.get((row.direction, row.type), 0.0),
    )
