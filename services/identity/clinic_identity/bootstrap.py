"""The first administrator: made at start from settings, while nobody works here yet."""

from dataclasses import replace

import structlog
from clinic_shared.context import Context
from clinic_shared.database import Database, Transaction
from clinic_shared.ids import uuid7
from sqlalchemy import text

from clinic_identity import store
from clinic_identity.accounts import store_account
from clinic_identity.desk import Desk
from clinic_identity.domain import ADMINISTRATOR, Account, AccountId, AccountKind, check_password, parse_login
from clinic_identity.staff import PersonName, Position, store_member

log = structlog.get_logger()

_LOCK = 0x0C11_1D01


async def add_first_administrator(database: Database, desk: Desk) -> None:
    """Add the administrator that the settings name, unless there is staff. Replicas may all try."""
    login, password = desk.settings.bootstrap_admin_login, desk.settings.bootstrap_admin_password
    if login is None or password is None:
        return
    async with database.transaction(Context()) as tx:
        if await store.has_staff(tx):
            return
    # Before the lock: on a busy machine hashing takes longer than the others may wait for it.
    account = await _account(desk, login.get_secret_value(), password.get_secret_value())
    async with database.transaction(Context()) as tx:
        await tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        if not await store.has_staff(tx):
            await _add(tx, account)


async def _add(tx: Transaction, account: Account) -> None:
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


async def _account(desk: Desk, login: str, password: str) -> Account:
    now = desk.database.clock.now()
    login = parse_login(login, phone_allowed=False)
    check_password(password, kind=AccountKind.STAFF, login=login)
    account = Account(
        account_id=AccountId(uuid7()),
        kind=AccountKind.STAFF,
        login=login,
        password_hash=await desk.passwords.hash(password),
        password_expires_at=None,
        must_change_password=False,
        active=True,
        patient_id=None,
        tokens_valid_from=now,
        created_at=now,
    )
    # Whoever installs a production system isn't its administrator.
    return replace(account, must_change_password=desk.settings.environment == "production")
