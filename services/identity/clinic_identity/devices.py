"""Devices that logged in before: each keeps a token, and its own count of failures."""

import hashlib
import secrets
from datetime import datetime, timedelta
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7
from sqlalchemy import delete, insert, select, update

from clinic_identity.tables import known_device

TOKEN_PREFIX = "dv_"  # noqa: S105  # tells people and scanners what it is
FORGOTTEN_AFTER = timedelta(days=180)


async def recognise(tx: Transaction, account_id: UUID, token: str | None) -> UUID | None:
    """Return the device that this account's token belongs to."""
    if token is None:
        return None
    statement = select(known_device.c.device_id).where(
        known_device.c.digest == _digest(token), known_device.c.account_id == account_id
    )
    row = await tx.fetch_one(statement)
    return None if row is None else row.device_id


async def remember(tx: Transaction, account_id: UUID, device_id: UUID | None) -> tuple[UUID, str | None]:
    """Note that a device logged in. A new one gets a token, returned this once."""
    if device_id is not None:
        await tx.execute(
            update(known_device).where(known_device.c.device_id == device_id).values(last_seen_at=tx.now)
        )
        return device_id, None
    made, token = uuid7(), TOKEN_PREFIX + secrets.token_urlsafe(32)
    await tx.execute(
        insert(known_device).values(
            device_id=made,
            account_id=account_id,
            digest=_digest(token),
            first_seen_at=tx.now,
            last_seen_at=tx.now,
        )
    )
    return made, token


async def first_seen(tx: Transaction, account_id: UUID) -> dict[UUID, datetime]:
    """Return an account's devices, and when each first logged in."""
    statement = select(known_device.c.device_id, known_device.c.first_seen_at).where(
        known_device.c.account_id == account_id
    )
    return {row.device_id: row.first_seen_at for row in await tx.fetch_all(statement)}


async def forget_all(tx: Transaction, account_id: UUID) -> None:
    """Know none of an account's devices any more: their owner may have lost one."""
    await tx.execute(delete(known_device).where(known_device.c.account_id == account_id))


async def purge(tx: Transaction, *, seen_before: datetime) -> None:
    await tx.execute(delete(known_device).where(known_device.c.last_seen_at < seen_before))


def _digest(token: str) -> bytes:
    # 256 random bits: nothing to guess, so a fast hash is enough.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
