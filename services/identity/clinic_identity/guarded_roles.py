"""Roles with which somebody could give themselves everything: one person asks for them, another one decides."""

from collections.abc import Collection
from typing import ClassVar
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError
from clinic_shared.principal import Principal
from sqlalchemy import select

from clinic_identity.domain import ADMINISTRATOR
from clinic_identity.tables import account, staff

CERTIFIER = "privacy-officer"
GUARDED = frozenset({ADMINISTRATOR, CERTIFIER})


class SecondPersonNeededError(DomainError):
    """Nobody makes administrators, or those who watch them, by themselves."""

    slug: ClassVar[str] = "second-person-needed"
    title: ClassVar[str] = "Somebody else has to agree to this role"
    fix: ClassVar[str] = (
        "Ask for it at /v1/staff/{id}/role-requests; a privacy officer decides. Give the other roles first."
    )


async def require_freely_given(tx: Transaction, added: Collection[str], caller: Principal) -> None:
    """Raises SecondPersonNeededError; while nobody could decide, as in a new network, one person is enough."""
    if GUARDED.isdisjoint(added):
        return
    if await active_holders(tx, CERTIFIER) - {caller.subject}:
        raise SecondPersonNeededError


async def active_holders(tx: Transaction, role: str) -> set[UUID]:
    statement = select(staff.c.staff_id).join(account, account.c.account_id == staff.c.staff_id)
    rows = await tx.fetch_all(
        statement.where(staff.c.roles.contains([role]), staff.c.active, account.c.active)
    )
    return {row.staff_id for row in rows}


async def is_last_administrator(tx: Transaction, staff_id: UUID) -> bool:
    return await active_holders(tx, ADMINISTRATOR) == {staff_id}
