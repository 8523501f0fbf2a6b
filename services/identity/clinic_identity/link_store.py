"""Queries on access links, and on requests to have one sent."""

from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import ColumnElement, Row, and_, delete, insert, select, union_all, update

from clinic_identity.domain import AccountId
from clinic_identity.tables import access_link, access_link_request


async def add_link(tx: Transaction, digest: bytes, account_id: UUID, *, expires_at: datetime) -> None:
    await tx.execute(
        insert(access_link).values(
            digest=digest, account_id=account_id, created_at=tx.now, expires_at=expires_at
        )
    )


async def add_request(tx: Transaction, **values: Any) -> None:
    await tx.execute(insert(access_link_request).values(attempt_version=0, state="requested", **values))


async def find_request(tx: Transaction, account_id: UUID) -> Row[Any] | None:
    """Return what was asked for last and neither used nor replaced."""
    return await tx.fetch_one(
        select(access_link_request).where(access_link_request.c.account_id == account_id)
    )


async def lock_request(tx: Transaction, request_id: UUID) -> Row[Any] | None:
    mine = select(access_link_request).where(access_link_request.c.request_id == request_id)
    return await tx.fetch_one(mine.with_for_update())


async def save_attempt(tx: Transaction, request_id: UUID, **values: Any) -> None:
    mine = update(access_link_request).where(access_link_request.c.request_id == request_id)
    await tx.execute(mine.values(**values))


async def withdraw_links(tx: Transaction, account_id: AccountId) -> None:
    """Let no link of an account work that wasn't used, sent or under way."""
    # Requests first: whoever is just adding a link to one holds its lock, and is waited for.
    await tx.execute(delete(access_link_request).where(access_link_request.c.account_id == account_id))
    await tx.execute(
        delete(access_link).where(access_link.c.account_id == account_id, access_link.c.used_at.is_(None))
    )


async def has_live_link(tx: Transaction, account_id: AccountId) -> bool:
    """Say whether a link of an account works, or is under way."""
    works = select(access_link.c.account_id).where(
        access_link.c.account_id == account_id,
        access_link.c.used_at.is_(None),
        access_link.c.expires_at > tx.now,
    )
    coming = select(access_link_request.c.account_id).where(
        access_link_request.c.account_id == account_id, access_link_request.c.expires_at > tx.now
    )
    return await tx.fetch_one(union_all(works, coming).limit(1)) is not None


async def purge_requests(tx: Transaction, *, expired_before: datetime) -> None:
    outlived = access_link_request.c.expires_at < expired_before
    await tx.execute(delete(access_link_request).where(outlived))


async def find_account_of_link(tx: Transaction, digest: bytes) -> AccountId | None:
    row = await tx.fetch_one(select(access_link.c.account_id).where(_works(tx, digest)))
    return None if row is None else AccountId(row.account_id)


async def use_link(tx: Transaction, digest: bytes) -> bool:
    """Use a link up, with all others of its account. Returns False when it doesn't work any more."""
    used = update(access_link).where(_works(tx, digest)).values(used_at=tx.now)
    row = (await tx.execute(used.returning(access_link.c.account_id))).one_or_none()
    if row is None:
        return False
    await withdraw_links(tx, row.account_id)
    return True


def _works(tx: Transaction, digest: bytes) -> ColumnElement[bool]:
    return and_(
        access_link.c.digest == digest, access_link.c.used_at.is_(None), access_link.c.expires_at > tx.now
    )
