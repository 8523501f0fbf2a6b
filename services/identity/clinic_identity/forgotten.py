"""Whoever forgot their password asks for a link by themselves; the answer never says whether anybody has the login.

The request writes the same rows for every login; a timer looks at the account and sends the link afterwards. While
a link of the account works or is under way, asking again does nothing: strangers who ask neither void what was sent
nor fill anybody's inbox.
"""

from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7
from clinic_shared.timers import Timer, Timers

from clinic_identity import code_store, factor_store, link_store, store, throttle
from clinic_identity.access_links import PATH, RESET_LIFE, send_reset_link
from clinic_identity.desk import Desk
from clinic_identity.domain import TooManyAttemptsError, fold_login

timers = Timers()

SEND = "forgotten-password.send"


async def ask_for_link(desk: Desk, context: Context, *, login: str, address: str) -> None:
    """Have a link sent to the login's owner, if it has one. Raises TooManyAttemptsError, by the address alone."""
    async with desk.database.transaction(context) as tx:
        wait = await throttle.admit_question(tx, address, most=desk.settings.forgotten_per_address)
        if wait is None:
            await _note(tx, fold_login(login), page_url=f"{desk.settings.url}{PATH}")
    # After the commit: what was refused stays counted.
    if wait is not None:
        raise TooManyAttemptsError(wait)


async def _note(tx: Transaction, login: str, *, page_url: str) -> None:
    account = await store.find_account_by_login(tx, login)
    account_id = account.account_id if account else None
    await tx.schedule(
        Timer(
            kind=SEND,
            subject=uuid7(),
            subject_version=1,
            due_at=tx.now,
            useful_until=tx.now + RESET_LIFE,
            payload={"account_id": account_id and str(account_id), "page_url": page_url},
        )
    )
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="AccessLink",
            resource_id=account_id,
            patient_id=account.patient_id if account else None,
            reason="forgotten-password",
        )
    )


@timers.on(SEND)
async def send(tx: Transaction, timer: Timer) -> None:
    """Send a link to the owner of a login that is in use. Without a password of their own they log in elsewhere."""
    if timer.payload["account_id"] is None:
        return
    account = await store.lock_account(tx, UUID(timer.payload["account_id"]))
    if account is None or not account.active or not account.password_hash:
        return
    if await _has_only_sms(tx, account.account_id):
        return
    if not await link_store.has_live_link(tx, account.account_id):
        await send_reset_link(tx, account, page_url=timer.payload["page_url"])


async def _has_only_sms(tx: Transaction, account_id: UUID) -> bool:
    """Whoever took over the number would get both the link and the code: these go to the desk."""
    if await code_store.find_number(tx, account_id) is None:
        return False
    return not await factor_store.list_factors(tx, account_id)
