"""Who is calling: the shared verifier (which remembers verified tokens), and sessions that ended early."""

import time
from typing import Protocol
from uuid import UUID

from clinic_shared.errors import UnauthenticatedError
from clinic_shared.principal import Principal

REVOCATION_KEPT_SECONDS = 310
"""A token lives 300 s, with 10 s leeway for clocks; after that its expiry refuses it."""


class Verifier(Protocol):
    """`clinic_shared.auth.TokenVerifier`, as far as it is needed here."""

    async def verify(self, token: str) -> Principal: ...


class Revocations:
    """Sessions that ended before their tokens did. Every replica learns of each by itself."""

    def __init__(self) -> None:
        self._until: dict[UUID, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def revoke_session(self, session_id: UUID) -> None:
        now = time.monotonic()
        self._until = {known: until for known, until in self._until.items() if until > now}
        self._until[session_id] = now + REVOCATION_KEPT_SECONDS

    def covers(self, principal: Principal) -> bool:
        return principal.session_id is not None and principal.session_id in self._until


class TokenCheck:
    def __init__(self, verifier: Verifier, revocations: Revocations) -> None:
        self._verifier = verifier
        self._revocations = revocations

    async def principal_of(self, token: str) -> Principal:
        """Raises UnauthenticatedError; TemporarilyUnavailableError while the issuer's keys are unknown."""
        principal = await self._verifier.verify(token)
        if self._revocations.covers(principal):
            raise UnauthenticatedError("The session has ended.")
        return principal
