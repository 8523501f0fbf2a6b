"""Rights that end by themselves: of who leaves, of roles given for a time; and roles that take two people.

Whatever is due is a timer's; each asks again what is written now, so that a changed date moves it.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared import two_people
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.principal import Principal
from clinic_shared.timers import Timer, Timers
from sqlalchemy import Row, delete, select
from sqlalchemy.dialects.postgresql import insert

from clinic_identity import staff
from clinic_identity.domain import AccountKind
from clinic_identity.governance_tables import leaving, role_expiry, role_request
from clinic_identity.roles import require_roles

timers = Timers()

LEAVE, EXPIRE = "staff.leave", "role.expire"


async def set_end_date(
    tx: Transaction, staff_id: UUID, ends_at: datetime | None, reason: str, *, caller: Principal
) -> None:
    """Say when somebody leaves; None takes it back. What lies in the past takes effect at once."""
    await staff.lock_member(tx, staff_id, caller=caller)
    await tx.execute(delete(leaving).where(leaving.c.staff_id == staff_id))
    if ends_at is not None:
        values = {"staff_id": staff_id, "ends_at": ends_at, **_said(tx, reason)}
        await tx.execute(insert(leaving).values(values))
        await _schedule(tx, LEAVE, staff_id, ends_at)
    _audit(tx, staff_id, "end-date", until=str(ends_at))


async def set_role_expiry(
    tx: Transaction, staff_id: UUID, role: str, expires_at: datetime | None, reason: str, *, caller: Principal
) -> None:
    """Say until when somebody has one of their roles; None: for good. Raises NotFoundError."""
    member = await staff.lock_member(tx, staff_id, caller=caller)
    if role not in member.roles:
        raise NotFoundError
    mine = (role_expiry.c.staff_id == staff_id) & (role_expiry.c.role == role)
    await tx.execute(delete(role_expiry).where(mine))
    if expires_at is not None:
        values = {"staff_id": staff_id, "role": role, "expires_at": expires_at, **_said(tx, reason)}
        await tx.execute(insert(role_expiry).values(values))
        await _schedule(tx, EXPIRE, staff_id, expires_at, role)
    _audit(tx, staff_id, "role-expiry", role=role, until=str(expires_at))


async def list_ends(tx: Transaction, staff_id: UUID) -> tuple[Row[Any] | None, list[Row[Any]]]:
    """Return when somebody leaves, and which of their roles end before."""
    leaves = await tx.fetch_one(select(leaving).where(leaving.c.staff_id == staff_id))
    roles = select(role_expiry).where(role_expiry.c.staff_id == staff_id).order_by(role_expiry.c.expires_at)
    return leaves, list(await tx.fetch_all(roles))


@timers.on(LEAVE)
async def let_leave(tx: Transaction, timer: Timer) -> None:
    due = await tx.fetch_one(
        select(leaving).where(leaving.c.staff_id == timer.subject, leaving.c.ends_at <= tx.now)
    )
    if due is not None:
        await staff.let_go(tx, timer.subject, reason="left")


@timers.on(EXPIRE)
async def let_role_expire(tx: Transaction, timer: Timer) -> None:
    expired = (role_expiry.c.staff_id == timer.subject) & (role_expiry.c.expires_at <= tx.now)
    rows = await tx.fetch_all(delete(role_expiry).where(expired).returning(role_expiry.c.role))
    for row in rows:
        await staff.take_role(tx, timer.subject, row.role, reason="role-expired")


# -- roles that take two people


async def ask_for_role(
    tx: Transaction, staff_id: UUID, role: str, reason: str, *, caller: Principal
) -> Row[Any]:
    """Ask that somebody gets a role; nothing changes until another person agrees."""
    await staff.lock_member(tx, staff_id, caller=caller)
    await require_roles(tx, [role], principal=AccountKind.STAFF)
    decision_id = await two_people.ask(tx, role_request, reason=reason, staff_id=staff_id, role=role)
    _audit(tx, staff_id, "role-requested", role=role)
    return await _request(tx, decision_id)


async def decide_on_role(
    tx: Transaction, decision_id: UUID, *, approve: bool, reason: str | None, caller: Principal
) -> Row[Any]:
    """Decide as the second person, who is neither who asked nor who gets it."""
    asked = await (two_people.second if approve else two_people.open_one)(tx, role_request, decision_id)
    if approve and asked.staff_id == caller.subject:
        raise two_people.SelfApprovalError
    if approve:
        await staff.give_role(tx, asked.staff_id, asked.role)
    state = "approved" if approve else "rejected"
    await two_people.close(tx, role_request, decision_id, state, reason)
    _audit(tx, asked.staff_id, f"role-request-{state}", role=asked.role)
    return await _request(tx, decision_id)


async def list_role_requests(tx: Transaction) -> list[Row[Any]]:
    """Return what waits for a decision, the oldest first."""
    pending = (role_request.c.state == "pending") & (role_request.c.expires_at > tx.now)
    statement = select(role_request).where(pending).order_by(role_request.c.requested_at).limit(200)
    return list(await tx.fetch_all(statement))


async def _request(tx: Transaction, decision_id: UUID) -> Row[Any]:
    row = await tx.fetch_one(select(role_request).where(role_request.c.decision_id == decision_id))
    if row is None:
        raise NotFoundError
    return row


def _said(tx: Transaction, reason: str) -> dict[str, Any]:
    return {"reason": reason, "set_by": tx.context.principal.subject, "set_at": tx.now}


async def _schedule(tx: Transaction, kind: str, staff_id: UUID, due_at: datetime, what: str = "") -> None:
    await tx.schedule(
        Timer(
            kind=kind,
            subject=staff_id,
            subject_version=1,
            due_at=due_at,
            # What is set twice to the same instant is to be done again all the same.
            occurrence=f"{what}/{due_at.isoformat()}/{tx.now.isoformat()}",
        )
    )


def _audit(tx: Transaction, staff_id: UUID, reason: str, **details: str) -> None:
    tx.audit(
        AuditEntry(
            action=Action.UPDATE,
            resource_type="Practitioner",
            resource_id=staff_id,
            reason=reason,
            details=details,
        )
    )
