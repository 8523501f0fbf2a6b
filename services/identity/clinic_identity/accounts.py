"""What people log in with: accounts with an initial password that its owner replaces."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from clinic_shared import merges
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import NotFoundError, ReferenceNotYetKnownError
from clinic_shared.ids import uuid7
from clinic_shared.problems import constraint_of
from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError

from clinic_identity import store, throttle
from clinic_identity.access_links import Link, find_sent_link, issue_link
from clinic_identity.desk import Desk
from clinic_identity.domain import (
    Account,
    AccountId,
    AccountKind,
    DeactivatedError,
    LoginTakenError,
    PatientHasLoginError,
    parse_login,
)
from clinic_identity.merging import lock_accounts_of_person
from clinic_identity.passwords import make_initial_password
from clinic_identity.sessions import end_sessions


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """An account and the password that is shown this once."""

    account: Account
    initial_password: str


async def add_account(
    tx: Transaction, desk: Desk, kind: AccountKind, login: str, *, patient_id: UUID | None = None
) -> Invitation:
    """Make an account with an initial password. Raises InvalidLoginError, LoginTakenError."""
    password, account_id = make_initial_password(), AccountId(uuid7())
    account = Account(
        account_id=account_id,
        kind=kind,
        login=parse_login(login, phone_allowed=kind is AccountKind.PATIENT),
        password_hash=await desk.passwords.hash(password, place=account_id),
        password_expires_at=tx.now + desk.settings.initial_password_life,
        must_change_password=True,
        active=True,
        patient_id=patient_id,
        tokens_valid_from=tx.now,
        created_at=tx.now,
    )
    await store_account(tx, account)
    return Invitation(account=account, initial_password=password)


async def store_account(tx: Transaction, account: Account) -> None:
    """Raises LoginTakenError, PatientHasLoginError."""
    try:
        await store.add_account(tx, account)
    except IntegrityError as error:
        match constraint_of(error):
            case store.LOGIN_ONCE:
                raise LoginTakenError from error
            case store.PATIENT_ONCE:
                raise PatientHasLoginError from error
        raise


async def invite_patient(tx: Transaction, desk: Desk, patient_id: UUID, login: str) -> Invitation:
    """Give a patient a login. It reaches this patient's data and nobody else's.

    Of merged records it is the one's in use. Raises PatientHasLoginError.
    """
    patient_id = await merges.survivor_of(tx, patient_id)
    if not await store.is_patient_known(tx, patient_id):
        raise ReferenceNotYetKnownError("The patient is not known here yet.", reference="patient_id")
    if any(account.active for account in await lock_accounts_of_person(tx, patient_id)):
        raise PatientHasLoginError
    invitation = await add_account(tx, desk, AccountKind.PATIENT, login, patient_id=patient_id)
    _audit(tx, Action.CREATE, invitation.account)
    return invitation


async def renew_patients_password(tx: Transaction, desk: Desk, patient_id: UUID) -> Invitation:
    """Replace a patient's password by an initial one and end their sessions."""
    account = await _lock_patients_account(tx, patient_id)
    invitation = await renew_password(tx, desk, account)
    _audit(tx, Action.UPDATE, account, reason="password-renewed")
    return invitation


async def link_for_patient(tx: Transaction, desk: Desk, patient_id: UUID, *, send: bool | None) -> Link:
    """Make a link with which a patient chooses their password, or have it sent; earlier ones stop working."""
    return await issue_link(tx, desk, await _lock_patients_account(tx, patient_id), send=send)


async def sent_link_of_patient(tx: Transaction, patient_id: UUID) -> Row[Any]:
    """Return what became of the link that is being sent. Raises NotFoundError."""
    return await find_sent_link(tx, await _lock_patients_account(tx, patient_id))


async def deactivate_patients_login(tx: Transaction, patient_id: UUID) -> None:
    """Let the patient in no more, by the login of whichever of their records."""
    for account in await _lock_patients_accounts(tx, patient_id):
        await close_account(tx, account)
        _audit(tx, Action.UPDATE, account, reason="deactivated")


async def renew_password(tx: Transaction, desk: Desk, account: Account) -> Invitation:
    """Set an initial password again. The caller holds the account's lock and writes the audit record."""
    password = make_initial_password()
    renewed = replace(
        account,
        password_hash=await desk.passwords.hash(password, place=account.account_id),
        password_expires_at=tx.now + desk.settings.initial_password_life,
        must_change_password=True,
    )
    await store.save_account(tx, renewed)
    await throttle.forget_strangers(tx, account.login)
    await end_sessions(tx, account, reason_code="password-renewed")
    return Invitation(account=renewed, initial_password=password)


async def close_account(tx: Transaction, account: Account) -> None:
    """Let nobody in any more, now. The caller holds the account's lock."""
    await store.save_account(tx, replace(account, active=False))
    await end_sessions(tx, account, reason_code="deactivated")


async def _lock_patients_account(tx: Transaction, patient_id: UUID) -> Account:
    return (await _lock_patients_accounts(tx, patient_id))[0]


async def _lock_patients_accounts(tx: Transaction, patient_id: UUID) -> list[Account]:
    """Return the logins that are in use. Raises NotFoundError, DeactivatedError."""
    found = await lock_accounts_of_person(tx, patient_id)
    if not found:
        raise NotFoundError
    active = [account for account in found if account.active]
    if not active:
        raise DeactivatedError
    return active


def _audit(tx: Transaction, action: Action, account: Account, reason: str | None = None) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="Account",
            resource_id=account.account_id,
            patient_id=account.patient_id,
            reason=reason,
        )
    )
