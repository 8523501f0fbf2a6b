"""Codes by SMS: asked for here, made by notifications as the message leaves.

Six digits are too few for a digest to hide, so each request has a key pair: the public half travels, the code comes
back in a box that only our private half opens, and that half is sealed and gone with the code. The box names the
number too: a code counts only if it went to the number that the account's owner has verified.
"""

import hmac
import json
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.encryption.ciphers import SealBrokenError
from clinic_shared.encryption.one_way import new_key_pair, open_sealed
from clinic_shared.ids import uuid7

from clinic_identity import code_store, throttle
from clinic_identity.desk import Desk
from clinic_identity.domain import Account, AccountKind, TooManyAttemptsError
from clinic_identity.events import one_time_code_requested
from clinic_identity.sessions import roles_of

CODE_LIFE = timedelta(minutes=5)
CODE_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class SentCode:
    code: str
    number: str


async def may_use_sms(tx: Transaction, desk: Desk, account: Account) -> bool:
    """Say whether codes by SMS are good enough for somebody: by role, and for staff never."""
    if account.kind is not AccountKind.PATIENT:
        return False
    return desk.sign_in.rules_of(await roles_of(tx, account)).sms_allowed


async def verified_number(tx: Transaction, desk: Desk, account: Account) -> str | None:
    """Return the number that codes for the account must have gone to, if it may have any."""
    sealed = await code_store.find_number(tx, account.account_id)
    if sealed is None or not await may_use_sms(tx, desk, account):
        return None
    place = place_of_number(account.account_id)
    number = desk.secrets.open(sealed, place=place)
    if not desk.secrets.is_current(sealed):
        await code_store.reseal_number(tx, account.account_id, desk.secrets.seal(number, place=place))
    return number.decode()


async def have_code_sent(
    tx: Transaction, desk: Desk, account: Account, holder: bytes, *, number: str | None
) -> None:
    """Ask for a code. The caller holds the account's lock. Raises TooManyAttemptsError."""
    # A code that would be refused isn't worth a message.
    spent = await code_store.find_spent(tx, holder, tries=CODE_TRIES)
    wait = spent.expires_at - tx.now if spent else None
    wait = wait or await throttle.admit_message(tx, account.account_id, number)
    if wait:
        raise TooManyAttemptsError(wait)
    request_id, expires_at = uuid7(), tx.now + CODE_LIFE
    private_key, public_key = new_key_pair()
    await code_store.keep_request(
        tx,
        holder,
        request_id=request_id,
        account_id=account.account_id,
        sealed_key=desk.secrets.seal(private_key, place=_place_of_key(request_id)),
        expires_at=expires_at,
    )
    tx.emit(
        one_time_code_requested(
            account, request_id=request_id, public_key=public_key, at=tx.now, expires_at=expires_at
        )
    )


async def check_code(
    tx: Transaction, desk: Desk, account: Account, holder: bytes, code: str
) -> SentCode | None:
    """Return what was sent if this is its code, which is used up by it. Raises TooManyAttemptsError."""
    wait = await throttle.admit_code(tx, account.account_id)
    if wait:
        raise TooManyAttemptsError(wait)
    asked = await code_store.count_try(tx, holder)
    if asked is None or asked.account_id != account.account_id or asked.box is None:
        return None
    if asked.failures > CODE_TRIES:
        return None
    private_key = desk.secrets.open(bytes(asked.sealed_key), place=_place_of_key(asked.request_id))
    try:
        content = open_sealed(private_key, bytes(asked.box), context_of(asked.request_id))
    except SealBrokenError:
        return None
    sent = SentCode(**json.loads(content))
    if not hmac.compare_digest(sent.code.encode(), code.encode()):
        return None
    await code_store.use_up(tx, holder)
    await throttle.forget_codes(tx, account.account_id)
    return sent


def context_of(request_id: UUID) -> str:
    return f"one-time-code:{request_id}"


def place_of_number(account_id: UUID) -> str:
    return f"sms_factor.sealed_number:{account_id}"


def _place_of_key(request_id: UUID) -> str:
    return f"one_time_code.sealed_key:{request_id}"
