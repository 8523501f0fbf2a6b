"""Queries on verified numbers and on codes under way."""

from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import Row, case, delete, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_identity.tables import one_time_code, sms_factor


async def find_number(tx: Transaction, account_id: UUID) -> bytes | None:
    """Return an account's verified number, sealed."""
    row = await tx.fetch_one(select(sms_factor.c.sealed_number).where(sms_factor.c.account_id == account_id))
    return None if row is None else bytes(row.sealed_number)


async def keep_number(tx: Transaction, account_id: UUID, sealed_number: bytes) -> None:
    values = {"sealed_number": sealed_number, "verified_at": tx.now}
    made = upsert(sms_factor).values(account_id=account_id, **values)
    await tx.execute(made.on_conflict_do_update(index_elements=[sms_factor.c.account_id], set_=values))


async def reseal_number(tx: Transaction, account_id: UUID, sealed_number: bytes) -> None:
    mine = sms_factor.c.account_id == account_id
    await tx.execute(update(sms_factor).where(mine).values(sealed_number=sealed_number))


async def forget_number(tx: Transaction, account_id: UUID) -> bool:
    gone = await tx.execute(delete(sms_factor).where(sms_factor.c.account_id == account_id))
    return gone.rowcount == 1


async def keep_request(tx: Transaction, holder: bytes, **values: Any) -> None:
    """Keep what was asked for; an earlier code of the same holder is void, its failures count while it lives."""
    made = upsert(one_time_code).values(holder=holder, box_version=0, failures=0, **values)
    failures = case((one_time_code.c.expires_at > tx.now, one_time_code.c.failures), else_=0)
    anew = {**values, "box": None, "box_version": 0, "failures": failures}
    await tx.execute(made.on_conflict_do_update(index_elements=[one_time_code.c.holder], set_=anew))


async def find_spent(tx: Transaction, holder: bytes, *, tries: int) -> Row[Any] | None:
    """Return the code under way at which so many have guessed that no other of this holder counts, either."""
    live = (one_time_code.c.holder == holder) & (one_time_code.c.expires_at > tx.now)
    return await tx.fetch_one(select(one_time_code).where(live, one_time_code.c.failures >= tries))


async def take_box(tx: Transaction, request_id: UUID, *, box: bytes, version: int) -> None:
    """Let the code count that left last."""
    asked = (one_time_code.c.request_id == request_id) & (one_time_code.c.box_version < version)
    await tx.execute(update(one_time_code).where(asked).values(box=box, box_version=version))


async def count_try(tx: Transaction, holder: bytes) -> Row[Any] | None:
    """Count a try and return the code that is under way, if there is one."""
    live = (one_time_code.c.holder == holder) & (one_time_code.c.expires_at > tx.now)
    counted = update(one_time_code).where(live).values(failures=one_time_code.c.failures + 1)
    return (await tx.execute(counted.returning(one_time_code))).one_or_none()


async def use_up(tx: Transaction, holder: bytes) -> None:
    await tx.execute(delete(one_time_code).where(one_time_code.c.holder == holder))
