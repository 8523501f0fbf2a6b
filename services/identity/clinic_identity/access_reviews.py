"""Access reviews: who of a department has which role, certified by another person one by one, or gone at the deadline."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.problems import constraint_of
from clinic_shared.timers import Timer, Timers
from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from clinic_identity import staff, store, tables
from clinic_identity.governance_tables import access_review, access_review_item
from clinic_identity.guarded_roles import is_last_administrator

timers = Timers()
CLOSE = "access-review.close"
_ITEM = access_review_item.c


class Outcome(StrEnum):
    CERTIFIED = "certified"
    REVOKED = "revoked"
    LAPSED = "lapsed"
    """Nobody certified it in time."""
    KEPT = "kept"
    """Nobody did, and it is the last administrator's: without it the network would have none."""


class ReviewOpenError(DomainError):
    slug: ClassVar[str] = "access-review-open"
    title: ClassVar[str] = "This department is being reviewed"
    fix: ClassVar[str] = "Finish that review; it closes by itself at `due_at`."


class ReviewClosedError(DomainError):
    slug: ClassVar[str] = "access-review-closed"
    title: ClassVar[str] = "This was decided, or the review is closed"
    fix: ClassVar[str] = (
        "Read the review again. Roles that are gone are given anew by moving the member of staff."
    )


class OwnGrantError(DomainError):
    slug: ClassVar[str] = "access-review-own"
    title: ClassVar[str] = "Nobody certifies their own roles"
    fix: ClassVar[str] = "Ask somebody else who may."


@dataclass(frozen=True, kw_only=True)
class Review:
    review: Row[Any]
    items: Sequence[Row[Any]]


async def open_review(tx: Transaction, department_id: UUID, due_at: datetime, *, caller: Principal) -> Review:
    """Take down who of the department has which role now; each is to be certified until `due_at`."""
    centres = await store.centres_of_departments(tx, [department_id])
    if department_id not in centres:
        raise NotFoundError
    caller.require_place(centre_id=centres[department_id])
    review_id = uuid7()
    values = {"review_id": review_id, "department_id": department_id, "opened_by": caller.subject}
    try:
        await tx.execute(insert(access_review).values(**values, opened_at=tx.now, due_at=due_at))
    except IntegrityError as error:
        if constraint_of(error) == "access_review_one_open":
            raise ReviewOpenError from error
        raise
    members = await tx.fetch_all(
        select(tables.staff.c.staff_id, tables.staff.c.roles).where(
            tables.staff.c.department_ids.contains([department_id]), tables.staff.c.active
        )
    )
    grants = [{"review_id": review_id, "staff_id": m.staff_id, "role": r} for m in members for r in m.roles]
    if grants:
        await tx.execute(insert(access_review_item), grants)
    await tx.schedule(Timer(kind=CLOSE, subject=review_id, subject_version=1, due_at=due_at))
    _audit(tx, review_id, Action.CREATE, "opened", department=str(department_id))
    return await read(tx, review_id)


async def read(tx: Transaction, review_id: UUID) -> Review:
    row = await tx.fetch_one(select(access_review).where(access_review.c.review_id == review_id))
    if row is None:
        raise NotFoundError
    items = await tx.fetch_all(
        select(access_review_item).where(_ITEM.review_id == review_id).order_by(_ITEM.staff_id, _ITEM.role)
    )
    return Review(review=row, items=items)


async def list_open(tx: Transaction) -> list[Row[Any]]:
    waiting = select(access_review).where(access_review.c.closed_at.is_(None))
    return list(await tx.fetch_all(waiting.order_by(access_review.c.due_at).limit(200)))


async def decide(
    tx: Transaction,
    review_id: UUID,
    staff_id: UUID,
    role: str,
    *,
    certify: bool,
    reason: str,
    caller: Principal,
) -> Review:
    """Certify a grant, or revoke it at once. Raises OwnGrantError, ReviewClosedError."""
    item = await tx.fetch_one(_this(review_id, staff_id, role).with_for_update())
    if item is None:
        raise NotFoundError
    if caller.subject == staff_id:
        raise OwnGrantError
    if item.outcome is not None:
        raise ReviewClosedError
    await _settle(tx, item, Outcome.CERTIFIED if certify else Outcome.REVOKED, reason, by=caller.subject)
    if not certify:
        await staff.take_role(tx, staff_id, role, reason="access-review-revoked")
    return await read(tx, review_id)


@timers.on(CLOSE)
async def close_when_due(tx: Transaction, timer: Timer) -> None:
    """Take away what nobody has certified."""
    undecided = select(access_review_item).where(_ITEM.review_id == timer.subject, _ITEM.outcome.is_(None))
    in_order = undecided.order_by(_ITEM.staff_id, _ITEM.role).with_for_update()
    for item in await tx.fetch_all(in_order):
        taken = await staff.take_role(tx, item.staff_id, item.role, reason="access-review-lapsed")
        last = not taken and await is_last_administrator(tx, item.staff_id)
        await _settle(tx, item, Outcome.KEPT if last else Outcome.LAPSED, None, by=None)
    await tx.execute(
        update(access_review).where(access_review.c.review_id == timer.subject).values(closed_at=tx.now)
    )
    _audit(tx, timer.subject, Action.UPDATE, "closed")


async def _settle(
    tx: Transaction, item: Row[Any], outcome: Outcome, reason: str | None, *, by: UUID | None
) -> None:
    same = (_ITEM.review_id == item.review_id) & (_ITEM.staff_id == item.staff_id) & (_ITEM.role == item.role)
    values = {"outcome": outcome.value, "decided_by": by, "decided_at": tx.now, "reason": reason}
    await tx.execute(update(access_review_item).where(same).values(values))
    _audit(tx, item.review_id, Action.UPDATE, outcome.value, staff=str(item.staff_id), role=item.role)


def _this(review_id: UUID, staff_id: UUID, role: str) -> Any:
    return select(access_review_item).where(
        _ITEM.review_id == review_id, _ITEM.staff_id == staff_id, _ITEM.role == role
    )


def _audit(tx: Transaction, review_id: UUID, action: Action, reason: str, **details: str) -> None:
    tx.audit(
        AuditEntry(
            action=action, resource_type="AccessReview", resource_id=review_id, reason=reason, details=details
        )
    )
