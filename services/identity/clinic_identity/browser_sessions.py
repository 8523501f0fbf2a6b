"""Sessions of browsers: an opaque cookie in place of tokens, which no script gets to see.

The cookie's digest stands beside the session; the gateway exchanges the cookie for an access token and keeps that for
as long as it lives. So any replica of the gateway can serve any browser, and none has anything to lose.
"""

import secrets
from dataclasses import dataclass

from clinic_shared.browser_cookie import csrf_token_of, digest_of
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError, UnauthenticatedError
from clinic_shared.principal import Principal
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_identity import session_store, sessions, store
from clinic_identity.desk import Desk
from clinic_identity.domain import Session, SessionId, Visit
from clinic_identity.sessions import AccessToken
from clinic_identity.tables import browser_session

COOKIE_PREFIX = "bs_"


@dataclass(frozen=True, kw_only=True)
class Cookie:
    value: str
    csrf_token: str
    session: Session


async def give_cookie(tx: Transaction, session: Session) -> Cookie:
    """Return a new cookie for a session; the one before stops, and so does its refresh token."""
    value = COOKIE_PREFIX + secrets.token_urlsafe(32)
    digest = digest_of(value)
    await session_store.withdraw_refresh_token(tx, session.session_id)
    made = upsert(browser_session).values(session_id=session.session_id, digest=digest, renewed_at=tx.now)
    await tx.execute(
        made.on_conflict_do_update(
            index_elements=[browser_session.c.session_id],
            set_={"digest": made.excluded.digest, "renewed_at": made.excluded.renewed_at},
        )
    )
    return Cookie(value=value, csrf_token=csrf_token_of(digest), session=session)


async def renew_cookie(tx: Transaction, caller: Principal) -> Cookie:
    """Replace the cookie of the caller's session. Raises NotFoundError for a session without one."""
    await csrf_token_of_session(tx, caller)
    session = await session_store.lock_session(tx, caller.session_id) if caller.session_id else None
    if session is None or session.ended_at is not None or session.account_id != caller.subject:
        raise UnauthenticatedError("The session has ended.")
    return await give_cookie(tx, session)


async def csrf_token_of_session(tx: Transaction, caller: Principal) -> str:
    """Return the token again, for a page that was loaded anew. Raises NotFoundError."""
    statement = select(browser_session.c.digest).where(browser_session.c.session_id == caller.session_id)
    row = await tx.fetch_one(statement)
    if row is None:
        raise NotFoundError
    return csrf_token_of(row.digest)


async def token_for_cookie(tx: Transaction, desk: Desk, value: str, *, visit: Visit) -> AccessToken:
    """Return an access token of a cookie's session, which counts as using it.

    Raises UnauthenticatedError, PlaceRefusedError.
    """
    statement = select(browser_session.c.session_id).where(browser_session.c.digest == digest_of(value))
    row = await tx.fetch_one(statement)
    session = await session_store.lock_session(tx, SessionId(row.session_id)) if row else None
    account = await store.find_account(tx, session.account_id) if session else None
    if session is None or account is None or not account.active:
        raise UnauthenticatedError("The session has ended.")
    roles = await sessions.roles_of(tx, account)
    if not session.is_live(tx.now, desk.session_limits(account, roles)):
        raise UnauthenticatedError("The session has ended.")
    desk.places.require(roles, visit.address)
    used = await sessions.note_use(tx, session)
    return await sessions.access_token_of(tx, desk, account, used)
