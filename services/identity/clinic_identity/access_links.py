"""Links that work once: whoever opens one chooses the password of its account.

Only the digest is stored. Opening the page uses nothing up, since mail scanners open links too; choosing
the password does.
"""

import hashlib
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.context import Context
from clinic_shared.database import Transaction

from clinic_identity import link_store, store, throttle
from clinic_identity.desk import Desk
from clinic_identity.domain import Account, AccountId, LinkNotValidError
from clinic_identity.password_rules import require_good_password
from clinic_identity.sessions import end_sessions

PATH = "/welcome"
INVITATION_LIFE = timedelta(hours=72)
RESET_LIFE = timedelta(minutes=15)
TOKEN_PREFIX = "al_"  # noqa: S105  # tells people and scanners what it is


@dataclass(frozen=True, kw_only=True)
class HandedLink:
    url: str
    expires_at: datetime


async def make_link(tx: Transaction, account_id: AccountId, *, life: timedelta) -> str:
    """Return the token of a new link; earlier ones of the account stop working."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    await link_store.withdraw_links(tx, account_id)
    await link_store.add_link(tx, digest_of_link(token), account_id, expires_at=tx.now + life)
    return token


async def hand_out_link(tx: Transaction, desk: Desk, account: Account) -> HandedLink:
    """Make a link to hand over: an invitation works for three days, a reset for a quarter of an hour.

    A second factor stays asked for: the link replaces the password alone.
    """
    invited = account.must_change_password or not account.password_hash
    life = INVITATION_LIFE if invited else RESET_LIFE
    token = await make_link(tx, account.account_id, life=life)
    tx.audit(
        AuditEntry(
            action=Action.CREATE,
            resource_type="AccessLink",
            resource_id=account.account_id,
            patient_id=account.patient_id,
            reason="invitation" if invited else "reset",
        )
    )
    # Of the configured site, never of the request's Host, which anybody can send.
    return HandedLink(url=f"{desk.settings.url}{PATH}?token={token}", expires_at=tx.now + life)


async def accept_link(desk: Desk, context: Context, *, token: str, new_password: str) -> None:
    """Set the account's password and use the link up. Raises LinkNotValidError, WeakPasswordError."""
    async with desk.database.transaction(context) as tx:
        account = await _account_behind(tx, token)
    await require_good_password(desk, context, account, new_password)
    # Between two transactions: hashing must not hold a connection.
    new_hash = await desk.passwords.hash(new_password, place=account.account_id)
    async with desk.database.transaction(context) as tx:
        current = await store.lock_account(tx, account.account_id)
        if current is None or not await link_store.use_link(tx, digest_of_link(token)):
            raise LinkNotValidError
        changed = replace(
            current, password_hash=new_hash, password_expires_at=None, must_change_password=False
        )
        await store.save_account(tx, changed)
        await throttle.forget_strangers(tx, changed.login)
        await end_sessions(tx, changed, reason_code="password-changed")
        tx.audit(
            AuditEntry(
                action=Action.UPDATE,
                resource_type="Account",
                resource_id=current.account_id,
                patient_id=current.patient_id,
                reason="access-link-used",
            )
        )


async def _account_behind(tx: Transaction, token: str) -> Account:
    account_id = await link_store.find_account_of_link(tx, digest_of_link(token))
    account = await store.find_account(tx, account_id) if account_id else None
    if account is None or not account.active:
        raise LinkNotValidError
    return account


def digest_of_link(token: str) -> bytes:
    # 256 random bits: nothing to guess, so a fast hash is enough.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
