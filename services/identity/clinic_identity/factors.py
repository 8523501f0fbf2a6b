"""The rules of second factors, pure: what they are, how a login goes on with one, what is refused."""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from clinic_shared.errors import DomainError, ForbiddenError

from clinic_identity.domain import TWO_FACTORS, AccountId

TICKET_LIFE = timedelta(minutes=5)
TICKET_TRIES = 5
RESET_LIFE = timedelta(hours=24)
ENROLMENT_WINDOW = timedelta(hours=72)
ENROLMENT_WINDOW_AFTER_RESET = timedelta(hours=24)
LONGEST_DELAY = timedelta(hours=1)
"""Three codes of a million count at a time: at a guess an hour, one in 14,000 days hits."""
MAX_FACTORS = 10

RECOVERY_CODES = 10
_RECOVERY_BYTES = 15
"""120 random bits: nothing to guess, so a fast digest is enough to keep (ASVS 6.5.2)."""


class FactorKind(StrEnum):
    TOTP = "totp"
    PASSKEY = "passkey"


class Method(StrEnum):
    """What may finish a login."""

    TOTP = "totp"
    PASSKEY = "passkey"
    RECOVERY_CODE = "recovery-code"
    SMS = "sms"


PROOF = {
    Method.TOTP: ("pwd", "otp", TWO_FACTORS),
    Method.RECOVERY_CODE: ("pwd", "otp", TWO_FACTORS),
    Method.PASSKEY: ("pwd", "hwk", "user", TWO_FACTORS),
    # Not `mfa`: whoever takes over a number gets the codes, so what asks for two factors takes it for one.
    Method.SMS: ("pwd", "sms"),
}
"""RFC 8176's words for a password and each of these."""
RECOVERY_WITHOUT_FACTOR = ("pwd", "otp")
"""Of somebody with codes by SMS alone: whoever took their number over could have made new ones."""


class MfaRequiredError(DomainError):
    """The password is right, and the account has a second factor, which is asked for now."""

    slug = "mfa-required"
    title = "A second factor is needed"
    status = 401
    fix = "Within five minutes send `ticket` with a code or a passkey to `/v1/auth/mfa/...`; `methods` says which."

    def __init__(self, *, ticket: str, methods: list[str], expires_in: int) -> None:
        super().__init__(ticket=ticket, methods=methods, expires_in=expires_in)
        self.ticket = ticket
        self.methods = methods


class InvalidSecondFactorError(DomainError):
    """The code or passkey is wrong, was used before, or the login that it belongs to is over."""

    slug = "invalid-second-factor"
    title = "The second factor can't be accepted"
    status = 401
    fix = "Use the app's next code: each counts once. After five failures or five minutes log in again."


class EnrolmentClosedError(ForbiddenError):
    """The account's roles need a second factor, and the time in which one could be added is over."""

    slug = "enrolment-closed"
    title = "It is too late to add a second factor with the password alone"
    fix = (
        "Ask an administrator to open it: `POST /v1/users/{account_id}/factor-resets`; a second one approves."
    )


class LastFactorError(DomainError):
    """A role of the account needs a second factor, and this one is the last."""

    slug = "last-factor"
    title = "The last second factor stays"
    fix = "Add another one first."


class TooManyFactorsError(DomainError):
    """An account has ten second factors at most."""

    slug = "too-many-factors"
    title = "The account has as many second factors as it may have"
    fix = "Remove one that isn't used any more."


class FactorExistsError(DomainError):
    """This passkey belongs to an account already."""

    slug = "factor-exists"
    title = "This passkey is in use"
    fix = "Use another authenticator, or the one that is there."


class PasskeysNotOfferedError(DomainError):
    """Passkeys belong to a site, and nobody has told this installation its own."""

    slug = "passkeys-not-offered"
    title = "Passkeys are not set up here"
    fix = "Set CLINIC_PASSKEY_RP_ID and CLINIC_PASSKEY_ORIGINS for identity, or use an authenticator app."


class OwnResetError(DomainError):
    """Whose factors are reset, who asks for it and who approves it are three people."""

    slug = "own-reset"
    title = "Somebody else has to do this"
    fix = "Ask a colleague with the same permission."


class ResetDecidedError(DomainError):
    """The reset was approved, rejected, or nobody decided within a day."""

    slug = "reset-decided"
    title = "The reset is decided or has expired"
    fix = "Ask for a new one if it is still needed."


@dataclass(frozen=True, kw_only=True)
class SecondFactor:
    factor_id: UUID
    account_id: AccountId
    kind: FactorKind
    label: str
    created_at: datetime
    confirmed_at: datetime | None = None
    last_used_at: datetime | None = None
    secret: bytes | None = None
    """Of an authenticator app, sealed for `place`."""
    last_step: int | None = None
    credential_id: bytes | None = None
    public_key: bytes | None = None
    sign_count: int | None = None

    @property
    def place(self) -> str:
        return f"second_factor.secret:{self.factor_id}"


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """Between the two steps of a login."""

    digest: bytes
    account_id: AccountId
    created_at: datetime
    expires_at: datetime
    failures: int = 0
    used_at: datetime | None = None
    device_id: UUID | None = None
    """The known device that gave the password."""


@dataclass(frozen=True, kw_only=True)
class FactorReset:
    reset_id: UUID
    account_id: AccountId
    reason: str
    requested_by: UUID
    requested_at: datetime
    expires_at: datetime
    decision: str | None = None
    decided_by: UUID | None = None
    decided_at: datetime | None = None


def digest_of(secret: str) -> bytes:
    """Return what is kept of a ticket or recovery code: random bits need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def new_recovery_codes() -> list[str]:
    """Return ten codes in groups that can be read and typed."""
    texts = [base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode() for _ in range(RECOVERY_CODES)]
    return ["-".join(text[start : start + 4] for start in range(0, len(text), 4)) for text in texts]


def fold_recovery_code(typed: str) -> str:
    """Return the one spelling under which a recovery code is kept."""
    return "".join(typed.split()).replace("-", "").upper()
