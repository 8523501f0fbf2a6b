"""A patient's phone as their second step: verifying its number, taking it away, codes for a login.

Whoever has an app or a passkey uses that: codes by SMS count only where nothing stronger is.
"""

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.errors import ForbiddenError, NotFoundError
from clinic_shared.principal import Principal

from clinic_identity import code_store, factor_store, one_time_codes, store
from clinic_identity.desk import Desk
from clinic_identity.domain import Account, Session
from clinic_identity.enrolment import lock_to_change, make_recovery_codes
from clinic_identity.factors import PROOF, InvalidSecondFactorError, Method, digest_of
from clinic_identity.second_step import holder_of_ticket, number_for_login, refresh_proof
from clinic_identity.sessions import end_sessions


class SmsNotAllowedError(ForbiddenError):
    """Codes by SMS are for patients who have neither an app nor a passkey."""

    slug = "sms-not-allowed"
    title = "Codes by SMS aren't strong enough for this account"
    fix = "Add an authenticator app or a passkey (`/v1/me/mfa`)."


async def begin(tx: Transaction, desk: Desk, caller: Principal) -> None:
    """Have a code sent to the number of the caller's record. Raises SmsNotAllowedError, TooManyAttemptsError."""
    account, session = await lock_to_change(tx, caller)
    stronger = await factor_store.list_factors(tx, account.account_id)
    if stronger or not await one_time_codes.may_use_sms(tx, desk, account):
        raise SmsNotAllowedError
    await one_time_codes.have_code_sent(tx, desk, account, _holder(session), number=None)


async def confirm(desk: Desk, context: Context, code: str) -> list[str]:
    """Ask for codes at logins from now on, by the number that this one went to.

    Returns recovery codes, for the day when the phone is gone. Raises InvalidSecondFactorError.
    """
    async with desk.database.transaction(context) as tx:
        account, session = await lock_to_change(tx, context.principal)
        sent = await one_time_codes.check_code(tx, desk, account, _holder(session), code)
        if sent is not None:
            place = one_time_codes.place_of_number(account.account_id)
            sealed = desk.secrets.seal(sent.number.encode(), place=place)
            await code_store.keep_number(tx, account.account_id, sealed)
            await refresh_proof(tx, desk, account, session, amr=PROOF[Method.SMS])
            recovery_codes = await make_recovery_codes(tx, account)
            await _changed(tx, account, session, Action.CREATE)
    # After the commit: the failure stays counted.
    if sent is None:
        raise InvalidSecondFactorError
    return recovery_codes


async def remove(tx: Transaction, caller: Principal) -> None:
    account, session = await lock_to_change(tx, caller)
    if not await code_store.forget_number(tx, account.account_id):
        raise NotFoundError
    if not await factor_store.list_factors(tx, account.account_id):
        await factor_store.forget_recovery_codes(tx, account.account_id)
    await _changed(tx, account, session, Action.DELETE)


async def send_for_login(tx: Transaction, desk: Desk, ticket: str) -> None:
    """Have the code for a login sent. Raises InvalidSecondFactorError, TooManyAttemptsError."""
    digest = digest_of(ticket)
    found = await factor_store.find_ticket(tx, digest)
    account = await store.lock_account(tx, found.account_id) if found else None
    # Read again under the account's lock: what was withdrawn meanwhile gets none.
    found = await factor_store.find_ticket(tx, digest) if account else None
    if found is None or account is None:
        raise InvalidSecondFactorError
    number = await number_for_login(tx, desk, account)
    if number is None:
        raise InvalidSecondFactorError
    await one_time_codes.have_code_sent(tx, desk, account, holder_of_ticket(found), number=number)


async def _changed(tx: Transaction, account: Account, session: Session, action: Action) -> None:
    await end_sessions(tx, account, reason_code="second-factor-changed", but=session.session_id)
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="SecondFactor",
            resource_id=account.account_id,
            patient_id=account.patient_id,
            reason="second-factor-sms",
        )
    )


def _holder(session: Session) -> bytes:
    return b"sms:" + session.session_id.bytes
