"""The first administrator, while nobody works here yet: from settings in development, else by a link.

A link works once, so whoever installs a system never knows its administrator's password.
"""

from datetime import timedelta

import structlog
from clinic_shared.context import Context
from clinic_shared.database import Database, Transaction
from clinic_shared.ids import uuid7
from sqlalchemy import text

from clinic_identity import store
from clinic_identity.access_links import make_link
from clinic_identity.accounts import store_account
from clinic_identity.desk import Desk
from clinic_identity.domain import (
    ADMINISTRATOR,
    Account,
    AccountId,
    AccountKind,
    FirstAdministratorExistsError,
    check_password,
    parse_login,
)
from clinic_identity.staff import PersonName, Position, store_member

log = structlog.get_logger()

LINK_LIFE = timedelta(hours=24)
_LOCK = 0x0C11_1D01


async def add_first_administrator(database: Database, desk: Desk) -> None:
    """Add the administrator that the settings name, unless there is staff. Replicas may all try."""
    login, password = desk.settings.bootstrap_admin_login, desk.settings.bootstrap_admin_password
    if login is None or password is None:
        return
    async with database.transaction(Context()) as tx:
        if await store.has_staff(tx):
            return
    parsed = parse_login(login.get_secret_value(), phone_allowed=False)
    check_password(password.get_secret_value(), kind=AccountKind.STAFF, login=parsed)
    # Before the lock: on a busy machine hashing takes longer than the others may wait for it.
    account_id = AccountId(uuid7())
    hashed = await desk.passwords.hash(password.get_secret_value(), place=account_id)
    async with database.transaction(Context()) as tx:
        await _lock(tx)
        if not await store.has_staff(tx):
            await _add(tx, account_id, parsed, password_hash=hashed)


async def invite_first_administrator(database: Database, login: str) -> str:
    """Return the token of a link for the first administrator, who is made if there is no staff.

    Asked again before the link was used, it makes a new one. Raises FirstAdministratorExistsError,
    InvalidLoginError.
    """
    login = parse_login(login, phone_allowed=False)
    async with database.transaction(Context()) as tx:
        await _lock(tx)
        account = await store.find_account_by_login(tx, login)
        if not await store.has_staff(tx):
            account = await _add(tx, AccountId(uuid7()), login, password_hash="")
        if account is None or account.password_hash:
            raise FirstAdministratorExistsError
        return await make_link(tx, account.account_id, life=LINK_LIFE)


async def _lock(tx: Transaction) -> None:
    await tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


async def _add(tx: Transaction, account_id: AccountId, login: str, *, password_hash: str) -> Account:
    account = Account(
        account_id=account_id,
        kind=AccountKind.STAFF,
        login=login,
        password_hash=password_hash,
        password_expires_at=None,
        must_change_password=False,
        active=True,
        patient_id=None,
        tokens_valid_from=tx.now,
        created_at=tx.now,
    )
    await store_account(tx, account)
    await store_member(
        tx,
        account,
        PersonName(family="Administrator", given=None, patronymic=None),
        Position(
            roles=(ADMINISTRATOR,),
            network=True,
            centre_ids=(),
            department_ids=(),
            practitioner=False,
            specialty=None,
        ),
    )
    log.info("first_administrator_added")
    return account
