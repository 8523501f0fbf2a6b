"""Logging in at the operator's identity provider. Accounts are known by (issuer, subject), never by an address.

Nobody gets an account by having one there: an invitation's link is opened through the provider, once, by whoever was
invited, and that binds the two.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass, replace
from datetime import timedelta

from clinic_shared.audit import Action, AuditEntry, Outcome
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError
from sqlalchemy import Row, delete, insert, select

from clinic_identity import access_links, factor_store, link_store, store
from clinic_identity.browser_sessions import Cookie, give_cookie
from clinic_identity.desk import Desk
from clinic_identity.domain import TWO_FACTORS, Account, LinkNotValidError, Visit
from clinic_identity.oidc_provider import Identified, OidcProvider, SignOnNotOfferedError, SignOnRefusedError
from clinic_identity.sessions import roles_of, start_session
from clinic_identity.tables import external_login, external_login_attempt

ATTEMPT_LIFE = timedelta(minutes=10)
FEDERATED = "fed"
"""Our own word in `amr`: somebody else saw how it was done."""


class NotInvitedError(DomainError):
    """The person is known to the provider, but no account here was bound to them."""

    slug = "not-invited"
    title = "You have no account here yet"
    status = 403
    fix = "Ask an administrator for an invitation and open its link through the same sign-on."


class TwoFactorsNeededError(DomainError):
    """The account needs a second factor, and the provider doesn't say that it asked for one."""

    slug = "two-factors-needed"
    title = "A second factor is needed"
    status = 403
    fix = "Log in with the password and the second factor here, or have the provider ask for one and say so (`amr`)."


@dataclass(frozen=True, kw_only=True)
class Begun:
    """Where to send the browser, and what it keeps until it comes back."""

    location: str
    browser_token: str


def provider_of(desk: Desk) -> OidcProvider:
    if desk.provider is None:
        raise SignOnNotOfferedError
    return desk.provider


async def begin(desk: Desk, context: Context, *, invitation: str | None) -> Begun:
    """Raises SignOnNotOfferedError, ProviderUnreachableError."""
    state, nonce, verifier, browser = (secrets.token_urlsafe(32) for _ in range(4))
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    # Before the transaction: no remote call inside one.
    location = await provider_of(desk).login_url(state=state, nonce=nonce, challenge=challenge)
    async with desk.database.transaction(context) as tx:
        await tx.execute(delete(external_login_attempt).where(external_login_attempt.c.expires_at <= tx.now))
        await tx.execute(
            insert(external_login_attempt).values(
                state_digest=_digest(state),
                browser_digest=_digest(browser),
                nonce=nonce,
                verifier=verifier,
                link_digest=access_links.digest_of_link(invitation) if invitation else None,
                expires_at=tx.now + ATTEMPT_LIFE,
            )
        )
    return Begun(location=location, browser_token=browser)


async def complete(
    desk: Desk,
    context: Context,
    *,
    state: str,
    code: str,
    told_issuer: str | None,
    browser_token: str,
    visit: Visit,
) -> Cookie:
    """Open a session for whoever the provider says it is.

    Raises SignOnRefusedError, NotInvitedError, TwoFactorsNeededError, LinkNotValidError, ProviderUnreachableError.
    """
    provider = provider_of(desk)
    async with desk.database.transaction(context) as tx:
        attempt = await _take_attempt(tx, state, browser_token)
    if attempt is None:
        raise SignOnRefusedError
    identified = await provider.identify(
        code=code,
        verifier=attempt.verifier,
        nonce=attempt.nonce,
        told_issuer=told_issuer,
        now=desk.database.clock.now(),
    )
    async with desk.database.transaction(context) as tx:
        outcome = await _open(tx, desk, identified, attempt.link_digest, visit)
    # After the commit: a refusal stays recorded.
    if isinstance(outcome, DomainError):
        raise outcome
    return outcome


async def _open(
    tx: Transaction, desk: Desk, identified: Identified, link_digest: bytes | None, visit: Visit
) -> Cookie | DomainError:
    account = await (_link(tx, identified, link_digest) if link_digest else _find(tx, identified))
    if account is None or not account.active:
        refused: DomainError = LinkNotValidError() if link_digest else NotInvitedError()
        return _denied(tx, account, refused)
    if not identified.two_factors and await _needs_two(tx, desk, account):
        return _denied(tx, account, TwoFactorsNeededError())
    amr = (FEDERATED, TWO_FACTORS) if identified.two_factors else (FEDERATED,)
    tokens = await start_session(
        tx,
        desk,
        account,
        visit=visit,
        device_id=None,
        amr=amr,
        authenticated_at=identified.authenticated_at,
    )
    return await give_cookie(tx, tokens.session)


async def _needs_two(tx: Transaction, desk: Desk, account: Account) -> bool:
    # A factor that somebody added here is asked for, whichever way they come in.
    if await factor_store.list_factors(tx, account.account_id):
        return True
    rules = desk.sign_in.rules_of(await roles_of(tx, account))
    return desk.sign_in.enforced and rules.second_factor_required


async def _find(tx: Transaction, identified: Identified) -> Account | None:
    statement = select(external_login.c.account_id).where(
        external_login.c.issuer == identified.issuer, external_login.c.subject == identified.subject
    )
    row = await tx.fetch_one(statement)
    return await store.lock_account(tx, row.account_id) if row else None


async def _link(tx: Transaction, identified: Identified, link_digest: bytes) -> Account | None:
    """Bind the link's account to who logged in there. Whom another account belongs to gets no second one."""
    account_id = await link_store.find_account_of_link(tx, link_digest)
    account = await store.lock_account(tx, account_id) if account_id else None
    already = await _find(tx, identified)
    if account is None or not account.active or (already and already.account_id != account.account_id):
        return None
    if not await link_store.use_link(tx, link_digest):
        return None
    await tx.execute(
        delete(external_login).where(
            external_login.c.account_id == account.account_id, external_login.c.issuer == identified.issuer
        )
    )
    await tx.execute(
        insert(external_login).values(
            issuer=identified.issuer,
            subject=identified.subject,
            account_id=account.account_id,
            linked_at=tx.now,
        )
    )
    _audit(tx, account, Outcome.SUCCESS, "sign-on-linked")
    if account.must_change_password:
        # Nobody needs the password that was handed out to begin with.
        account = replace(account, password_hash="", password_expires_at=None, must_change_password=False)
        await store.save_account(tx, account)
    return account


async def _take_attempt(tx: Transaction, state: str, browser_token: str) -> Row[tuple[object, ...]] | None:
    """Use an attempt up. It belongs to the browser that began it: nobody logs somebody else in."""
    taken = delete(external_login_attempt).where(
        external_login_attempt.c.state_digest == _digest(state),
        external_login_attempt.c.browser_digest == _digest(browser_token),
        external_login_attempt.c.expires_at > tx.now,
    )
    return (await tx.execute(taken.returning(external_login_attempt))).one_or_none()


def _denied(tx: Transaction, account: Account | None, refused: DomainError) -> DomainError:
    _audit(tx, account, Outcome.DENIED, refused.slug)
    return refused


def _audit(tx: Transaction, account: Account | None, outcome: Outcome, reason: str) -> None:
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="Login",
            resource_id=account.account_id if account else None,
            patient_id=account.patient_id if account else None,
            outcome=outcome,
            reason=reason,
        )
    )


def _digest(token: str) -> bytes:
    # 256 random bits: nothing to guess, so a fast hash is enough.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
