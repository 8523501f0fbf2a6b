"""Links that work once: whoever opens one chooses the password of its account.

Only the digest is stored. Opening the page uses nothing up, since mail scanners open links too; choosing
the password does. A link is handed over by whoever asked for it, or sent to its owner by notifications,
which makes the secret and tells us its digest: the secret itself is in no event and no database.
"""

import hashlib
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, NotFoundError
from clinic_shared.ids import uuid7
from sqlalchemy import Row

from clinic_identity import link_store, store, throttle
from clinic_identity.desk import Desk
from clinic_identity.domain import Account, AccountId, LinkNotValidError
from clinic_identity.events import access_link_requested, password_changed
from clinic_identity.password_rules import require_good_password
from clinic_identity.sessions import end_sessions

PATH = "/welcome"
INVITATION_LIFE = timedelta(hours=72)
RESET_LIFE = timedelta(minutes=15)
TOKEN_PREFIX = "al_"  # noqa: S105  # tells people and scanners what it is


class LinksAreSentError(DomainError):
    """This installation shows links to nobody: they reach their owners by mail or text message."""

    slug = "links-are-sent"
    title = "Links aren't shown here"
    fix = "Ask with `deliver: message`; somebody without an address must be given one first."


@dataclass(frozen=True, kw_only=True)
class Link:
    """Handed over, it has its `url`; sent, the id of the request."""

    expires_at: datetime
    url: str | None = None
    request_id: UUID | None = None


async def make_link(tx: Transaction, account_id: AccountId, *, life: timedelta) -> str:
    """Return the token of a new link; earlier ones of the account stop working."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    await link_store.withdraw_links(tx, account_id)
    await link_store.add_link(tx, digest_of_link(token), account_id, expires_at=tx.now + life)
    return token


async def issue_link(tx: Transaction, desk: Desk, account: Account, *, send: bool | None) -> Link:
    """Make a link, or have one sent: an invitation works for three days, a reset for a quarter of an hour.

    A second factor stays asked for: the link replaces the password alone. The caller holds the account's
    lock. Raises LinksAreSentError.
    """
    shown = desk.settings.hand_over_links
    if send is False and not shown:
        raise LinksAreSentError
    send = not shown if send is None else send
    invited = account.must_change_password or not account.password_hash
    purpose, life = ("invitation", INVITATION_LIFE) if invited else ("reset", RESET_LIFE)
    _audit_link(tx, account, purpose, delivery="message" if send else "hand-over")
    # Of the configured site, never of the request's Host, which anybody can send.
    page_url = f"{desk.settings.url}{PATH}"
    if send:
        return await _request_link(tx, account, purpose, page_url, life)
    token = await make_link(tx, account.account_id, life=life)
    return Link(url=f"{page_url}?token={token}", expires_at=tx.now + life)


async def send_reset_link(tx: Transaction, account: Account, *, page_url: str) -> None:
    """Have a link sent that nobody else asked for than its owner. The caller holds the account's lock."""
    _audit_link(tx, account, "reset", delivery="message")
    await _request_link(tx, account, "reset", page_url, RESET_LIFE)


def _audit_link(tx: Transaction, account: Account, purpose: str, *, delivery: str) -> None:
    tx.audit(
        AuditEntry(
            action=Action.CREATE,
            resource_type="AccessLink",
            resource_id=account.account_id,
            patient_id=account.patient_id,
            reason=purpose,
            details={"delivery": delivery},
        )
    )


async def _request_link(
    tx: Transaction, account: Account, purpose: str, page_url: str, life: timedelta
) -> Link:
    await link_store.withdraw_links(tx, account.account_id)
    request_id, expires_at = uuid7(), tx.now + life
    await link_store.add_request(
        tx,
        request_id=request_id,
        account_id=account.account_id,
        purpose=purpose,
        requested_at=tx.now,
        expires_at=expires_at,
    )
    tx.emit(
        access_link_requested(
            account,
            request_id=request_id,
            purpose=purpose,
            page_url=page_url,
            at=tx.now,
            expires_at=expires_at,
        )
    )
    return Link(request_id=request_id, expires_at=expires_at)


async def find_sent_link(tx: Transaction, account: Account) -> Row[Any]:
    """Return the link under way to an account's owner. Raises NotFoundError: none, used or replaced."""
    found = await link_store.find_request(tx, account.account_id)
    if found is None:
        raise NotFoundError
    return found


@dataclass(frozen=True, kw_only=True)
class LinkAttempt:
    """What notifications tells of sending a link, or of giving up."""

    request_id: UUID
    version: int
    state: str
    channel: str
    failure_code: str | None
    digest: str | None


async def take_attempt(tx: Transaction, attempt: LinkAttempt) -> None:
    """Let a link work that is on its way, if it was asked for and nothing has replaced it since.

    Each attempt brings a secret of its own: of a repeated message whichever copy arrives works.
    """
    request = await link_store.lock_request(tx, attempt.request_id)
    if request is None:
        return
    if attempt.digest and request.expires_at > tx.now:
        digest = bytes.fromhex(attempt.digest)
        await link_store.add_link(tx, digest, request.account_id, expires_at=request.expires_at)
    if attempt.version > request.attempt_version:
        await link_store.save_attempt(
            tx,
            attempt.request_id,
            attempt_version=attempt.version,
            state=attempt.state,
            channel=attempt.channel,
            failure_code=attempt.failure_code,
        )


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
        if not current.must_change_password:
            tx.emit(password_changed(changed, at=tx.now))
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
