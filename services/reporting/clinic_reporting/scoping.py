"""Which facts a report counts, as conditions: where its reader works, and days as each centre has them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Table, and_, false, or_

from clinic_reporting.domain import Period, Scope, Window


def _during(at: ColumnElement[Any], window: Window) -> ColumnElement[bool]:
    return and_(at >= window.from_at, at < window.until_at)


def within(
    scope: Scope,
    period: Period,
    at: ColumnElement[Any],
    centre_id: ColumnElement[Any],
    department_id: ColumnElement[Any] | None,
) -> ColumnElement[bool]:
    """Return the condition that a fact stands in the scope on the period's days of its centre."""
    whole: dict[Window, list[UUID]] = {}
    windows: list[Window] = []
    conditions: list[ColumnElement[bool]] = []
    for part in scope.parts:
        windows.append(window := period.window(part.centre.zone))
        if part.department_ids is None:
            whole.setdefault(window, []).append(part.centre.centre_id)
        elif department_id is not None:
            here = and_(centre_id == part.centre.centre_id, department_id.in_(part.department_ids))
            conditions.append(and_(here, _during(at, window)))
    conditions += [and_(centre_id.in_(ids), _during(at, window)) for window, ids in whole.items()]
    if scope.unplaced:
        windows.append(window := period.window(ZoneInfo("UTC")))
        conditions.append(and_(centre_id.is_(None), _during(at, window)))
    if not conditions:
        return false()
    # Implied by the rest, but an index on the instant alone can be used for it.
    return and_(_during(at, _hull(windows)), or_(*conditions))


def _hull(windows: Sequence[Window]) -> Window:
    return Window(min(w.from_at for w in windows), max(w.until_at for w in windows))


def stands_in(
    scope: Scope, centre_id: ColumnElement[Any], department_id: ColumnElement[Any]
) -> ColumnElement[bool]:
    parts = [
        centre_id == part.centre.centre_id
        if part.department_ids is None
        else department_id.in_(part.department_ids)
        for part in scope.parts
    ]
    return or_(false(), *parts)


def facts_within(table: Table, at: str, scope: Scope, period: Period) -> ColumnElement[bool]:
    return within(scope, period, table.c[at], table.c.centre_id, table.c.get("department_id"))
