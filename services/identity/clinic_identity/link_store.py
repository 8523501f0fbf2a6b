"""Queries on access links."""

from datetime import datetime

from clinic_shared.database import Transaction
from sqlalchemy import ColumnElement, and_, delete, insert, select, update

from clinic_identity.domain import AccountId
from clinic_identity.tables import access_link


async def add_link(tx: Transaction, digest: bytes, account_id: AccountId, *, expires_at: datetime) -> None:
    await tx.execute(
        insert(access_link).values(
            digest=digest, account_id=account_id, created_at=tx.now, expires_at=expires_at
        )
    )


async def withdraw_links(tx: Transaction, account_id: AccountId) -> None:
    await tx.execute(
        delete(access_link).where(access_link.c.account_id == account_id, access_link.c.used_at.is_(None))
    )


async def find_account_of_link(tx: Transaction, digest: bytes) -> AccountId | None:
    row = await tx.fetch_one(select(access_link.c.account_id).where(_works(tx, digest)))
    return None if row is None else AccountId(row.account_id)


async def use_link(tx: Transaction, digest: bytes) -> bool:
    """Use a link up. Returns False when it doesn't work any more."""
    used = update(access_link).where(_works(tx, digest)).values(used_at=tx.now)
    return (await tx.execute(used.returning(access_link.c.digest))).one_or_none() is not None


def _works(tx: Transaction, digest: bytes) -> ColumnElement[bool]:
    return and_(
        access_link.c.digest == digest, access_link.c.used_at.is_(None), access_link.c.expires_at > tx.now
    )
