"""Slowing down guesses, in the database: a restart or another replica forgets nothing.

A guess counts before the password is checked, so that many at once gain nothing; success takes the count back.
Logins that nobody has are treated alike. A device that logged in before is counted by itself: whoever guesses from
elsewhere makes strangers wait, never its owner.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import Row

from clinic_identity import session_store
from clinic_identity.domain import (
    ADDRESS_WINDOW,
    FAILURES_FORGOTTEN_AFTER,
    STRANGERS_FORGOTTEN_AFTER,
    delay_after,
    strangers_wait,
)
from clinic_identity.factors import LONGEST_DELAY

CODES = "second-factor"
ADDRESS, DEVICE, STRANGER, STRANGERS = "address", "device", "stranger", "strangers"
QUESTIONS = "question"
RESEND_AFTER = timedelta(seconds=30)


class _Limit(NamedTuple):
    kind: str
    most: int
    window: timedelta


_MESSAGES = (
    _Limit("message", 3, timedelta(minutes=15)),
    _Limit("message-long", 10, FAILURES_FORGOTTEN_AFTER),
)
"""Each costs money, and lands on somebody's phone."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Whose password is being tried, and from where. `login` is folded; `device` known, or a session of theirs."""

    login: str
    address: str
    device: UUID | None = None

    @property
    def address_key(self) -> bytes:
        return _digest(self.address)

    @property
    def stranger_key(self) -> bytes:
        return _digest(f"{self.address}\n{self.login}")

    @property
    def account_key(self) -> bytes:
        return strangers_key(self.login)


def strangers_key(login: str) -> bytes:
    return _digest(login)


async def admit(tx: Transaction, attempt: Attempt, *, failures_per_address: int) -> timedelta | None:
    """Count the attempt; return how long to wait instead when there were too many."""
    if attempt.device is not None:
        return await _count(tx, DEVICE, attempt.device.bytes, wait=delay_after)
    address = await session_store.lock_failures(tx, ADDRESS, attempt.address_key)
    if wait := _rest_of_window(tx, address, most=failures_per_address):
        return wait
    strangers = await session_store.lock_failures(tx, STRANGERS, attempt.account_key)
    if strangers.blocked_until is not None and tx.now < strangers.blocked_until:
        return timedelta(seconds=(strangers.blocked_until - tx.now).total_seconds())
    waiting = await _count(tx, STRANGER, attempt.stranger_key, wait=delay_after)
    if waiting is None:
        await _count(
            tx, STRANGERS, attempt.account_key, wait=strangers_wait, forgotten_after=STRANGERS_FORGOTTEN_AFTER
        )
    return waiting


async def record_success(tx: Transaction, attempt: Attempt) -> None:
    """Forget the failures before. Those of strangers stay while a known device comes and goes."""
    if attempt.device is not None:
        await session_store.forget_failures(tx, DEVICE, attempt.device.bytes)
        return
    await session_store.forget_failures(tx, STRANGER, attempt.stranger_key)
    await session_store.forget_failures(tx, STRANGERS, attempt.account_key)


async def record_failure(tx: Transaction, attempt: Attempt) -> None:
    """Count the failure against the address too; the account's was counted when it was admitted."""
    if attempt.device is not None:
        return
    address = await session_store.lock_failures(tx, ADDRESS, attempt.address_key)
    await _count_in_window(tx, ADDRESS, attempt.address_key, address)


async def admit_question(tx: Transaction, address: str, *, most: int) -> timedelta | None:
    """Count somebody who says they forgot their password; return how long to wait instead.

    By address alone: whatever counted by account would let strangers keep its owner from asking.
    """
    key = _digest(address)
    counted = await session_store.lock_failures(tx, QUESTIONS, key)
    wait = _rest_of_window(tx, counted, most=most)
    if wait is None:
        await _count_in_window(tx, QUESTIONS, key, counted)
    return wait


async def forget_strangers(tx: Transaction, login: str) -> None:
    """Let everybody try again: the password is another one."""
    await session_store.forget_failures(tx, STRANGERS, strangers_key(login))


async def admit_code(tx: Transaction, account_id: UUID) -> timedelta | None:
    """Count a guess at an app's code; return how long to wait instead when there were too many."""
    return await _count(tx, CODES, account_id.bytes, wait=_delay_of_codes)


async def admit_message(tx: Transaction, account_id: UUID, number: str | None) -> timedelta | None:
    """Count a code that is to be sent, by account and number; return how long to wait instead."""
    subjects = [account_id.bytes, *([] if number is None else [_digest(number)])]
    counted = [
        (limit, subject, await session_store.lock_failures(tx, limit.kind, subject))
        for subject in subjects
        for limit in _MESSAGES
    ]
    waits = [
        wait
        for limit, _, row in counted
        for wait in (_rest_of_window(tx, row, most=limit.most, window=limit.window), _pause(tx, row))
        if wait is not None
    ]
    if waits:
        return max(waits)
    for limit, subject, row in counted:
        await _count_in_window(tx, limit.kind, subject, row, window=limit.window)
    return None


def _pause(tx: Transaction, counted: Row[Any]) -> timedelta | None:
    again_at = counted.last_failure_at + RESEND_AFTER
    return again_at - tx.now if counted.failures and tx.now < again_at else None


async def forget_codes(tx: Transaction, account_id: UUID) -> None:
    await session_store.forget_failures(tx, CODES, account_id.bytes)


def _delay_of_codes(failures: int) -> timedelta:
    return delay_after(failures, longest=LONGEST_DELAY)


def _rest_of_window(
    tx: Transaction, counted: Row[Any], *, most: int, window: timedelta = ADDRESS_WINDOW
) -> timedelta | None:
    ends_at = counted.counted_from + window
    if counted.failures < most or tx.now >= ends_at:
        return None
    return timedelta(seconds=(ends_at - tx.now).total_seconds())


async def _count_in_window(
    tx: Transaction,
    kind: str,
    subject: bytes,
    counted: Row[Any],
    *,
    window: timedelta = ADDRESS_WINDOW,
) -> None:
    new_window = tx.now >= counted.counted_from + window
    await session_store.save_failures(
        tx,
        kind,
        subject,
        failures=1 if new_window else counted.failures + 1,
        counted_from=tx.now if new_window else counted.counted_from,
        blocked_until=None,
    )


async def _count(
    tx: Transaction,
    kind: str,
    subject: bytes,
    *,
    wait: Callable[[int], timedelta],
    forgotten_after: timedelta = FAILURES_FORGOTTEN_AFTER,
) -> timedelta | None:
    counted = await session_store.lock_failures(tx, kind, subject)
    if counted.blocked_until is not None and tx.now < counted.blocked_until:
        return timedelta(seconds=(counted.blocked_until - tx.now).total_seconds())
    forgotten = tx.now - counted.last_failure_at >= forgotten_after
    failures = 1 if forgotten else int(counted.failures) + 1
    await session_store.save_failures(
        tx,
        kind,
        subject,
        failures=failures,
        counted_from=tx.now if forgotten else counted.counted_from,
        blocked_until=tx.now + wait(failures),
    )
    return None


def _digest(text: str) -> bytes:
    # People type passwords into the login field: not even the login is kept.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
