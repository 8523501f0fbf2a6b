"""Adding and removing one's second factors, and losing them: then one person asks and another one decides.

Who has a factor shows it before anything changes: with the password alone nobody binds a new one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError
from clinic_shared.ids import uuid7
from clinic_shared.principal import AAL1, AAL2, Principal
from clinic_shared.problems import constraint_of
from clinic_shared.step_up import require_recent_authentication
from sqlalchemy.exc import IntegrityError

from clinic_identity import code_store, devices, factor_store, session_store, store, totp
from clinic_identity.desk import Desk
from clinic_identity.domain import Account, DeactivatedError, Session
from clinic_identity.factors import (
    ENROLMENT_WINDOW_AFTER_RESET,
    MAX_FACTORS,
    PROOF,
    RESET_LIFE,
    TICKET_LIFE,
    FactorExistsError,
    FactorKind,
    FactorReset,
    InvalidSecondFactorError,
    LastFactorError,
    Method,
    OwnResetError,
    ResetDecidedError,
    SecondFactor,
    TooManyFactorsError,
    digest_of,
    fold_recovery_code,
    new_recovery_codes,
)
from clinic_identity.passkeys import PasskeyRefusedError
from clinic_identity.second_step import lock_own_session, use_code
from clinic_identity.sessions import end_sessions, roles_of


@dataclass(frozen=True, kw_only=True)
class NewTotp:
    """A secret on its way into an app: shown this once."""

    factor_id: UUID
    secret: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class Added:
    """A factor that counts from now on; recovery codes come with the first one, shown this once."""

    factor: SecondFactor
    recovery_codes: list[str]


async def begin_totp(tx: Transaction, desk: Desk, caller: Principal, label: str) -> NewTotp:
    """Make a secret for an app. It counts once `confirm_totp` has seen a code; an earlier one is forgotten."""
    account, _ = await lock_to_change(tx, caller)
    await factor_store.remove_unconfirmed(tx, account.account_id)
    secret = totp.new_secret()
    factor = _new_factor(tx, account, FactorKind.TOTP, label)
    await factor_store.add_factor(tx, replace(factor, secret=desk.secrets.seal(secret, place=factor.place)))
    uri = totp.uri_of(secret, issuer=desk.settings.site_name, account=account.login)
    return NewTotp(factor_id=factor.factor_id, secret=totp.text_of(secret), uri=uri)


async def confirm_totp(tx: Transaction, desk: Desk, caller: Principal, factor_id: UUID, code: str) -> Added:
    """Raises InvalidSecondFactorError."""
    account, session = await lock_to_change(tx, caller)
    factor = await factor_store.find_factor(tx, account.account_id, factor_id)
    if factor is None or factor.kind is not FactorKind.TOTP or factor.confirmed_at is not None:
        raise NotFoundError
    if not await use_code(tx, desk, factor, code):
        raise InvalidSecondFactorError
    await factor_store.confirm_factor(tx, factor_id)
    return await _added(tx, account, session, replace(factor, confirmed_at=tx.now), Method.TOTP)


async def begin_passkey(tx: Transaction, desk: Desk, caller: Principal) -> Any:
    """Return what a page hands to `navigator.credentials.create`."""
    account, session = await lock_to_change(tx, caller)
    known = await factor_store.list_factors(tx, account.account_id)
    challenge, options = desk.passkeys.creation_options(account, known)
    await factor_store.keep_challenge(tx, _holder(session), challenge, expires_at=tx.now + TICKET_LIFE)
    return options


async def add_passkey(
    tx: Transaction, desk: Desk, caller: Principal, label: str, credential: Mapping[str, Any]
) -> Added:
    """Raises InvalidSecondFactorError, FactorExistsError."""
    account, session = await lock_to_change(tx, caller)
    challenge = await factor_store.take_challenge(tx, _holder(session))
    if challenge is None:
        raise InvalidSecondFactorError
    try:
        made = desk.passkeys.check_new(credential, challenge)
    except PasskeyRefusedError:
        raise InvalidSecondFactorError from None
    factor = replace(
        _new_factor(tx, account, FactorKind.PASSKEY, label),
        confirmed_at=tx.now,
        credential_id=made.credential_id,
        public_key=made.public_key,
        sign_count=made.sign_count,
    )
    try:
        await factor_store.add_factor(tx, factor)
    except IntegrityError as error:
        if constraint_of(error) == factor_store.CREDENTIAL_ONCE:
            raise FactorExistsError from error
        raise
    return await _added(tx, account, session, factor, Method.PASSKEY)


async def remove_factor(tx: Transaction, desk: Desk, caller: Principal, factor_id: UUID) -> None:
    """Raises LastFactorError where a role needs one."""
    account, session = await lock_to_change(tx, caller)
    factor = await factor_store.find_factor(tx, account.account_id, factor_id)
    if factor is None:
        raise NotFoundError
    others = [
        one for one in await factor_store.list_factors(tx, account.account_id) if one.factor_id != factor_id
    ]
    rules = desk.sign_in.rules_of(await roles_of(tx, account))
    if not others and rules.second_factor_required and factor.confirmed_at is not None:
        raise LastFactorError
    if others:
        await factor_store.remove_factor(tx, factor_id)
    else:
        await factor_store.remove_everything(tx, account.account_id)
    await _changed(tx, account, session, factor, Action.DELETE)


async def renew_recovery_codes(tx: Transaction, caller: Principal) -> list[str]:
    """Make new recovery codes; all earlier ones are void."""
    account, _ = await lock_to_change(tx, caller)
    if not await _has_factor(tx, account):
        raise NotFoundError
    codes = await make_recovery_codes(tx, account)
    _audit(tx, Action.UPDATE, account, reason="recovery-codes-renewed")
    return codes


async def _has_factor(tx: Transaction, account: Account) -> bool:
    stronger = await factor_store.list_factors(tx, account.account_id)
    return bool(stronger) or await code_store.find_number(tx, account.account_id) is not None


async def lock_to_change(tx: Transaction, caller: Principal) -> tuple[Account, Session]:
    """Raises StepUpRequiredError, UnauthenticatedError, TooManyFactorsError."""
    account, session = await lock_own_session(tx, caller.subject, caller.session_id)
    known = await factor_store.list_factors(tx, account.account_id)
    require_recent_authentication(caller, now=tx.now, acr=AAL2 if known else AAL1)
    if len(known) >= MAX_FACTORS:
        raise TooManyFactorsError
    return account, session


def _new_factor(tx: Transaction, account: Account, kind: FactorKind, label: str) -> SecondFactor:
    return SecondFactor(
        factor_id=uuid7(), account_id=account.account_id, kind=kind, label=label, created_at=tx.now
    )


async def _added(
    tx: Transaction, account: Account, session: Session, factor: SecondFactor, method: Method
) -> Added:
    is_first = await factor_store.count_recovery_codes(tx, account.account_id) == 0
    codes = await make_recovery_codes(tx, account) if is_first else []
    # They have just shown both; every other session was opened without this factor.
    proven = replace(session, amr=PROOF[method], authenticated_at=tx.now)
    await session_store.save_session(tx, proven)
    await _changed(tx, account, session, factor, Action.CREATE)
    return Added(factor=factor, recovery_codes=codes)


async def _changed(
    tx: Transaction, account: Account, session: Session, factor: SecondFactor, action: Action
) -> None:
    await end_sessions(tx, account, reason_code="second-factor-changed", but=session.session_id)
    _audit(tx, action, account, reason=f"second-factor-{factor.kind.value}", factor=factor.factor_id)


async def make_recovery_codes(tx: Transaction, account: Account) -> list[str]:
    """Return new codes, shown this once; all earlier ones are void."""
    codes = new_recovery_codes()
    digests = [digest_of(fold_recovery_code(code)) for code in codes]
    await factor_store.replace_recovery_codes(tx, account.account_id, digests)
    return codes


def _holder(session: Session) -> bytes:
    return b"enrolment:" + session.session_id.bytes


# -- somebody lost their factors


async def ask_for_reset(tx: Transaction, caller: Principal, account_id: UUID, reason: str) -> FactorReset:
    """Ask that somebody may start without their second factors. Raises OwnResetError, DeactivatedError."""
    account = await store.find_account(tx, account_id)
    if account is None:
        raise NotFoundError
    if account.account_id == caller.subject:
        raise OwnResetError
    if not account.active:
        raise DeactivatedError
    reset = FactorReset(
        reset_id=uuid7(),
        account_id=account.account_id,
        reason=reason,
        requested_by=caller.subject,
        requested_at=tx.now,
        expires_at=tx.now + RESET_LIFE,
    )
    await factor_store.add_reset(tx, reset)
    _audit(tx, Action.CREATE, account, reason="factor-reset-requested", reset=reset.reset_id)
    return reset


async def decide_reset(tx: Transaction, caller: Principal, reset_id: UUID, *, approve: bool) -> FactorReset:
    """Decide as the second person. Approved, the factors go, all sessions end, and enrolment is open for a day.

    Raises OwnResetError, ResetDecidedError.
    """
    reset = await factor_store.lock_reset(tx, reset_id)
    account = await store.lock_account(tx, reset.account_id) if reset else None
    if reset is None or account is None:
        raise NotFoundError
    if caller.subject in {reset.requested_by, reset.account_id}:
        raise OwnResetError
    if reset.decision is not None or reset.expires_at <= tx.now:
        raise ResetDecidedError
    decision = "approved" if approve else "rejected"
    decided = replace(reset, decision=decision, decided_by=caller.subject, decided_at=tx.now)
    await factor_store.save_reset(tx, decided)
    if approve:
        await _forget_factors(tx, account)
    _audit(tx, Action.UPDATE, account, reason=f"factor-reset-{decision}", reset=reset.reset_id)
    return decided


async def _forget_factors(tx: Transaction, account: Account) -> None:
    await factor_store.remove_everything(tx, account.account_id)
    opened = replace(
        account, second_factor_due_at=tx.now, enrolment_ends_at=tx.now + ENROLMENT_WINDOW_AFTER_RESET
    )
    await store.save_account(tx, opened)
    await devices.forget_all(tx, account.account_id)
    await end_sessions(tx, account, reason_code="second-factors-reset")


def _audit(tx: Transaction, action: Action, account: Account, *, reason: str, **ids: UUID) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="SecondFactor",
            resource_id=account.account_id,
            patient_id=account.patient_id,
            reason=reason,
            details={name: str(value) for name, value in ids.items()},
        )
    )
