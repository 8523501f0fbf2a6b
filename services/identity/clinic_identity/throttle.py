"""Slowing down guesses, in the database: a restart or another replica forgets nothing.

A guess counts against the account before the password is checked, so that many at once gain nothing;
success takes the count back. Logins that nobody has are treated alike.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from clinic_shared.database import Transaction

from clinic_identity import session_store
from clinic_identity.domain import ADDRESS_WINDOW, FAILURES_FORGOTTEN_AFTER, delay_after
from clinic_identity.factors import LONGEST_DELAY

CODES = "second-factor"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Whose password is being tried, and from where. `login` is folded."""

    login: str
    address: str

    @property
    def account_key(self) -> bytes:
        return hashlib.sha256(self.login.encode("utf-8", "surrogatepass")).digest()

    @property
    def address_key(self) -> bytes:
        return hashlib.sha256(self.address.encode()).digest()


async def admit(tx: Transaction, attempt: Attempt, *, failures_per_address: int) -> timedelta | None:
    """Count the attempt; return how long to wait instead when there were too many."""
    address = await session_store.lock_failures(tx, "address", attempt.address_key)
    window_ends_at = address.counted_from + ADDRESS_WINDOW
    if address.failures >= failures_per_address and tx.now < window_ends_at:
        return timedelta(seconds=(window_ends_at - tx.now).total_seconds())
    account = await session_store.lock_failures(tx, "account", attempt.account_key)
    if account.blocked_until is not None and tx.now < account.blocked_until:
        return timedelta(seconds=(account.blocked_until - tx.now).total_seconds())
    forgotten = tx.now - account.last_failure_at >= FAILURES_FORGOTTEN_AFTER
    failures = 1 if forgotten else account.failures + 1
    await session_store.save_failures(
        tx,
        "account",
        attempt.account_key,
        failures=failures,
        counted_from=tx.now if forgotten else account.counted_from,
        blocked_until=tx.now + delay_after(failures),
    )
    return None


async def admit_code(tx: Transaction, account_id: UUID) -> timedelta | None:
    """Count a guess at an app's code; return how long to wait instead when there were too many."""
    codes = await session_store.lock_failures(tx, CODES, account_id.bytes)
    if codes.blocked_until is not None and tx.now < codes.blocked_until:
        return timedelta(seconds=(codes.blocked_until - tx.now).total_seconds())
    failures = int(codes.failures) + 1
    await session_store.save_failures(
        tx,
        CODES,
        account_id.bytes,
        failures=failures,
        counted_from=codes.counted_from,
        blocked_until=tx.now + delay_after(failures, longest=LONGEST_DELAY),
    )
    return None


async def forget_codes(tx: Transaction, account_id: UUID) -> None:
    await session_store.forget_failures(tx, CODES, account_id.bytes)


async def record_success(tx: Transaction, attempt: Attempt) -> None:
    await session_store.forget_failures(tx, "account", attempt.account_key)


async def record_failure(tx: Transaction, attempt: Attempt) -> None:
    """Count the failure against the address too; the account's was counted when it was admitted."""
    address = await session_store.lock_failures(tx, "address", attempt.address_key)
    new_window = tx.now >= address.counted_from + ADDRESS_WINDOW
    await session_store.save_failures(
        tx,
        "address",
        attempt.address_key,
        failures=1 if new_window else address.failures + 1,
        counted_from=tx.now if new_window else address.counted_from,
        blocked_until=None,
    )
