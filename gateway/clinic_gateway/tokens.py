"""Who is calling: the shared verifier (which remembers verified tokens), and what was revoked since."""

import base64
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol
from uuid import UUID

import orjson
from clinic_shared.client_certificates import require_own_certificate
from clinic_shared.errors import UnauthenticatedError
from clinic_shared.principal import Principal
from pydantic import AwareDatetime, BaseModel


class Verifier(Protocol):
    """`clinic_shared.auth.TokenVerifier`, as far as it is needed here."""

    async def verify(self, token: str) -> Principal: ...


class Revocation(BaseModel):
    """What identity says of one. Without a session, all of the principal's are meant."""

    principal_id: UUID
    session_id: UUID | None
    issued_before: AwareDatetime
    expires_at: AwareDatetime


class Revocations:
    """Sessions and accounts whose tokens ended before their time, each until those tokens expire.

    Every replica learns of each by itself, from the broker (`revocation_feed.py`) and from identity
    (`revocation_view.py`).
    """

    def __init__(self) -> None:
        self._sessions: dict[UUID, float] = {}
        self._accounts: dict[UUID, tuple[float, float]] = {}

    def take(self, told: Iterable[Revocation]) -> None:
        """Take in what identity or the broker says, any number of times."""
        self._forget_outlived()
        for one in told:
            until = one.expires_at.timestamp()
            if one.session_id is not None:
                self._sessions[one.session_id] = until
                continue
            issued_before, known_until = self._accounts.get(one.principal_id, (0.0, 0.0))
            latest = max(issued_before, one.issued_before.timestamp())
            self._accounts[one.principal_id] = (latest, max(known_until, until))

    def revoke_session(self, session_id: UUID, *, until: datetime) -> None:
        self._forget_outlived()
        self._sessions[session_id] = until.timestamp()

    def revoke_account(self, subject: UUID, *, issued_before: datetime, until: datetime) -> None:
        """Refuse the account's tokens issued before; one issued in the same second counts as before."""
        self._forget_outlived()
        self._accounts[subject] = (issued_before.timestamp(), until.timestamp())

    def cover(self, principal: Principal, token: str) -> bool:
        if principal.session_id in self._sessions:
            return True
        account = self._accounts.get(principal.subject)
        return account is not None and _claim(token, "iat") < account[0]

    def _forget_outlived(self) -> None:
        now = time.time()
        self._sessions = {known: until for known, until in self._sessions.items() if until > now}
        self._accounts = {known: entry for known, entry in self._accounts.items() if entry[1] > now}


def expires_at(token: str) -> float:
    """Read `exp` of a token that has just been verified, in seconds of the Unix epoch."""
    return _claim(token, "exp")


def _claim(token: str, name: str) -> float:
    payload = token.split(".")[1]
    claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return float(claims[name])


class TokenCheck:
    def __init__(self, verifier: Verifier, revocations: Revocations) -> None:
        self._verifier = verifier
        self._revocations = revocations

    async def principal_of(self, token: str, *, shown: Callable[[], bytes | None]) -> Principal:
        """Return whose token it is; `shown` is asked for the certificate that came with it, if it needs one.

        Raises UnauthenticatedError; TemporarilyUnavailableError while the issuer's keys are unknown.
        """
        principal = await self._verifier.verify(token)
        if principal.certificate is not None:
            require_own_certificate(principal, shown())
        if self._revocations.cover(principal, token):
            raise UnauthenticatedError("The session has ended.")
        return principal
