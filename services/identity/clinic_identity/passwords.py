"""Password hashes: argon2id in a few threads, with a short queue before the door is closed.

A check takes a tenth of a second and 46 MiB, so without a limit logins alone would bring a machine down.
"""

import asyncio
import base64
import binascii
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar
from uuid import UUID

import argon2
import structlog
from argon2.exceptions import InvalidHashError, VerificationError
from clinic_shared.errors import TemporarilyUnavailableError

from clinic_identity.domain import normalise_password
from clinic_identity.secret_box import BrokenSealError, SecretBox
from clinic_identity.settings import IdentitySettings

log = structlog.get_logger()

Given = ParamSpec("Given")
Result = TypeVar("Result")


SEALED = "sealed:"


class PasswordHasher:
    """Hashes, and seals the hashes where that is switched on: who has the database alone can't try passwords.

    `place` is whose password it is; a hash that is moved to another account opens nothing.
    """

    def __init__(
        self,
        *,
        iterations: int,
        memory_kib: int,
        threads: int,
        queue: int,
        box: SecretBox | None = None,
        seals: bool = False,
    ) -> None:
        self._box = box
        self._seals = seals
        self._argon2 = argon2.PasswordHasher(
            time_cost=iterations, memory_cost=memory_kib, parallelism=1, hash_len=32, salt_len=16
        )
        # Takes as long to check as a real one, and nothing matches it.
        self._nobodys = (
            f"$argon2id$v=19$m={memory_kib},t={iterations},p=1${_random_base64(16)}${_random_base64(32)}"
        )
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="argon2")
        self._most_pending = threads + queue
        self._pending = 0

    @classmethod
    def from_settings(cls, settings: IdentitySettings, box: SecretBox) -> Self:
        return cls(
            box=box,
            seals=settings.seal_passwords,
            iterations=settings.password_iterations,
            memory_kib=settings.password_memory_kib,
            threads=settings.password_threads or os.cpu_count() or 1,
            queue=settings.password_queue,
        )

    def take_keys(self, box: SecretBox) -> None:
        """Seal and open with these from now on."""
        self._box = box

    async def hash(self, password: str, *, place: UUID) -> str:
        """Return what is stored: the PHC string, sealed or not."""
        phc = await self._run(self._argon2.hash, normalise_password(password))
        if self._box is None or not self._seals:
            return phc
        return SEALED + base64.b64encode(self._box.seal(phc.encode(), place=_place(place))).decode()

    async def matches(self, password: str, stored: str | None, *, place: UUID) -> bool:
        """Check a password; without a stored hash (nobody has this login) do the same work in vain."""
        phc = self._open(stored, place) if stored else None
        return await self._run(self._matches, normalise_password(password), phc or self._nobodys)

    def is_outdated(self, stored: str, *, place: UUID) -> bool:
        """Tell whether it was made with other parameters or another key than today's, or isn't sealed and should be."""
        phc = self._open(stored, place)
        if phc is None:
            return False
        return self._argon2.check_needs_rehash(phc) or self._is_to_be_sealed(stored)

    def _open(self, stored: str, place: UUID) -> str | None:
        if not stored.startswith(SEALED):
            return stored
        try:
            assert self._box is not None  # noqa: S101  # what is sealed was sealed here
            sealed = base64.b64decode(stored.removeprefix(SEALED))
            return self._box.open(sealed, place=_place(place)).decode()
        except (BrokenSealError, binascii.Error):
            log.warning("password_seal_broken")
            return None

    def _is_to_be_sealed(self, stored: str) -> bool:
        if not self._seals or self._box is None:
            return False
        if not stored.startswith(SEALED):
            return True
        return not self._box.is_current(base64.b64decode(stored.removeprefix(SEALED)))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _matches(self, password: str, stored: str) -> bool:
        try:
            return self._argon2.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        if self._pending >= self._most_pending:
            raise TemporarilyUnavailableError("Too many logins at this moment.")
        self._pending += 1
        pending = self._threads.submit(work, *args, **kwargs)
        # Counted down by the thread's end: a caller that goes away doesn't stop the work.
        loop = asyncio.get_running_loop()
        pending.add_done_callback(lambda _: loop.call_soon_threadsafe(self._finished))
        return await asyncio.wrap_future(pending)

    def _finished(self) -> None:
        self._pending -= 1


def _place(owner: UUID) -> str:
    return f"account.password_hash:{owner}"


def _random_base64(length: int) -> str:
    return base64.b64encode(secrets.token_bytes(length)).rstrip(b"=").decode()


def make_initial_password() -> str:
    """Return a password of 100 random bits in groups that can be read out."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that looks like something else
    letters = [secrets.choice(alphabet) for _ in range(20)]
    return "-".join("".join(letters[start : start + 5]) for start in range(0, 20, 5))
