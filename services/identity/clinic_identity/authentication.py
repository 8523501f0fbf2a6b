"""Logging in and changing one's password.

Both hash between two transactions: one counts the attempt, the other records what came of it. Whether
nobody has this login, the password is wrong or the account is closed, the work and the answer are the same.
"""

from collections.abc import Awaitable
from dataclasses import replace
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry, Outcome
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, UnauthenticatedError
from clinic_shared.ids import uuid7
from clinic_shared.metrics import REGISTRY
from clinic_shared.principal import Principal
from prometheus_client import Counter

from clinic_identity import devices, session_store, store, throttle
from clinic_identity.desk import Desk
from clinic_identity.domain import (
    Account,
    InvalidCredentialsError,
    TooManyAttemptsError,
    Visit,
    WeakPasswordError,
    fold_login,
    normalise_password,
)
from clinic_identity.events import password_changed
from clinic_identity.factors import ENROLMENT_WINDOW, EnrolmentClosedError
from clinic_identity.password_rules import require_good_password
from clinic_identity.second_step import Shown, ask_for_second_factor, finish_login
from clinic_identity.sessions import Tokens, end_sessions, roles_of, start_session
from clinic_identity.sign_in_policy import Rules
from clinic_identity.throttle import Attempt

SIGN_INS = Counter(
    "clinic_sign_ins_total",
    "Steps of logins: success, or the slug of what was answered",
    ["outcome"],
    registry=REGISTRY,
)


async def log_in(desk: Desk, context: Context, *, login: str, password: str, visit: Visit) -> Tokens:
    """Open a session.

    Raises MfaRequiredError (go on with its ticket), InvalidCredentialsError, TooManyAttemptsError,
    EnrolmentClosedError, PlaceRefusedError, SessionLimitError, TemporarilyUnavailableError.
    """
    return await _counted(_log_in(desk, context, login=login, password=password, visit=visit))


async def log_in_with_second_factor(
    desk: Desk, context: Context, *, ticket: str, shown: Shown, visit: Visit
) -> Tokens:
    """Finish what `log_in` began. Raises InvalidSecondFactorError, TooManyAttemptsError."""
    return await _counted(finish_login(desk, context, ticket=ticket, shown=shown, visit=visit))


async def _counted(login: Awaitable[Tokens]) -> Tokens:
    try:
        tokens = await login
    except DomainError as refusal:
        SIGN_INS.labels(outcome=refusal.slug).inc()
        raise
    SIGN_INS.labels(outcome="success").inc()
    return tokens


async def _log_in(desk: Desk, context: Context, *, login: str, password: str, visit: Visit) -> Tokens:
    attempt = Attempt(login=fold_login(login), address=visit.address)
    attempt, account = await _admit(desk, context, attempt, visit.device_token)
    if account is None or not await _matches(desk, password, account):
        await _refuse(desk, context, attempt, account)
        raise InvalidCredentialsError
    rehashed = await _rehash(desk, password, account)
    async with desk.database.transaction(context) as tx:
        current = await store.lock_account(tx, account.account_id)
        if (
            current is None
            or current.password_hash != account.password_hash
            or not current.can_log_in(tx.now)
        ):
            raise InvalidCredentialsError  # changed or closed while we were hashing
        if rehashed is not None:
            current = replace(current, password_hash=rehashed)
            await store.save_account(tx, current)
        await throttle.record_success(tx, attempt)
        outcome = await _after_password(tx, desk, current, visit, attempt.device)
    # After the commit: what a refused one was told about is kept.
    if isinstance(outcome, DomainError):
        raise outcome
    return outcome


async def _after_password(
    tx: Transaction, desk: Desk, account: Account, visit: Visit, device_id: UUID | None
) -> Tokens | DomainError:
    asked = await ask_for_second_factor(tx, desk, account, device_id)
    if asked is not None:
        return asked
    rules = desk.sign_in.rules_of(await roles_of(tx, account))
    if desk.sign_in.enforced and rules.second_factor_required:
        account = await _open_enrolment(tx, account, rules)
        if account.enrolment_ends_at is None or account.enrolment_ends_at <= tx.now:
            _audit_denial(tx, account, EnrolmentClosedError.slug)
            return EnrolmentClosedError()
    return await start_session(tx, desk, account, visit=visit, device_id=device_id)


async def _open_enrolment(tx: Transaction, account: Account, rules: Rules) -> Account:
    """Start the time in which a second factor must come, at the first login that lacks one."""
    if account.second_factor_due_at is not None:
        return account
    due_at = tx.now + rules.grace
    ends_at = max(due_at, tx.now + ENROLMENT_WINDOW)
    opened = replace(account, second_factor_due_at=due_at, enrolment_ends_at=ends_at)
    await store.save_account(tx, opened)
    return opened


async def change_password(
    desk: Desk, context: Context, *, current_password: str, new_password: str, address: str
) -> None:
    """Replace the caller's password and end their other sessions.

    Raises InvalidCredentialsError, TooManyAttemptsError, WeakPasswordError.
    """
    caller = context.principal
    own = await _account_of_live_session(desk, context, caller)
    await require_good_password(desk, context, own, new_password)
    if normalise_password(new_password) == normalise_password(current_password):
        raise WeakPasswordError(reasons=["unchanged"])
    # Counted by session: strangers who guess from elsewhere keep nobody from changing it.
    attempt = Attempt(login=own.login, address=address, device=caller.session_id)
    attempt, account = await _admit(desk, context, attempt)
    if account is None or not await _matches(desk, current_password, account):
        await _refuse(desk, context, attempt, account)
        raise InvalidCredentialsError
    new_hash = await desk.passwords.hash(new_password, place=own.account_id)
    async with desk.database.transaction(context) as tx:
        await _set_password(tx, account, new_hash, keep_session=caller.session_id)
        await throttle.record_success(tx, attempt)


async def _admit(
    desk: Desk, context: Context, attempt: Attempt, device_token: str | None = None
) -> tuple[Attempt, Account | None]:
    async with desk.database.transaction(context) as tx:
        account = await store.find_account_by_login(tx, attempt.login)
        if account is not None and attempt.device is None:
            device = await devices.recognise(tx, account.account_id, device_token)
            attempt = replace(attempt, device=device)
        wait = await throttle.admit(tx, attempt, failures_per_address=desk.settings.failures_per_address)
    if wait:
        raise TooManyAttemptsError(wait)
    if account is None:
        # The same work as for a real one, so that time doesn't tell who has an account.
        await desk.passwords.matches("", None, place=uuid7())
    return attempt, account


async def _matches(desk: Desk, password: str, account: Account) -> bool:
    right = await desk.passwords.matches(password, account.password_hash, place=account.account_id)
    return right and account.can_log_in(desk.database.clock.now())


async def _rehash(desk: Desk, password: str, account: Account) -> str | None:
    if desk.passwords.is_outdated(account.password_hash, place=account.account_id):
        return await desk.passwords.hash(password, place=account.account_id)
    return None


async def _refuse(desk: Desk, context: Context, attempt: Attempt, account: Account | None) -> None:
    async with desk.database.transaction(context) as tx:
        await throttle.record_failure(tx, attempt)
        _audit_denial(tx, account, InvalidCredentialsError.slug)


async def _account_of_live_session(desk: Desk, context: Context, caller: Principal) -> Account:
    async with desk.database.transaction(context) as tx:
        session = await session_store.find_session(tx, caller.session_id) if caller.session_id else None
        account = await store.find_account(tx, caller.subject)
    if session is None or session.ended_at is not None or account is None:
        raise UnauthenticatedError("The session has ended.")
    return account


async def _set_password(
    tx: Transaction, account: Account, new_hash: str, *, keep_session: UUID | None
) -> None:
    current = await store.lock_account(tx, account.account_id)
    if current is None or current.password_hash != account.password_hash or not current.active:
        raise InvalidCredentialsError  # changed or closed while we were hashing
    changed = replace(current, password_hash=new_hash, password_expires_at=None, must_change_password=False)
    await store.save_account(tx, changed)
    await end_sessions(tx, changed, reason_code="password-changed", but=keep_session)
    if not current.must_change_password:
        tx.emit(password_changed(changed, at=tx.now))
    tx.audit(
        AuditEntry(
            action=Action.UPDATE,
            resource_type="Account",
            resource_id=account.account_id,
            patient_id=account.patient_id,
            reason="password-changed",
        )
    )


def _audit_denial(tx: Transaction, account: Account | None, reason: str) -> None:
    """Record a refused login. What was typed is left out: it may be a password in the wrong field."""
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="Login",
            resource_id=account.account_id if account else None,
            patient_id=account.patient_id if account else None,
            outcome=Outcome.DENIED,
            reason=reason,
        )
    )
