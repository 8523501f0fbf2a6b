"""Desks, their shifts, and the cash that is carried to and from the safe.

Locks: the shift, then the invoice, then the payment.
"""

from typing import Any, Literal
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError, ReferenceNotYetKnownError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.problems import constraint_of
from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from clinic_billing import ledger, store
from clinic_billing.accounts import CARD_TERMINAL, moved
from clinic_billing.cashdesk.errors import (
    DeskNameTakenError,
    NoShiftOpenError,
    NotEnoughCashError,
    ShiftOpenError,
)
from clinic_billing.cashdesk.tables import SHIFT_OPEN_ONCE, cash_desk, shift
from clinic_billing.tables import payment, refund


def drawer(desk_id: UUID) -> str:
    return f"cash:desk:{desk_id}"


async def open_desk(tx: Transaction, *, centre_id: UUID, name: str, caller: Principal) -> Row[Any]:
    caller.require_place(centre_id=centre_id)
    centre = await store.find_centre(tx, centre_id)
    if centre is None:
        raise ReferenceNotYetKnownError("The centre is not known here yet.", reference="centre_id")
    made = (
        upsert(cash_desk)
        .values(
            desk_id=uuid7(),
            centre_id=centre_id,
            legal_entity_id=centre.legal_entity_id,
            currency=centre.currency,
            name=name,
            opened_at=tx.now,
        )
        .on_conflict_do_nothing()
        .returning(cash_desk)
    )
    row = await tx.fetch_one(made)
    if row is None:
        raise DeskNameTakenError
    _audit(tx, Action.CREATE, "CashDesk", row.desk_id)
    return row


async def list_desks(tx: Transaction, *, caller: Principal) -> list[Row[Any]]:
    rows = await tx.fetch_all(select(cash_desk).order_by(cash_desk.c.desk_id))
    return [row for row in rows if caller.works_in(centre_id=row.centre_id)]


async def find_desk(tx: Transaction, desk_id: UUID, *, caller: Principal) -> Row[Any]:
    row = await tx.fetch_one(select(cash_desk).where(cash_desk.c.desk_id == desk_id))
    if row is None:
        raise NotFoundError
    caller.require_place(centre_id=row.centre_id)
    return row


async def open_shift(tx: Transaction, desk_id: UUID, *, counted_minor: int, caller: Principal) -> Row[Any]:
    """Open a shift with what was counted in the drawer; what differs from the books is booked."""
    desk = await find_desk(tx, desk_id, caller=caller)
    shift_id = uuid7()
    try:
        await tx.execute(
            insert(shift).values(
                shift_id=shift_id,
                desk_id=desk_id,
                opened_at=tx.now,
                opened_by=caller.subject,
                counted_at_open_minor=counted_minor,
            )
        )
    except IntegrityError as error:
        if constraint_of(error) == SHIFT_OPEN_ONCE:
            raise ShiftOpenError from error
        raise
    await _book_difference(tx, desk, shift_id, counted_minor - await ledger.balance_of(tx, drawer(desk_id)))
    _audit(tx, Action.CREATE, "CashShift", shift_id)
    return await find_shift(tx, shift_id)


async def lock_open_shift(tx: Transaction, desk_id: UUID) -> Row[Any]:
    """Raises NoShiftOpenError."""
    mine = select(shift).where(shift.c.desk_id == desk_id, shift.c.closed_at.is_(None))
    row = await tx.fetch_one(mine.with_for_update())
    if row is None:
        raise NoShiftOpenError
    return row


async def close_shift(tx: Transaction, desk_id: UUID, *, counted_minor: int, caller: Principal) -> Row[Any]:
    """Close the open shift; what is missing from the drawer, or too much in it, is booked."""
    desk = await find_desk(tx, desk_id, caller=caller)
    open_one = await lock_open_shift(tx, desk_id)
    expected = await ledger.balance_of(tx, drawer(desk_id))
    closed = update(shift).where(shift.c.shift_id == open_one.shift_id)
    await tx.execute(
        closed.values(
            closed_at=tx.now,
            closed_by=caller.subject,
            expected_minor=expected,
            counted_minor=counted_minor,
            terminal_minor=await _terminal_total(tx, open_one.shift_id),
        )
    )
    # A source of its own: the shift's opening may have had a difference too.
    await _book_difference(tx, desk, uuid7(), counted_minor - expected)
    _audit(tx, Action.UPDATE, "CashShift", open_one.shift_id)
    return await find_shift(tx, open_one.shift_id)


async def carry(
    tx: Transaction,
    desk_id: UUID,
    *,
    amount_minor: int,
    direction: Literal["in", "out"],
    caller: Principal,
) -> int:
    """Carry cash from the safe or to it; returns what is in the drawer then. Raises NotEnoughCashError."""
    desk = await find_desk(tx, desk_id, caller=caller)
    await lock_open_shift(tx, desk_id)
    safe, here = f"safe:{desk.legal_entity_id}", drawer(desk_id)
    if direction == "out":
        await require_cash(tx, desk_id, amount_minor)
    entries = (
        moved(to=here, of=safe, by=amount_minor)
        if direction == "in"
        else moved(to=safe, of=here, by=amount_minor)
    )
    await ledger.book(
        tx,
        "cash-in" if direction == "in" else "cash-out",
        entries,
        source_id=uuid7(),
        legal_entity_id=desk.legal_entity_id,
        currency=desk.currency,
    )
    _audit(tx, Action.UPDATE, "CashDesk", desk_id)
    return await ledger.balance_of(tx, here)


async def require_cash(tx: Transaction, desk_id: UUID, amount_minor: int) -> None:
    there = await ledger.balance_of(tx, drawer(desk_id))
    if amount_minor > there:
        raise NotEnoughCashError(cash_minor=there)


async def find_shift(tx: Transaction, shift_id: UUID) -> Row[Any]:
    row = await tx.fetch_one(select(shift).where(shift.c.shift_id == shift_id))
    if row is None:
        raise NotFoundError
    return row


async def list_shifts(
    tx: Transaction, desk_id: UUID, *, after: UUID | None, limit: int, caller: Principal
) -> list[Row[Any]]:
    await find_desk(tx, desk_id, caller=caller)
    mine = select(shift).where(shift.c.desk_id == desk_id).order_by(shift.c.shift_id).limit(limit)
    return list(await tx.fetch_all(mine if after is None else mine.where(shift.c.shift_id > after)))


async def _terminal_total(tx: Transaction, shift_id: UUID) -> int:
    """Return what the card terminal's own report must say for a shift: taken less given back."""
    taken = select(func.coalesce(func.sum(payment.c.amount_minor), 0)).where(
        payment.c.shift_id == shift_id, payment.c.provider == CARD_TERMINAL
    )
    given = select(func.coalesce(func.sum(refund.c.amount_minor), 0)).where(
        refund.c.shift_id == shift_id, refund.c.provider == CARD_TERMINAL
    )
    row = await tx.fetch_one(select(taken.scalar_subquery() - given.scalar_subquery()))
    return int(row[0]) if row else 0


async def _book_difference(tx: Transaction, desk: Row[Any], source_id: UUID, difference_minor: int) -> None:
    await ledger.book(
        tx,
        "cash-difference",
        moved(to=drawer(desk.desk_id), of=f"desk-difference:{desk.legal_entity_id}", by=difference_minor),
        source_id=source_id,
        legal_entity_id=desk.legal_entity_id,
        currency=desk.currency,
    )


def _audit(tx: Transaction, action: Action, kind: str, subject: UUID) -> None:
    tx.audit(AuditEntry(action=action, resource_type=kind, resource_id=subject))
