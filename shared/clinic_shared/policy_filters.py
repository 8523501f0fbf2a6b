"""The policy as a condition of a query: what a list may show is what `Policy.decide` would allow.

A test holds both to each other. A column that a table doesn't have reaches nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, and_, exists, false, or_, true

from clinic_shared.policy import Policy, Reach
from clinic_shared.principal import Principal

Column = ColumnElement[Any]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a query has what a decision depends on.

    `places` are pairs of (centre, department), either of which may be missing. `relations` is the table of
    care relationships (`care.py`). Where a query is about the records of one person (`merges.py`), `person`
    names them: whoever treats one of them treats the person.
    """

    patient_id: Column | None = None
    owner_ids: Sequence[Column] = ()
    places: Sequence[tuple[Column | None, Column | None]] = ()
    relations: FromClause | None = None
    follows_care: bool = False
    person: Sequence[UUID] = ()


def visible(
    policy: Policy, principal: Principal, permission: str, columns: Columns, *, now: datetime
) -> ColumnElement[bool]:
    """Return the condition that a record is one that the caller may use the permission on."""
    if principal.kind == "system":
        return true()
    if not principal.may(permission):
        return false()
    if not policy.governs(permission):
        return true()
    reached = [_reached(reach, principal, columns, now) for reach in policy.reach_of(principal, permission)]
    return or_(false(), *reached)


def _reached(reach: Reach, principal: Principal, columns: Columns, now: datetime) -> ColumnElement[bool]:
    if reach is Reach.OWN:
        return _own(principal, columns)
    if reach is Reach.RELATIONSHIP:
        return _in_care(principal, columns, now)
    if reach is Reach.DEPARTMENT:
        return or_(_placed(principal, columns, departments=True), _treated_there(principal, columns, now))
    if reach is Reach.CENTRE:
        return _placed(principal, columns, departments=False)
    # Records are never figures: `aggregate` reaches none of them.
    return true() if reach is Reach.NETWORK else false()


def _own(principal: Principal, columns: Columns) -> ColumnElement[bool]:
    if principal.kind == "patient":
        return false() if columns.patient_id is None else _among(columns.patient_id, principal.own_records)
    return or_(false(), *(owner == principal.subject for owner in columns.owner_ids))


def _placed(principal: Principal, columns: Columns, *, departments: bool) -> ColumnElement[bool]:
    if principal.network:
        return true()
    conditions: list[ColumnElement[bool]] = [false()]
    for centre, department in columns.places:
        if centre is not None:
            conditions.append(_among(centre, principal.centre_ids))
        if departments and department is not None:
            conditions.append(_among(department, principal.department_ids))
    return or_(*conditions)


def _treated_there(principal: Principal, columns: Columns, now: datetime) -> ColumnElement[bool]:
    if columns.relations is None or columns.patient_id is None or not columns.follows_care:
        return false()
    relation = columns.relations.alias()
    return exists().where(
        _of_patient(relation, columns.patient_id, columns),
        or_(relation.c.ends_at.is_(None), relation.c.ends_at > now),
        or_(
            _among(relation.c.centre_id, principal.centre_ids),
            _among(relation.c.department_id, principal.department_ids),
        ),
    )


def _in_care(principal: Principal, columns: Columns, now: datetime) -> ColumnElement[bool]:
    relations = columns.relations
    if relations is None or columns.patient_id is None:
        return false()
    relation = relations.alias()
    return exists().where(
        _of_patient(relation, columns.patient_id, columns),
        open_to(relation, principal, now),
    )


def _of_patient(relation: FromClause, patient_id: Column, columns: Columns) -> ColumnElement[bool]:
    if columns.person:
        return and_(patient_id.in_(columns.person), relation.c.patient_id.in_(columns.person))
    return relation.c.patient_id == patient_id


def open_to(relation: FromClause, principal: Principal, now: datetime) -> ColumnElement[bool]:
    """Return the condition that a care relationship holds for somebody at this instant."""
    return and_(
        relation.c.begins_at <= now,
        or_(relation.c.ends_at.is_(None), relation.c.ends_at > now),
        or_(
            relation.c.practitioner_id == principal.subject,
            _among(relation.c.department_id, principal.department_ids),
        ),
    )


def _among(column: Column, values: frozenset[UUID]) -> ColumnElement[bool]:
    return column.in_(sorted(values)) if values else false()
