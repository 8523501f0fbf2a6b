"""The rules of identity, pure: who people and clients are, passwords, sessions, and slowing down guesses."""

import math
import re
import unicodedata
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NewType
from uuid import UUID

from clinic_shared.errors import DomainError, InvalidRequestError
from clinic_shared.principal import AAL1, AAL2

from clinic_identity.guessable import is_guessable

AccountId = NewType("AccountId", UUID)
CentreId = NewType("CentreId", UUID)
DepartmentId = NewType("DepartmentId", UUID)
SessionId = NewType("SessionId", UUID)

ADMINISTRATOR = "system-administrator"
TWO_FACTORS = "mfa"
"""RFC 8176's word, in a session's `amr`, for having shown two."""


class AccountKind(StrEnum):
    STAFF = "staff"
    PATIENT = "patient"


# -- errors


class CodeTakenError(DomainError):
    """Codes are how people and other systems know a centre or department; each stands for one."""

    slug = "code-taken"
    title = "Another one has this code"
    fix = "Choose another code."


class CentreClosedError(DomainError):
    """A closed centre gets no new departments."""

    slug = "centre-closed"
    title = "The centre is closed"
    fix = "Choose an active centre."


class DepartmentClosedError(DomainError):
    """The department was closed; closing is final."""

    slug = "department-closed"
    title = "The department is closed"
    fix = "Open a new department."


class UnknownReferenceError(InvalidRequestError):
    """The request names a centre, department, legal entity, role or scope that doesn't exist."""

    slug = "unknown-reference"
    title = "The request names something that doesn't exist"
    fix = "Read the list it should be in; `reference` says which."


class LoginTakenError(DomainError):
    """A login belongs to one person."""

    slug = "login-taken"
    title = "This login is in use"
    fix = "Choose another e-mail address or phone number."


class PatientHasLoginError(DomainError):
    """A patient has one login."""

    slug = "patient-has-login"
    title = "The patient has a login already"
    fix = "Give the patient a new initial password instead."


class DeactivatedError(DomainError):
    """Who was deactivated stays so."""

    slug = "deactivated"
    title = "This account or client is deactivated"
    fix = "Add a new one."


class InvalidLoginError(InvalidRequestError):
    """A login is an e-mail address or a phone number in E.164 form."""

    slug = "invalid-login"
    title = "The login is neither an e-mail address nor a phone number"
    fix = "Send an address such as `anna.testova@example.org` or a number such as `+70000000001`."


class WeakPasswordError(InvalidRequestError):
    """The password doesn't follow the rules; `reasons` lists each that it breaks."""

    slug = "weak-password"
    title = "The password can't be accepted"
    fix = (
        "Staff need 12 characters, patients 15, at most 256; not the login, nor common words and names alone."
        " Four words that don't belong together do well."
    )

    def __init__(self, *, reasons: list[str]) -> None:
        super().__init__(reasons=reasons)
        self.reasons = reasons


class InvalidCredentialsError(DomainError):
    """Login and password don't belong together, or the account can't be used. We don't say which."""

    slug = "invalid-credentials"
    title = "Login or password is wrong"
    status = 401
    fix = "Check both. An initial password works for 72 hours; after that ask for a new one."


class InvalidRefreshTokenError(DomainError):
    """The refresh token is unknown, expired or was used before, or its session has ended."""

    slug = "invalid-refresh-token"
    title = "The session has ended"
    status = 401
    fix = "Log in again. A refresh token works once: keep the one that comes with each answer."


class LinkNotValidError(DomainError):
    """The link was used, has expired, or was replaced by a newer one."""

    slug = "link-not-valid"
    title = "This link doesn't work any more"
    status = 410
    fix = "Ask whoever sent it for a new one."


class FirstAdministratorExistsError(DomainError):
    """Somebody administers this network already and can add others."""

    slug = "first-administrator-exists"
    title = "There is an administrator already"
    fix = "Ask an administrator to add you, or to renew your password."


class TooManyAttemptsError(DomainError):
    """Too many failed logins of this account or from this address."""

    slug = "too-many-attempts"
    title = "Too many failed attempts"
    status = 429
    fix = "Wait for `Retry-After` seconds."

    def __init__(self, wait: timedelta) -> None:
        super().__init__()
        self.retry_after_seconds = max(1, math.ceil(wait.total_seconds()))


# -- organisation


@dataclass(frozen=True, kw_only=True)
class Centre:
    centre_id: CentreId
    version: int
    code: str
    name: str
    legal_entity_id: UUID
    legal_entity_name: str
    currency: str
    time_zone: str
    language: str
    address: str | None
    phone: str | None
    status: str
    opened_at: datetime
    changed_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        return self.status == "active"


@dataclass(frozen=True, kw_only=True)
class Department:
    department_id: DepartmentId
    version: int
    centre_id: CentreId
    code: str
    name: str
    specialty: str | None
    status: str
    opened_at: datetime
    changed_at: datetime | None = None
    closed_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        return self.status == "active"


# -- people


@dataclass(frozen=True, kw_only=True)
class Role:
    code: str
    taxonomy_version: int
    title: str
    principal: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StaffMember:
    """`network` lets them work in every centre; otherwise only where the lists say."""

    staff_id: AccountId
    version: int
    family: str
    given: str | None
    patronymic: str | None
    roles: tuple[str, ...]
    network: bool
    centre_ids: tuple[UUID, ...]
    department_ids: tuple[UUID, ...]
    practitioner: bool
    specialty: str | None
    active: bool
    added_at: datetime
    moved_at: datetime | None = None
    deactivated_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Account:
    """What somebody logs in with. A member of staff's account has their staff id."""

    account_id: AccountId
    kind: AccountKind
    login: str
    password_hash: str
    """A PHC string; empty until the owner has chosen a password."""
    password_expires_at: datetime | None
    must_change_password: bool
    active: bool
    patient_id: UUID | None
    tokens_valid_from: datetime
    created_at: datetime
    second_factor_due_at: datetime | None = None
    """From then on a login without a second factor opens nothing but enrolling one; until `enrolment_ends_at`."""
    enrolment_ends_at: datetime | None = None

    def can_log_in(self, now: datetime) -> bool:
        return self.active and (self.password_expires_at is None or now < self.password_expires_at)


_EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]+\.[^@\s\x00-\x1f.]+")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_PHONE_PUNCTUATION = re.compile(r"[\s().-]")
MAX_LOGIN_LENGTH = 254


def fold_login(text: str) -> str:
    """Return the one spelling under which a login is kept and looked up."""
    folded = unicodedata.normalize("NFC", text.strip()).casefold()
    return _PHONE_PUNCTUATION.sub("", folded) if folded.startswith("+") else folded


def parse_login(text: str, *, phone_allowed: bool) -> str:
    """Return a new account's login. Raises InvalidLoginError."""
    login = fold_login(text)
    if len(login) <= MAX_LOGIN_LENGTH and _EMAIL.fullmatch(login):
        return login
    if phone_allowed and _E164.fullmatch(login):
        return login
    raise InvalidLoginError


# -- passwords

MIN_PASSWORD_LENGTH = {AccountKind.STAFF: 12, AccountKind.PATIENT: 15}
MAX_PASSWORD_LENGTH = 256
_SHORTEST_TELLING_LOGIN = 4
_FEWEST_CHARACTERS = 5


def normalise_password(password: str) -> str:
    """Return the same text for the same keys pressed on any device (NIST SP 800-63B)."""
    return unicodedata.normalize("NFC", password)


def check_password(
    password: str,
    *,
    kind: AccountKind,
    login: str,
    context: Iterable[str] = (),
    breached: Container[str] = (),
) -> None:
    """Refuse a password that could be guessed. Lengths are code points. Raises WeakPasswordError.

    `context` is what an attacker would know: names, the clinic.
    """
    password = normalise_password(password)
    reasons = []
    if len(password) < MIN_PASSWORD_LENGTH[kind]:
        reasons.append("too-short")
    if len(password) > MAX_PASSWORD_LENGTH:
        reasons.append("too-long")
    name = login.partition("@")[0]
    if len(name) >= _SHORTEST_TELLING_LOGIN and name in password.casefold():
        reasons.append("contains-login")
    if len(set(password)) < _FEWEST_CHARACTERS:
        reasons.append("repetitive")
    if not reasons and is_guessable(password, (login, *context)):
        reasons.append("guessable")
    if not reasons and password in breached:
        reasons.append("known-from-breaches")
    if reasons:
        raise WeakPasswordError(reasons=reasons)


# -- slowing down guesses

FREE_FAILURES = 4
LONGEST_DELAY = timedelta(minutes=15)
FAILURES_FORGOTTEN_AFTER = timedelta(hours=12)
ADDRESS_WINDOW = timedelta(minutes=5)


STRANGERS_LOCKED_FROM = 10
STRANGERS_LOCKED_FOR = timedelta(minutes=30)
STRANGERS_SHUT_OUT_FROM = 100
STRANGERS_SHUT_OUT_FOR = timedelta(hours=24)
STRANGERS_FORGOTTEN_AFTER = timedelta(days=30)


def strangers_wait(failures: int) -> timedelta:
    """Return how long an account rests for devices that never logged in, wherever they guess from."""
    if failures >= STRANGERS_SHUT_OUT_FROM:
        return STRANGERS_SHUT_OUT_FOR
    return STRANGERS_LOCKED_FOR if failures >= STRANGERS_LOCKED_FROM else timedelta(0)


def delay_after(failures: int, *, longest: timedelta = LONGEST_DELAY) -> timedelta:
    """Return how long an account rests after so many failures in a row: 1 s after the fifth, doubling."""
    if failures <= FREE_FAILURES:
        return timedelta(0)
    return min(longest, timedelta(seconds=2 ** min(failures - FREE_FAILURES - 1, 20)))


# -- sessions

LOCKED = "locked"
UNLOCK_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class Visit:
    """Where a login comes from, as far as the gateway and the client tell."""

    address: str
    agent: str = ""
    device_token: str | None = None


@dataclass(frozen=True, kw_only=True)
class SessionLimits:
    idle: timedelta
    longest: timedelta


@dataclass(frozen=True, kw_only=True)
class Session:
    session_id: SessionId
    account_id: AccountId
    started_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    end_reason_code: str | None = None
    amr: tuple[str, ...] = ("pwd",)
    """How its owner showed who they are (RFC 8176), last at `authenticated_at`."""
    authenticated_at: datetime | None = None
    device_id: UUID | None = None
    address: str | None = None
    agent: str | None = None
    unlock_failures: int = 0
    client_id: str | None = None
    """The app that holds the session's tokens, and the scopes that its owner lets it have."""
    granted_scopes: tuple[str, ...] | None = None

    @property
    def acr(self) -> str:
        return AAL2 if TWO_FACTORS in self.amr else AAL1

    def is_live(self, now: datetime, limits: SessionLimits) -> bool:
        return self.ended_at is None and now < self.expires_at and now - self.last_used_at < limits.idle

    def is_locked(self, now: datetime) -> bool:
        """Tell whether it waits to be unlocked. Its tokens are void meanwhile, like those of an ended one."""
        return self.end_reason_code == LOCKED and now < self.expires_at


def next_whole_second(moment: datetime) -> datetime:
    """Return the instant that divides tokens into before and after: they carry whole seconds."""
    return datetime.fromtimestamp(math.ceil(moment.timestamp()), UTC)


def unknown_among(wanted: Iterable[object], known: Iterable[object]) -> list[str]:
    """Return what is wanted but not known, as texts for an error's `unknown`."""
    missing = set(wanted) - set(known)
    return sorted(str(one) for one in missing)
