"""Sessions that people open for an app: by authorization codes (RFC 6749, 4.1; RFC 7636) and refresh tokens.

The session exists from the login on; a code, and every token after it, is only a handle to it. So a code or refresh
token that comes twice ends everything that was issued by it with one stroke.
"""

import hashlib
import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry, Outcome
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError
from sqlalchemy import insert, select, update

from clinic_identity import session_store, sessions, store
from clinic_identity.authorization import AuthorizationRequest
from clinic_identity.client_grants import Granted
from clinic_identity.desk import Desk
from clinic_identity.domain import Account, AccountKind, Session, Visit
from clinic_identity.id_tokens import id_token_of
from clinic_identity.oauth_domain import (
    CODE_LIFE,
    LASTING,
    LAUNCH_PATIENT,
    OPENID,
    PROTOCOL_SCOPES,
    Client,
    answers_challenge,
)
from clinic_identity.oauth_forms import Refused
from clinic_identity.smart_scopes import SMART_SCOPES
from clinic_identity.tables import authorization_code

CODE_PREFIX = "ac_"
_NOT_VALID = Refused("invalid_grant", "The code is not valid, was used, or belongs to another request.")
_SESSION_OVER = Refused("invalid_grant", "The refresh token was used, or its session has ended.")


@dataclass(frozen=True, kw_only=True)
class _Code:
    digest: bytes
    client_id: str
    session_id: UUID
    redirect_uri: str
    code_challenge: str
    nonce: str | None
    expires_at: datetime
    used_at: datetime | None


async def lend_session(
    tx: Transaction, session: Session, account: Account, request: AuthorizationRequest
) -> str:
    """Make a session that was just opened the app's, and return the code that fetches its tokens."""
    lent = replace(
        session, client_id=request.client.client_id, granted_scopes=tuple(sorted(_lent(account, request)))
    )
    await session_store.save_session(tx, lent)
    await session_store.withdraw_refresh_token(tx, session.session_id)
    code = CODE_PREFIX + secrets.token_urlsafe(32)
    await tx.execute(
        insert(authorization_code).values(
            digest=_digest(code),
            client_id=request.client.client_id,
            session_id=session.session_id,
            redirect_uri=request.redirect_uri,
            code_challenge=request.code_challenge,
            nonce=request.nonce,
            expires_at=tx.now + CODE_LIFE,
        )
    )
    _audit(tx, lent, account, "app-authorized")
    return code


def _lent(account: Account, request: AuthorizationRequest) -> frozenset[str]:
    # Nobody but a patient has a patient of their own: others get fewer scopes than were asked for (RFC 6749, 3.3).
    without = frozenset() if account.kind is AccountKind.PATIENT else {LAUNCH_PATIENT, *SMART_SCOPES}
    return request.scopes - without


async def redeem_code(
    tx: Transaction, desk: Desk, client: Client, *, code: str, redirect_uri: str, verifier: str
) -> Granted | Refused:
    """Exchange a code for tokens. A second time ends what the first one brought; that must commit."""
    found = await _lock_code(tx, code)
    if found is None or found.client_id != client.client_id:
        return _NOT_VALID
    session = await session_store.lock_session(tx, found.session_id)
    account = await store.find_account(tx, session.account_id) if session else None
    if session is None or account is None:
        return _NOT_VALID
    if found.used_at is not None:
        _audit(tx, session, account, "authorization-code-reused", outcome=Outcome.DENIED)
        await sessions.end_session(tx, session, account.kind, "authorization-code-reused")
        return _NOT_VALID
    right = found.redirect_uri == redirect_uri and answers_challenge(verifier, found.code_challenge)
    if not right or found.expires_at <= tx.now or not account.active or session.ended_at is not None:
        return _NOT_VALID
    await tx.execute(
        update(authorization_code).where(authorization_code.c.digest == found.digest).values(used_at=tx.now)
    )
    return await _grant(tx, desk, account, session, nonce=found.nonce)


async def refresh(
    tx: Transaction, desk: Desk, client: Client, *, refresh_token: str, scope: str | None, visit: Visit
) -> Granted | Refused:
    """Go on with a session by its refresh token. One that comes twice ends it; that must commit."""
    if scope is not None and not set(scope.split()) <= await _scopes_behind(tx, refresh_token):
        return Refused("invalid_scope", "A session has the scopes that it was opened with, and no others.")
    used = await sessions.use_refresh_token(tx, desk, refresh_token, visit=visit, client_id=client.client_id)
    if isinstance(used, DomainError):
        return _SESSION_OVER
    account, session = used
    return await _grant(tx, desk, account, session, nonce=None)


async def _scopes_behind(tx: Transaction, refresh_token: str) -> set[str]:
    session_id = await session_store.find_session_of_token(
        tx, sessions.digest_of_refresh_token(refresh_token)
    )
    session = await session_store.find_session(tx, session_id) if session_id else None
    return set(session.granted_scopes or ()) if session else set()


async def _grant(
    tx: Transaction, desk: Desk, account: Account, session: Session, *, nonce: str | None
) -> Granted:
    token = await sessions.access_token_of(tx, desk, account, session)
    lent = frozenset(session.granted_scopes or ())
    id_token = None
    if OPENID in lent:
        id_token = id_token_of(tx, desk, account, session, nonce=nonce, access_token=token.access_token)
    return Granted(
        access_token=token.access_token,
        expires_in_seconds=token.expires_in_seconds,
        scopes=_as_asked(token.scopes, lent),
        refresh_token=await sessions.new_refresh_token(tx, session) if lent & LASTING else None,
        id_token=id_token,
        patient_id=str(token.patient_id) if LAUNCH_PATIENT in lent else None,
    )


def _as_asked(permissions: frozenset[str], lent: frozenset[str]) -> frozenset[str]:
    """Return what was granted in the app's own words: SMART's scopes, where they bring anything, as such."""
    smart = {scope for scope in lent if SMART_SCOPES.get(scope, frozenset()) & permissions}
    return (permissions & lent) | (lent & PROTOCOL_SCOPES) | smart


async def _lock_code(tx: Transaction, code: str) -> _Code | None:
    statement = select(authorization_code).where(authorization_code.c.digest == _digest(code))
    row = await tx.fetch_one(statement.with_for_update())
    return None if row is None else _Code(**row._mapping)  # noqa: SLF001


def _audit(
    tx: Transaction, session: Session, account: Account, reason: str, *, outcome: Outcome = Outcome.SUCCESS
) -> None:
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="Session",
            resource_id=session.session_id,
            patient_id=account.patient_id,
            outcome=outcome,
            reason=reason,
            details={"account": str(account.account_id), "app": session.client_id or ""},
        )
    )


def _digest(code: str) -> bytes:
    # 256 random bits: nothing to guess, so a fast hash is enough.
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()
