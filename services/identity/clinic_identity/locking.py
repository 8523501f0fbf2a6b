"""A shared workstation: lock it in passing, unlock it with a PIN or the password instead of a whole login.

The PIN is nothing by itself: it counts together with the refresh token of a locked session, five times at most.
"""

import itertools
import re
from dataclasses import dataclass

from clinic_shared.audit import Action, AuditEntry, Outcome
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.errors import InvalidRequestError
from clinic_shared.principal import AAL1, Principal
from clinic_shared.step_up import require_recent_authentication
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_identity import session_store, store
from clinic_identity.desk import Desk
from clinic_identity.domain import (
    UNLOCK_TRIES,
    Account,
    InvalidCredentialsError,
    InvalidRefreshTokenError,
    Session,
    Visit,
)
from clinic_identity.second_step import lock_own_session
from clinic_identity.sessions import Tokens, digest_of_refresh_token, start_session
from clinic_identity.tables import workstation_pin


class WeakPinError(InvalidRequestError):
    """A PIN of one digit, or of digits that follow each other, is the first that anybody tries."""

    slug = "weak-pin"
    title = "The PIN is too easy to guess"
    fix = "Choose six to twelve digits that aren't all the same and don't just count up or down."


@dataclass(frozen=True, kw_only=True)
class _Locked:
    account: Account
    session: Session
    stored: str | None
    """The hash of what was asked for: the PIN's, or the password's."""


_PIN = re.compile(r"[0-9]{6,12}")


async def choose_pin(desk: Desk, context: Context, pin: str) -> None:
    """Set or replace the caller's PIN. Raises WeakPinError, StepUpRequiredError, UnauthenticatedError."""
    caller: Principal = context.principal
    _require_strong(pin)
    require_recent_authentication(caller, now=desk.database.clock.now(), acr=AAL1)
    hashed = await desk.passwords.hash(pin, place=caller.subject)
    async with desk.database.transaction(context) as tx:
        account, _ = await lock_own_session(tx, caller.subject, caller.session_id)
        # Six digits are tried in no time by whoever has their hash.
        sealed = desk.secrets.seal(hashed.encode(), place=_place(account))
        made = upsert(workstation_pin).values(
            account_id=account.account_id, sealed_hash=sealed, chosen_at=tx.now
        )
        await tx.execute(
            made.on_conflict_do_update(
                index_elements=[workstation_pin.c.account_id],
                set_={"sealed_hash": made.excluded.sealed_hash, "chosen_at": made.excluded.chosen_at},
            )
        )
        _audit(tx, account, Outcome.SUCCESS, "pin-chosen")


async def unlock(
    desk: Desk, context: Context, *, refresh_token: str, pin: str | None, password: str | None, visit: Visit
) -> Tokens:
    """Go on with a locked session, under a new id. Raises InvalidRefreshTokenError, InvalidCredentialsError."""
    digest = digest_of_refresh_token(refresh_token)
    async with desk.database.transaction(context) as tx:
        locked = await _find_locked(tx, desk, digest, by_pin=pin is not None)
        tries = await session_store.count_unlock(tx, locked.session.session_id) if locked else 0
    if locked is None or tries > UNLOCK_TRIES:
        raise InvalidRefreshTokenError
    # Between two transactions: hashing must not hold a connection.
    if not await desk.passwords.matches(
        pin or password or "", locked.stored, place=locked.account.account_id
    ):
        async with desk.database.transaction(context) as tx:
            _audit(tx, locked.account, Outcome.DENIED, "unlock-refused")
        raise InvalidCredentialsError
    async with desk.database.transaction(context) as tx:
        return await _go_on(tx, desk, digest, locked, visit)


async def _go_on(tx: Transaction, desk: Desk, digest: bytes, locked: _Locked, visit: Visit) -> Tokens:
    account = await store.lock_account(tx, locked.account.account_id)
    session = await session_store.lock_session(tx, locked.session.session_id)
    if account is None or session is None or not account.can_log_in(tx.now):
        raise InvalidRefreshTokenError
    # Of two at once one wins: the token is used up.
    if not session.is_locked(tx.now) or not await session_store.use_refresh_token(tx, digest):
        raise InvalidRefreshTokenError
    return await start_session(
        tx,
        desk,
        account,
        visit=visit,
        device_id=session.device_id,
        amr=session.amr,
        until=session.expires_at,
        authenticated_at=session.authenticated_at,
    )


async def _find_locked(tx: Transaction, desk: Desk, digest: bytes, *, by_pin: bool) -> _Locked | None:
    session_id = await session_store.find_session_of_token(tx, digest)
    session = await session_store.find_session(tx, session_id) if session_id else None
    account = await store.find_account(tx, session.account_id) if session else None
    if session is None or account is None or not session.is_locked(tx.now):
        return None
    stored = await _pin_of(tx, desk, account) if by_pin else account.password_hash
    return _Locked(account=account, session=session, stored=stored)


async def _pin_of(tx: Transaction, desk: Desk, account: Account) -> str | None:
    statement = select(workstation_pin.c.sealed_hash).where(
        workstation_pin.c.account_id == account.account_id
    )
    row = await tx.fetch_one(statement)
    return None if row is None else desk.secrets.open(row.sealed_hash, place=_place(account)).decode()


def _require_strong(pin: str) -> None:
    steps = {int(after) - int(before) for before, after in itertools.pairwise(pin)}
    if not _PIN.fullmatch(pin) or (len(steps) == 1 and steps <= {-1, 0, 1}):
        raise WeakPinError


def _place(account: Account) -> str:
    return f"workstation_pin.sealed_hash:{account.account_id}"


def _audit(tx: Transaction, account: Account, outcome: Outcome, reason: str) -> None:
    tx.audit(
        AuditEntry(
            action=Action.EXECUTE,
            resource_type="Login",
            resource_id=account.account_id,
            patient_id=account.patient_id,
            outcome=outcome,
            reason=reason,
        )
    )
