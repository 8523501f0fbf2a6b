"""The second step of a login, and showing once more in a session that it is its owner (step-up)."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry, Outcome
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.errors import UnauthenticatedError

from clinic_identity import factor_store, session_store, store, throttle, totp
from clinic_identity.desk import Desk
from clinic_identity.domain import Account, Session, TooManyAttemptsError, Visit
from clinic_identity.factors import (
    PROOF,
    RECOVERY_WITHOUT_FACTOR,
    TICKET_LIFE,
    TICKET_TRIES,
    FactorKind,
    InvalidSecondFactorError,
    Method,
    MfaRequiredError,
    SecondFactor,
    Ticket,
    digest_of,
    fold_recovery_code,
)
from clinic_identity.one_time_codes import check_code, verified_number
from clinic_identity.passkeys import PasskeyRefusedError
from clinic_identity.sessions import AccessToken, Tokens, access_token_of, start_session

TICKET_PREFIX = "st_"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What somebody shows as their second factor: a code, or a passkey's answer."""

    method: Method
    code: str = ""
    credential: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What can finish a login, and what a page hands to `navigator.credentials.get` for a passkey."""

    methods: frozenset[Method]
    passkey: Any = None


# -- between the two steps


async def ask_for_second_factor(
    tx: Transaction, desk: Desk, account: Account, device_id: UUID | None
) -> MfaRequiredError | None:
    """Return what a login with the right password is told if the account has a second factor."""
    methods = await _methods_of(tx, desk, account)
    if not methods:
        return None
    ticket = TICKET_PREFIX + secrets.token_urlsafe(32)
    await factor_store.add_ticket(
        tx,
        Ticket(
            digest=digest_of(ticket),
            account_id=account.account_id,
            created_at=tx.now,
            expires_at=tx.now + TICKET_LIFE,
            device_id=device_id,
        ),
    )
    return MfaRequiredError(
        ticket=ticket, methods=sorted(methods), expires_in=int(TICKET_LIFE.total_seconds())
    )


async def _methods_of(tx: Transaction, desk: Desk, account: Account) -> set[Method]:
    found = await factor_store.list_factors(tx, account.account_id)
    methods = {Method(factor.kind.value) for factor in found}
    if await number_for_login(tx, desk, account):
        methods.add(Method.SMS)
    if methods and await factor_store.count_recovery_codes(tx, account.account_id):
        methods.add(Method.RECOVERY_CODE)
    return methods


async def offer_for(tx: Transaction, desk: Desk, ticket: str) -> Offer:
    """Return what the ticket's login can go on with: nothing once it is over."""
    found = await factor_store.find_ticket(tx, digest_of(ticket))
    account = await store.find_account(tx, found.account_id) if found else None
    if found is None or account is None:
        return Offer(methods=frozenset())
    methods = await _methods_of(tx, desk, account)
    if not desk.passkeys.domain:
        methods.discard(Method.PASSKEY)
    if Method.PASSKEY not in methods:
        return Offer(methods=frozenset(methods))
    options = await _request_passkey(tx, desk, account.account_id, holder_of_ticket(found))
    return Offer(methods=frozenset(methods), passkey=options)


async def number_for_login(tx: Transaction, desk: Desk, account: Account) -> str | None:
    """Return the verified number whose codes finish the account's logins: none where a stronger factor does."""
    if await factor_store.list_factors(tx, account.account_id):
        return None
    return await verified_number(tx, desk, account)


async def passkey_options(tx: Transaction, desk: Desk, ticket: str) -> Any:
    """Return what a page hands to `navigator.credentials.get`. Raises InvalidSecondFactorError."""
    found = await factor_store.find_ticket(tx, digest_of(ticket))
    if found is None:
        raise InvalidSecondFactorError
    return await _request_passkey(tx, desk, found.account_id, holder_of_ticket(found))


async def finish_login(desk: Desk, context: Context, *, ticket: str, shown: Shown, visit: Visit) -> Tokens:
    """Open the session. Raises InvalidSecondFactorError, TooManyAttemptsError, and what `start_session` does."""
    async with desk.database.transaction(context) as tx:
        tokens = await _finish_login(tx, desk, digest_of(ticket), shown, visit)
    # After the commit: the failure stays counted.
    if tokens is None:
        raise InvalidSecondFactorError
    return tokens


async def _finish_login(
    tx: Transaction, desk: Desk, digest: bytes, shown: Shown, visit: Visit
) -> Tokens | None:
    found = await factor_store.find_ticket(tx, digest)
    account = await store.lock_account(tx, found.account_id) if found else None
    # Read again under the account's lock: of two at once one wins.
    ticket = await factor_store.find_ticket(tx, digest) if account else None
    if ticket is None or account is None or not account.can_log_in(tx.now):
        return None
    if not await _is_right(tx, desk, account, shown, holder_of_ticket(ticket)):
        failures = ticket.failures + 1
        spent = tx.now if failures >= TICKET_TRIES else None
        await factor_store.save_ticket(tx, replace(ticket, failures=failures, used_at=spent))
        _audit_refusal(tx, account, shown.method)
        return None
    await factor_store.save_ticket(tx, replace(ticket, used_at=tx.now))
    amr = await _amr_of(tx, account, shown.method)
    return await start_session(tx, desk, account, visit=visit, device_id=ticket.device_id, amr=amr)


# -- step-up


async def step_up_options(tx: Transaction, desk: Desk, session: Session) -> Any:
    return await _request_passkey(tx, desk, session.account_id, _holder_of_session(session))


async def step_up(desk: Desk, context: Context, shown: Shown) -> AccessToken:
    """Make the caller's session as fresh and as strong as what they show.

    Raises InvalidSecondFactorError, TooManyAttemptsError, UnauthenticatedError.
    """
    caller = context.principal
    async with desk.database.transaction(context) as tx:
        account, session = await lock_own_session(tx, caller.subject, caller.session_id)
        right = await _is_right(tx, desk, account, shown, _holder_of_session(session))
        if right:
            amr = await _amr_of(tx, account, shown.method)
            token = await refresh_proof(tx, desk, account, session, amr=amr)
        else:
            _audit_refusal(tx, account, shown.method)
    if not right:
        raise InvalidSecondFactorError
    return token


async def _amr_of(tx: Transaction, account: Account, method: Method) -> tuple[str, ...]:
    """Return what a proof counts for. In place of a phone a recovery code counts for no more than the phone."""
    if method is Method.RECOVERY_CODE and not await factor_store.list_factors(tx, account.account_id):
        return RECOVERY_WITHOUT_FACTOR
    return PROOF[method]


async def refresh_proof(
    tx: Transaction, desk: Desk, account: Account, session: Session, *, amr: tuple[str, ...]
) -> AccessToken:
    """Note that the session's owner has just shown who they are."""
    proven = replace(session, amr=amr, authenticated_at=tx.now)
    await session_store.save_session(tx, proven)
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="Session",
            resource_id=session.session_id,
            reason="authenticated-again",
            details={"methods": " ".join(amr)},
        )
    )
    return await access_token_of(tx, desk, account, proven)


async def lock_own_session(
    tx: Transaction, account_id: UUID, session_id: UUID | None
) -> tuple[Account, Session]:
    """Raises UnauthenticatedError when the session has ended, whatever its tokens say."""
    account = await store.lock_account(tx, account_id)
    session = await session_store.lock_session(tx, session_id) if session_id else None
    if account is None or not account.active or session is None or session.ended_at is not None:
        raise UnauthenticatedError("The session has ended.")
    if session.account_id != account.account_id:
        raise UnauthenticatedError("The session is somebody else's.")
    return account, session


# -- what is shown


async def _is_right(tx: Transaction, desk: Desk, account: Account, shown: Shown, holder: bytes) -> bool:
    match shown.method:
        case Method.TOTP:
            return await _check_totp(tx, desk, account, shown.code)
        case Method.RECOVERY_CODE:
            digest = digest_of(fold_recovery_code(shown.code))
            return await factor_store.use_recovery_code(tx, account.account_id, digest)
        case Method.SMS:
            return await _check_sms(tx, desk, account, shown.code, holder)
        case Method.PASSKEY:
            return await _check_passkey(tx, desk, account, shown.credential or {}, holder)


async def _check_totp(tx: Transaction, desk: Desk, account: Account, code: str) -> bool:
    wait = await throttle.admit_code(tx, account.account_id)
    if wait:
        raise TooManyAttemptsError(wait)
    for factor in await factor_store.list_factors(tx, account.account_id):
        if factor.kind is FactorKind.TOTP and await use_code(tx, desk, factor, code):
            await throttle.forget_codes(tx, account.account_id)
            return True
    return False


async def _check_sms(tx: Transaction, desk: Desk, account: Account, code: str, holder: bytes) -> bool:
    number = await number_for_login(tx, desk, account)
    if number is None:
        return False
    sent = await check_code(tx, desk, account, holder, code)
    # A record's number can be changed by others; the one that its owner verified counts.
    return sent is not None and sent.number == number


async def use_code(tx: Transaction, desk: Desk, factor: SecondFactor, code: str) -> bool:
    """Use an app's code up, if it is one."""
    sealed = factor.secret or b""
    secret = desk.secrets.open(sealed, place=factor.place)
    step = totp.matching_step(secret, code, tx.now)
    if step is None or not await factor_store.use_step(tx, factor.factor_id, step):
        return False
    if not desk.secrets.is_current(sealed):
        await factor_store.reseal(tx, factor.factor_id, desk.secrets.seal(secret, place=factor.place))
    return True


async def _check_passkey(
    tx: Transaction, desk: Desk, account: Account, credential: Mapping[str, Any], holder: bytes
) -> bool:
    challenge = await factor_store.take_challenge(tx, holder)
    if challenge is None:
        return False
    for factor in await _passkeys_of(tx, account.account_id):
        try:
            sign_count = desk.passkeys.check_use(credential, challenge, factor)
        except PasskeyRefusedError:
            continue
        await factor_store.count_use(tx, factor.factor_id, sign_count)
        return True
    return False


async def _request_passkey(tx: Transaction, desk: Desk, account_id: UUID, holder: bytes) -> Any:
    challenge, options = desk.passkeys.request_options(await _passkeys_of(tx, account_id))
    await factor_store.keep_challenge(tx, holder, challenge, expires_at=tx.now + TICKET_LIFE)
    return options


async def _passkeys_of(tx: Transaction, account_id: UUID) -> list[SecondFactor]:
    found = await factor_store.list_factors(tx, account_id)
    return [factor for factor in found if factor.kind is FactorKind.PASSKEY]


def holder_of_ticket(ticket: Ticket) -> bytes:
    return b"ticket:" + ticket.digest


def _holder_of_session(session: Session) -> bytes:
    return b"step-up:" + session.session_id.bytes


def _audit_refusal(tx: Transaction, account: Account, method: Method) -> None:
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="Login",
            resource_id=account.account_id,
            patient_id=account.patient_id,
            outcome=Outcome.DENIED,
            reason=InvalidSecondFactorError.slug,
            details={"method": method.value},
        )
    )
