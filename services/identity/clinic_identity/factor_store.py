"""Queries on second factors, recovery codes, tickets, challenges and resets."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import Row, and_, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_identity.factors import FactorKind, FactorReset, SecondFactor, Ticket
from clinic_identity.tables import (
    factor_reset,
    one_time_code,
    passkey_challenge,
    recovery_code,
    second_factor,
    sign_in_ticket,
    sms_factor,
)

CREDENTIAL_ONCE = "second_factor_credential_once"

# -- factors


async def add_factor(tx: Transaction, new: SecondFactor) -> None:
    await tx.execute(insert(second_factor).values(asdict(new)))


async def list_factors(tx: Transaction, account_id: UUID) -> list[SecondFactor]:
    """Return an account's confirmed factors, oldest first."""
    statement = select(second_factor).where(
        second_factor.c.account_id == account_id, second_factor.c.confirmed_at.is_not(None)
    )
    return [_factor(row) for row in await tx.fetch_all(statement.order_by(second_factor.c.factor_id))]


async def find_factor(tx: Transaction, account_id: UUID, factor_id: UUID) -> SecondFactor | None:
    statement = select(second_factor).where(
        second_factor.c.factor_id == factor_id, second_factor.c.account_id == account_id
    )
    row = await tx.fetch_one(statement)
    return None if row is None else _factor(row)


async def confirm_factor(tx: Transaction, factor_id: UUID) -> None:
    await tx.execute(
        update(second_factor).where(second_factor.c.factor_id == factor_id).values(confirmed_at=tx.now)
    )


async def use_step(tx: Transaction, factor_id: UUID, step: int) -> bool:
    """Use a step's code up; False when it, or a later one, was used before. Of two at once one wins."""
    used = (
        update(second_factor)
        .where(second_factor.c.factor_id == factor_id, func.coalesce(second_factor.c.last_step, -1) < step)
        .values(last_step=step, last_used_at=tx.now)
    )
    return (await tx.execute(used)).rowcount == 1


async def count_use(tx: Transaction, factor_id: UUID, sign_count: int) -> None:
    await tx.execute(
        update(second_factor)
        .where(second_factor.c.factor_id == factor_id)
        .values(sign_count=sign_count, last_used_at=tx.now)
    )


async def reseal(tx: Transaction, factor_id: UUID, secret: bytes) -> None:
    await tx.execute(
        update(second_factor).where(second_factor.c.factor_id == factor_id).values(secret=secret)
    )


async def remove_factor(tx: Transaction, factor_id: UUID) -> None:
    await tx.execute(delete(second_factor).where(second_factor.c.factor_id == factor_id))


async def remove_unconfirmed(tx: Transaction, account_id: UUID) -> None:
    await tx.execute(
        delete(second_factor).where(
            second_factor.c.account_id == account_id, second_factor.c.confirmed_at.is_(None)
        )
    )


async def remove_everything(tx: Transaction, account_id: UUID) -> None:
    """Remove an account's factors, verified number, recovery codes and open tickets."""
    for table in (second_factor, recovery_code, sign_in_ticket, one_time_code, sms_factor):
        await tx.execute(delete(table).where(table.c.account_id == account_id))


def _factor(row: Row[Any]) -> SecondFactor:
    return SecondFactor(**dict(row._mapping) | {"kind": FactorKind(row.kind)})  # noqa: SLF001


# -- recovery codes


async def replace_recovery_codes(tx: Transaction, account_id: UUID, digests: Iterable[bytes]) -> None:
    await forget_recovery_codes(tx, account_id)
    rows = [{"digest": digest, "account_id": account_id, "created_at": tx.now} for digest in digests]
    await tx.execute(insert(recovery_code).values(rows))


async def forget_recovery_codes(tx: Transaction, account_id: UUID) -> None:
    await tx.execute(delete(recovery_code).where(recovery_code.c.account_id == account_id))


async def count_recovery_codes(tx: Transaction, account_id: UUID) -> int:
    statement = select(func.count()).where(
        recovery_code.c.account_id == account_id, recovery_code.c.used_at.is_(None)
    )
    return int((await tx.execute(statement)).scalar_one())


async def use_recovery_code(tx: Transaction, account_id: UUID, digest: bytes) -> bool:
    used = (
        update(recovery_code)
        .where(
            recovery_code.c.digest == digest,
            recovery_code.c.account_id == account_id,
            recovery_code.c.used_at.is_(None),
        )
        .values(used_at=tx.now)
    )
    return (await tx.execute(used)).rowcount == 1


# -- tickets


async def add_ticket(tx: Transaction, new: Ticket) -> None:
    await tx.execute(insert(sign_in_ticket).values(asdict(new)))


async def find_ticket(tx: Transaction, digest: bytes) -> Ticket | None:
    """Return a ticket that works."""
    statement = select(sign_in_ticket).where(
        and_(
            sign_in_ticket.c.digest == digest,
            sign_in_ticket.c.used_at.is_(None),
            sign_in_ticket.c.expires_at > tx.now,
        )
    )
    row = await tx.fetch_one(statement)
    return None if row is None else Ticket(**row._mapping)  # noqa: SLF001


async def save_ticket(tx: Transaction, changed: Ticket) -> None:
    await tx.execute(
        update(sign_in_ticket)
        .where(sign_in_ticket.c.digest == changed.digest)
        .values(failures=changed.failures, used_at=changed.used_at)
    )


async def withdraw_tickets(tx: Transaction, account_id: UUID) -> None:
    await tx.execute(delete(sign_in_ticket).where(sign_in_ticket.c.account_id == account_id))


# -- passkeys' challenges


async def keep_challenge(tx: Transaction, holder: bytes, challenge: bytes, *, expires_at: datetime) -> None:
    """Keep what is to be signed next; an earlier challenge of the same holder is void."""
    made = upsert(passkey_challenge).values(holder=holder, challenge=challenge, expires_at=expires_at)
    await tx.execute(
        made.on_conflict_do_update(
            index_elements=[passkey_challenge.c.holder],
            set_={"challenge": made.excluded.challenge, "expires_at": made.excluded.expires_at},
        )
    )


async def take_challenge(tx: Transaction, holder: bytes) -> bytes | None:
    """Return what was to be signed, once."""
    taken = (
        delete(passkey_challenge)
        .where(passkey_challenge.c.holder == holder)
        .returning(passkey_challenge.c.challenge, passkey_challenge.c.expires_at)
    )
    row = (await tx.execute(taken)).one_or_none()
    return None if row is None or row.expires_at <= tx.now else bytes(row.challenge)


# -- resets


async def add_reset(tx: Transaction, new: FactorReset) -> None:
    await tx.execute(insert(factor_reset).values(asdict(new)))


async def lock_reset(tx: Transaction, reset_id: UUID) -> FactorReset | None:
    row = await tx.fetch_one(
        select(factor_reset).where(factor_reset.c.reset_id == reset_id).with_for_update()
    )
    return None if row is None else FactorReset(**row._mapping)  # noqa: SLF001


async def save_reset(tx: Transaction, changed: FactorReset) -> None:
    await tx.execute(
        update(factor_reset).where(factor_reset.c.reset_id == changed.reset_id).values(asdict(changed))
    )


async def list_open_resets(tx: Transaction) -> list[FactorReset]:
    statement = select(factor_reset).where(
        factor_reset.c.decision.is_(None), factor_reset.c.expires_at > tx.now
    )
    rows = await tx.fetch_all(statement.order_by(factor_reset.c.reset_id).limit(200))
    return [FactorReset(**row._mapping) for row in rows]  # noqa: SLF001


# -- housekeeping


async def purge(tx: Transaction, *, expired_before: datetime) -> None:
    """Remove tickets, challenges and codes that nobody used in time."""
    for table in (sign_in_ticket, passkey_challenge, one_time_code):
        await tx.execute(delete(table).where(table.c.expires_at < expired_before))
