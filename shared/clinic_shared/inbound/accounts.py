"""The equation of an interface, per partner and day: what was answered, and what became of it.

A service says where it notes what became of each part of an item, and by whom an item was sent; counting is
the same for all. Both sides are counted by themselves: an item whose parts nobody noted makes them unequal.
"""

from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, case, func, literal, select
from sqlalchemy.sql.expression import Subquery

from clinic_shared.database import Transaction
from clinic_shared.intake_store import intake_table
from clinic_shared.ledger import Dispositions

item = intake_table.c
standing: ColumnElement[str] = func.coalesce(item.set_aside, item.state)
"""An item's state; what people set aside is `discarded` or `superseded`."""
PARTS = tuple(field.name for field in fields(Dispositions) if field.name != "answered")
ONE: ColumnElement[int] = literal(1)
_ID_SLACK = timedelta(hours=1)
"""An item gets its id a moment after it is received, on a machine whose clock may differ from the next one's."""


@dataclass(frozen=True)
class Interface:
    """How one interface's items are counted.

    `fates` has `item_id`, `disposition` and `reason` of each part of a processed item, such as a message's
    patient groups; `parts` is how many an item has, and `partner` who sent it.
    """

    fates: Select[Any]
    parts: ColumnElement[int] = ONE
    partner: ColumnElement[str] = item.sender


@dataclass(frozen=True, kw_only=True)
class Day:
    """One line of the accounts; days are UTC's, by when an item was received."""

    interface: str
    partner: str
    day: date
    dispositions: Dispositions


async def by_day(tx: Transaction, name: str, interface: Interface, *, since: datetime) -> list[Day]:
    """Return the lines of the days from that of `since` on."""
    return [
        Day(interface=name, partner=partner, day=day, dispositions=dispositions)
        for (partner, day), dispositions in sorted((await _counted(tx, name, interface, since)).items())
    ]


async def total(tx: Transaction, *, name: str, interface: Interface) -> Dispositions:
    """Return the equation over all that was ever received."""
    lines = (await _counted(tx, name, interface, None)).values()
    return Dispositions(
        answered=sum(line.answered for line in lines),
        **{part: sum(getattr(line, part) for line in lines) for part in PARTS},
    )


async def _counted(
    tx: Transaction, name: str, interface: Interface, since: datetime | None
) -> dict[tuple[str, date], Dispositions]:
    taken = {(row.partner, row.day): row for row in await tx.fetch_all(_taken(name, interface, since))}
    noted: dict[tuple[str, date], dict[str, int]] = {}
    for row in await tx.fetch_all(_noted(name, interface, since)):
        counts = noted.setdefault((row.partner, row.day), {})
        counts[row.disposition.replace("-", "_")] = row.parts
    return {key: _line(row, noted.get(key, {})) for key, row in taken.items()}


def _line(taken: Row[Any], noted: dict[str, int]) -> Dispositions:
    kept = {
        "parked": taken.parked,
        "discarded": taken.discarded,
        "duplicate": taken.copies,
        "in_flight": taken.waiting,
    }
    return Dispositions(
        answered=int(taken.first + taken.copies),
        **{part: noted.get(part, 0) + int(kept.get(part, 0)) for part in PARTS},
    )


def _taken(name: str, interface: Interface, since: datetime | None) -> Select[Any]:
    parts = interface.parts

    def of_state(state: str) -> ColumnElement[int]:
        return func.coalesce(func.sum(case((standing == state, parts))), 0)

    # For an item that was corrected its copy is counted, which has the time and the sender of the original.
    answered = case((standing != "superseded", parts), else_=0)
    columns: list[ColumnElement[Any]] = [
        func.coalesce(interface.partner, "").label("partner"),
        _day().label("day"),
        func.sum(answered).label("first"),
        func.coalesce(func.sum(parts * item.duplicates), 0).label("copies"),
        of_state("parked").label("parked"),
        of_state("discarded").label("discarded"),
        of_state("received").label("waiting"),
    ]
    return _within(select(*columns), name, since).group_by("partner", "day")


def _noted(name: str, interface: Interface, since: datetime | None) -> Select[Any]:
    fate: Subquery = interface.fates.subquery()
    statement = select(
        func.coalesce(interface.partner, "").label("partner"),
        _day().label("day"),
        fate.c.disposition.label("disposition"),
        func.count().label("parts"),
    ).join(fate, fate.c.item_id == item.id)
    # What is taken up again is in flight once more, whatever had become of it.
    return _within(statement.where(standing == "processed"), name, since).group_by(
        "partner", "day", fate.c.disposition
    )


def _within(statement: Select[Any], name: str, since: datetime | None) -> Select[Any]:
    statement = statement.where(item.interface == name)
    if since is None:
        return statement
    day = since.replace(hour=0, minute=0, second=0, microsecond=0)
    # By the primary key first: ids begin with their time.
    return statement.where(item.id >= _first_id(day - _ID_SLACK), item.received_at >= day)


def _day() -> ColumnElement[date]:
    return func.date(func.timezone("UTC", item.received_at))


def _first_id(at: datetime) -> UUID:
    return UUID(int=int(at.timestamp() * 1000) << 80)


def fates_of(interface: Interface, *item_ids: UUID) -> Select[Any]:
    """Select what became of the parts of some items."""
    fate = interface.fates.subquery()
    return select(fate).where(fate.c.item_id.in_(item_ids))
