"""The double-entry ledger of money: append-only movements, each of which sums to zero.

`accounts.py` says what the accounts hold. A receivable always equals the invoice's total less what was paid,
set off or given up. The database refuses a movement that isn't balanced, at the commit.
"""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7
from sqlalchemy import func, insert, select

from clinic_billing.accounts import Entry
from clinic_billing.tables import ledger_entry, ledger_movement

MovementKind = Literal[
    "invoice-issued",
    "payment-received",
    "payment-refunded",
    "advance-applied",
    "written-off",
    "cash-in",
    "cash-out",
    "cash-difference",
]


async def book(
    tx: Transaction,
    kind: MovementKind,
    entries: Sequence[Entry],
    *,
    source_id: UUID,
    legal_entity_id: UUID,
    currency: str,
) -> None:
    """Book a movement; the same source is never booked twice. Nothing to move is no movement."""
    if not entries:
        return
    movement_id = uuid7()
    await tx.execute(
        insert(ledger_movement).values(
            movement_id=movement_id,
            kind=kind,
            source_id=source_id,
            legal_entity_id=legal_entity_id,
            booked_at=tx.now,
        )
    )
    await tx.execute(
        insert(ledger_entry),
        [
            {
                "movement_id": movement_id,
                "account": entry.account,
                "amount_minor": entry.amount_minor,
                "currency": currency,
            }
            for entry in entries
        ],
    )


async def imbalance(tx: Transaction) -> int:
    """Return by how much movements fail to sum to zero, in all; two errors don't hide each other."""
    per_movement = (
        select(func.sum(ledger_entry.c.amount_minor).label("difference"))
        .group_by(ledger_entry.c.movement_id, ledger_entry.c.currency)
        .subquery()
    )
    row = await tx.fetch_one(select(func.coalesce(func.sum(func.abs(per_movement.c.difference)), 0)))
    return int(row[0]) if row else 0


async def balance_of(tx: Transaction, account: str) -> int:
    mine = select(func.coalesce(func.sum(ledger_entry.c.amount_minor), 0))
    row = await tx.fetch_one(mine.where(ledger_entry.c.account == account))
    return int(row[0]) if row else 0
