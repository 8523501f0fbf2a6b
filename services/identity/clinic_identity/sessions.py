"""Sessions: access tokens for five minutes, refresh tokens that work once, and ending both early."""

import hashlib
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from clinic_shared import merges
from clinic_shared.audit import Action, AuditEntry, Outcome
from clinic_shared.auth import LIFETIME_SECONDS, claims_of
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.principal import AAL2, Principal

from clinic_identity import devices, factor_store, session_store, store
from clinic_identity.desk import Desk
from clinic_identity.domain import (
    LOCKED,
    Account,
    AccountKind,
    InvalidRefreshTokenError,
    Session,
    SessionId,
    Visit,
)
from clinic_identity.events import new_device_seen, session_revoked
from clinic_identity.roles import scopes_of
from clinic_identity.smart_scopes import permissions_in

REFRESH_TOKEN_PREFIX = "rt_"  # noqa: S105  # tells people and scanners what it is
RESTRICTED_SCOPES = frozenset({"profile.read"})
"""What a login opens that isn't complete: one's own account, to change the password or add a second factor."""


MAX_ADDRESS_LENGTH, MAX_AGENT_LENGTH = 64, 200


class SessionLimitError(DomainError):
    """The account's roles allow so many sessions at a time, and refuse another one."""

    slug = "session-limit"
    title = "There are as many sessions as the role allows"
    fix = "Log out elsewhere, or wait until that session has idled long enough."


class SessionLockedError(DomainError):
    """The workstation was locked: the session waits for its owner."""

    slug = "session-locked"
    title = "The session is locked"
    status = 401
    fix = "Send the refresh token with the PIN or the password to `/v1/auth/unlock`."


@dataclass(frozen=True, kw_only=True)
class Tokens:
    access_token: str
    expires_in_seconds: int
    refresh_token: str
    session: Session
    must_change_password: bool
    must_enrol: bool
    second_factor_due_at: datetime | None
    device_token: str | None = None


@dataclass(frozen=True, kw_only=True)
class AccessToken:
    """What a session may do for the next five minutes."""

    access_token: str
    expires_in_seconds: int
    scopes: frozenset[str]
    patient_id: UUID | None
    """The record in use of the patient whose session it is."""


async def start_session(
    tx: Transaction,
    desk: Desk,
    account: Account,
    *,
    visit: Visit,
    device_id: UUID | None,
    amr: tuple[str, ...] = ("pwd",),
    until: datetime | None = None,
    authenticated_at: datetime | None = None,
) -> Tokens:
    """Open a session. The caller holds the account's lock, so none is opened while it is closed.

    Raises PlaceRefusedError, SessionLimitError.
    """
    roles = await roles_of(tx, account)
    desk.places.require(roles, visit.address)
    limits = desk.session_limits(account, roles)
    await _make_room(tx, desk, account, roles)
    device_id, device_token = await devices.remember(tx, account.account_id, device_id)
    longest = tx.now + limits.longest
    session = Session(
        session_id=SessionId(uuid7()),
        account_id=account.account_id,
        started_at=tx.now,
        last_used_at=tx.now,
        expires_at=min(until, longest) if until else longest,
        amr=amr,
        authenticated_at=authenticated_at or tx.now,
        device_id=device_id,
        address=visit.address[:MAX_ADDRESS_LENGTH],
        agent=visit.agent[:MAX_AGENT_LENGTH],
    )
    await session_store.add_session(tx, session)
    if device_token is not None and desk.settings.new_devices_are_noticed:
        tx.emit(new_device_seen(account, session, device_id=device_id))
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="Login",
            resource_id=account.account_id,
            patient_id=account.patient_id,
            details={"session": str(session.session_id), "methods": " ".join(amr)} | _where(desk, visit),
        )
    )
    return replace(await _issue(tx, desk, account, session), device_token=device_token)


def _where(desk: Desk, visit: Visit) -> dict[str, str]:
    """Return the country of a login, for whoever watches for two at once; of the address nothing else."""
    country = desk.places.country_of(visit.address)
    return {} if country is None else {"country": country}


async def _make_room(tx: Transaction, desk: Desk, account: Account, roles: frozenset[str]) -> None:
    """Keep to the roles' number of sessions at a time; the account's lock makes it hold at every instant."""
    if not desk.sign_in.enforced:
        return
    rules, limits = desk.sign_in.rules_of(roles), desk.session_limits(account, roles)
    found = await session_store.lock_sessions(tx, account.account_id)
    live = [session for session in found if session.is_live(tx.now, limits)]
    if len(live) >= rules.sessions and rules.refuses_at_limit:
        raise SessionLimitError(sessions=rules.sessions)
    for session in live[: max(0, len(live) - rules.sessions + 1)]:
        await end_session(tx, session, account.kind, "session-limit")


async def refresh_session(
    tx: Transaction, desk: Desk, refresh_token: str, *, visit: Visit
) -> Tokens | DomainError:
    """Exchange a refresh token, which is used up by it. What a refusal recorded must commit.

    A token that was used before is in two hands, one of them a thief's: its session ends.
    """
    used = await use_refresh_token(tx, desk, refresh_token, visit=visit, client_id=None)
    if isinstance(used, DomainError):
        return used
    account, session = used
    return await _issue(tx, desk, account, session)


async def use_refresh_token(
    tx: Transaction, desk: Desk, refresh_token: str, *, visit: Visit, client_id: str | None
) -> tuple[Account, Session] | DomainError:
    """Use a token up and return whose session goes on by it. It is of no use to another app than its own."""
    digest = digest_of_refresh_token(refresh_token)
    session_id = await session_store.find_session_of_token(tx, digest)
    session = await session_store.lock_session(tx, session_id) if session_id else None
    account = await store.find_account(tx, session.account_id) if session else None
    if session is None or account is None or session.client_id != client_id:
        return InvalidRefreshTokenError()
    if session.is_locked(tx.now):
        return SessionLockedError()
    if not await session_store.use_refresh_token(tx, digest):
        await _end_stolen(tx, session, account)
        return InvalidRefreshTokenError()
    roles = await roles_of(tx, account)
    if not account.active or not session.is_live(tx.now, desk.session_limits(account, roles)):
        return InvalidRefreshTokenError()
    desk.places.require(roles, visit.address)
    return account, await note_use(tx, session)


async def note_use(tx: Transaction, session: Session) -> Session:
    used = replace(session, last_used_at=tx.now)
    await session_store.save_session(tx, used)
    return used


async def end_own_session(tx: Transaction, caller: Principal, session_id: UUID, *, reason_code: str) -> None:
    """End a session of the caller's. A session that ended already stays as it is."""
    session = await session_store.lock_session(tx, session_id)
    if session is None or session.account_id != caller.subject:
        raise NotFoundError
    await end_session(tx, session, caller.kind, reason_code)


async def lock_own_workstation(tx: Transaction, caller: Principal) -> None:
    """Void the session's tokens until `locking.unlock`; the refresh token is kept for that."""
    session = await session_store.lock_session(tx, caller.session_id) if caller.session_id else None
    if session is None or session.account_id != caller.subject or session.client_id is not None:
        raise NotFoundError  # an app is no workstation
    await end_session(tx, session, caller.kind, LOCKED)


async def end_any_session(tx: Transaction, session_id: UUID, *, reason_code: str) -> None:
    session = await session_store.lock_session(tx, session_id)
    account = await store.find_account(tx, session.account_id) if session else None
    if session is None or account is None:
        raise NotFoundError
    await end_session(tx, session, account.kind, reason_code)


async def end_sessions(
    tx: Transaction, account: Account, *, reason_code: str, but: UUID | None = None
) -> None:
    """End all sessions of an account, or all but one, and the logins that are half-way."""
    await factor_store.withdraw_tickets(tx, account.account_id)
    for session in await session_store.lock_sessions(tx, account.account_id):
        if session.session_id != but:
            await end_session(tx, session, account.kind, reason_code)


async def end_sessions_of_app(tx: Transaction, client_id: str, *, reason_code: str) -> None:
    for session in await session_store.lock_sessions_of_app(tx, client_id):
        account = await store.find_account(tx, session.account_id)
        if account is not None:
            await end_session(tx, session, account.kind, reason_code)


async def end_session(tx: Transaction, session: Session, kind: str, reason_code: str) -> None:
    if session.ended_at is not None:
        return
    await session_store.save_session(tx, replace(session, ended_at=tx.now, end_reason_code=reason_code))
    tx.emit(session_revoked(session, kind=str(kind), at=tx.now, reason_code=reason_code))
    tx.audit(
        AuditEntry(
            action=Action.DELETE, resource_type="Session", resource_id=session.session_id, reason=reason_code
        )
    )


async def _end_stolen(tx: Transaction, session: Session, account: Account) -> None:
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="Session",
            resource_id=session.session_id,
            outcome=Outcome.DENIED,
            reason="refresh-token-reused",
            details={"account": str(account.account_id)},
        )
    )
    await end_session(tx, session, account.kind, "refresh-token-reused")


async def _issue(tx: Transaction, desk: Desk, account: Account, session: Session) -> Tokens:
    refresh_token = await new_refresh_token(tx, session)
    due_at = await _second_factor_due_at(tx, desk, account, session)
    token = await access_token_of(tx, desk, account, session)
    return Tokens(
        access_token=token.access_token,
        expires_in_seconds=token.expires_in_seconds,
        refresh_token=refresh_token,
        session=session,
        must_change_password=account.must_change_password,
        must_enrol=due_at is not None and due_at <= tx.now,
        second_factor_due_at=due_at,
    )


async def new_refresh_token(tx: Transaction, session: Session) -> str:
    token = REFRESH_TOKEN_PREFIX + secrets.token_urlsafe(32)
    await session_store.add_refresh_token(tx, digest_of_refresh_token(token), session.session_id)
    return token


async def access_token_of(tx: Transaction, desk: Desk, account: Account, session: Session) -> AccessToken:
    """Return a token with all that the session's owner may do now; an app's, with what they let it do of that."""
    due_at = await _second_factor_due_at(tx, desk, account, session)
    must_enrol = due_at is not None and due_at <= tx.now
    must_change = account.must_change_password and desk.settings.password_change_is_enforced
    principal = await _principal_of(tx, account, session, restricted=must_change or must_enrol)
    issued_at = max(tx.now, account.tokens_valid_from)
    lifetime = token_lifetime(issued_at, until=session.expires_at)
    if session.granted_scopes is not None:
        principal = replace(principal, scopes=principal.scopes & permissions_in(session.granted_scopes))
    claims = claims_of(principal, issued_at=issued_at, lifetime_seconds=lifetime, client_id=session.client_id)
    return AccessToken(
        access_token=desk.keys.signer.sign(claims),
        expires_in_seconds=lifetime,
        scopes=principal.scopes,
        patient_id=principal.patient_id,
    )


async def _second_factor_due_at(
    tx: Transaction, desk: Desk, account: Account, session: Session
) -> datetime | None:
    """Return from when on this session needs a second factor that it lacks."""
    if not desk.sign_in.enforced or session.acr == AAL2:
        return None
    rules = desk.sign_in.rules_of(await roles_of(tx, account))
    return account.second_factor_due_at if rules.second_factor_required else None


async def roles_of(tx: Transaction, account: Account) -> frozenset[str]:
    if account.kind is AccountKind.PATIENT:
        return frozenset({AccountKind.PATIENT.value})
    staff = await store.find_staff(tx, account.account_id)
    return frozenset(staff.roles if staff else ())


def token_lifetime(issued_at: datetime, *, until: datetime) -> int:
    """Return whole seconds: five minutes, but not past the session's end."""
    return max(1, min(LIFETIME_SECONDS, int((until - issued_at) / timedelta(seconds=1))))


async def _principal_of(
    tx: Transaction, account: Account, session: Session, *, restricted: bool
) -> Principal:
    staff = await store.find_staff(tx, account.account_id) if account.kind is AccountKind.STAFF else None
    roles = frozenset(staff.roles if staff else (AccountKind.PATIENT.value,))
    scopes = await scopes_of(tx, roles)
    records = await merges.records_of(tx, account.patient_id) if account.patient_id else []
    return Principal(
        subject=account.account_id,
        kind=account.kind.value,
        roles=roles,
        scopes=scopes & RESTRICTED_SCOPES if restricted else scopes,
        network=staff.network if staff else False,
        centre_ids=frozenset(staff.centre_ids if staff else ()),
        department_ids=frozenset(staff.department_ids if staff else ()),
        patient_id=await merges.survivor_of(tx, account.patient_id) if account.patient_id else None,
        patient_records=frozenset(records if len(records) > 1 else ()),
        session_id=session.session_id,
        acr=session.acr,
        amr=session.amr,
        authenticated_at=session.authenticated_at or session.started_at,
    )


def digest_of_refresh_token(refresh_token: str) -> bytes:
    # 256 random bits: nothing to guess, so a fast hash is enough.
    return hashlib.sha256(refresh_token.encode("utf-8", "surrogatepass")).digest()
