"""Logins of staff that nobody uses: told of a week before, closed after, opened again by a person.

When a login was last used is kept here, since sessions are forgotten sooner than a login goes dormant.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Database, Transaction
from sqlalchemy import Row, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from clinic_identity import store, tables
from clinic_identity.accounts import close_account
from clinic_identity.domain import AccountKind
from clinic_identity.events import account_dormant
from clinic_identity.governance_tables import account_use
from clinic_identity.guarded_roles import is_last_administrator
from clinic_identity.settings import IdentitySettings

AT_MOST_ONE_IN = 5
"""Of the staff's logins at most a fifth closes in one sweep: a clock that jumps must not close a hospital."""

_USE, _ACCOUNT, _SESSION = account_use.c, tables.account.c, tables.session.c


async def sweep_unused(database: Database, settings: IdentitySettings) -> None:
    """Note what was used, tell of what is about to close, close what was told of in time."""
    async with database.transaction() as tx:
        await _note_use(tx)
        closes_after = timedelta(days=settings.dormant_days)
        warned_for = timedelta(days=settings.dormant_warning_days)
        await _warn(tx, closes_after, warned_for)
        closing = await _at_most(tx)
        for account_id in await _due(tx, closes_after, warned_for):
            if closing == 0:
                break
            closing -= await _close(tx, account_id)


async def list_dormant(tx: Transaction) -> list[Row[Any]]:
    """Return the logins that are about to close or were closed, the longest unused first."""
    statement = select(account_use).where(_USE.warned_at.is_not(None))
    return list(await tx.fetch_all(statement.order_by(_USE.last_used_at).limit(500)))


async def forget(tx: Transaction, account_id: UUID) -> None:
    """Begin to count anew, as for a login that was opened again."""
    await tx.execute(delete(account_use).where(_USE.account_id == account_id))


async def is_closed(tx: Transaction, account_id: UUID) -> bool:
    closed = select(_USE.account_id).where(_USE.account_id == account_id, _USE.disabled_at.is_not(None))
    return await tx.fetch_one(closed) is not None


async def _note_use(tx: Transaction) -> None:
    columns = ["account_id", "version", "last_used_at"]
    of_staff = (_ACCOUNT.kind == AccountKind.STAFF.value) & _ACCOUNT.active
    seen = select(_ACCOUNT.account_id, literal(1), func.max(_SESSION.last_used_at)).join(
        tables.session, _SESSION.account_id == _ACCOUNT.account_id
    )
    used = insert(account_use).from_select(columns, seen.where(of_staff).group_by(_ACCOUNT.account_id))
    newer = {"last_used_at": used.excluded.last_used_at, "warned_at": None, "version": _USE.version + 1}
    await tx.execute(
        used.on_conflict_do_update(
            index_elements=["account_id"], set_=newer, where=_USE.last_used_at < used.excluded.last_used_at
        )
    )
    # Of whom no session is known, the count begins now: nobody is closed out by what we have forgotten.
    others = select(_ACCOUNT.account_id, literal(1), literal(tx.now)).where(of_staff)
    await tx.execute(insert(account_use).from_select(columns, others).on_conflict_do_nothing())


async def _warn(tx: Transaction, closes_after: timedelta, warned_for: timedelta) -> None:
    unused = _USE.last_used_at <= tx.now - closes_after + warned_for
    warned = (
        update(account_use)
        .where(unused, _USE.warned_at.is_(None), _USE.account_id == _ACCOUNT.account_id, _ACCOUNT.active)
        .values(warned_at=tx.now, version=_USE.version + 1)
        .returning(account_use)
    )
    for row in await tx.fetch_all(warned):
        closes_at = max(row.last_used_at + closes_after, tx.now + warned_for)
        tx.emit(account_dormant(row, state="warned", closes_at=closes_at))
        _audit(tx, row.account_id, "dormant-warned")


async def _at_most(tx: Transaction) -> int:
    open_logins = select(func.count()).where(_ACCOUNT.kind == AccountKind.STAFF.value, _ACCOUNT.active)
    row = await tx.fetch_one(open_logins)
    return max(1, (row[0] if row else 0) // AT_MOST_ONE_IN)


async def _due(tx: Transaction, closes_after: timedelta, warned_for: timedelta) -> list[UUID]:
    unused = (_USE.last_used_at <= tx.now - closes_after) & (_USE.warned_at <= tx.now - warned_for)
    statement = select(_USE.account_id).where(unused, _USE.disabled_at.is_(None))
    oldest_first = statement.order_by(_USE.last_used_at, _USE.account_id)
    return [found.account_id for found in await tx.fetch_all(oldest_first)]


async def _close(tx: Transaction, account_id: UUID) -> bool:
    """Close a login, unless it is the last administrator's or closed otherwise; says whether it did."""
    account = await store.lock_account(tx, account_id)
    if account is None or not account.active or await is_last_administrator(tx, account_id):
        return False
    await close_account(tx, account)
    closed = update(account_use).where(_USE.account_id == account_id)
    row = await tx.fetch_one(
        closed.values(disabled_at=tx.now, version=_USE.version + 1).returning(account_use)
    )
    if row is not None:
        tx.emit(account_dormant(row, state="closed", closes_at=tx.now))
    _audit(tx, account_id, "dormant-closed")
    return True


def _audit(tx: Transaction, account_id: UUID, reason: str) -> None:
    tx.audit(AuditEntry(action=Action.UPDATE, resource_type="Account", resource_id=account_id, reason=reason))
