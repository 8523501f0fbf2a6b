"""The registry's rules, pure: a patient is one person to the whole network."""

from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import ClassVar, NewType
from uuid import UUID

from clinic_shared.errors import DomainError, InvalidRequestError
from clinic_shared.folding import name_words

from clinic_patients.names import birth_term, identifier_term, phone_term

PatientId = NewType("PatientId", UUID)

OLDEST_BIRTH = date(1880, 1, 1)


class PatientStatus(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"
    DECEASED = "deceased"
    MERGED = "merged"


_STATUS_MOVES = {
    PatientStatus.ACTIVE: (PatientStatus.INACTIVE, PatientStatus.DECEASED),
    PatientStatus.INACTIVE: (PatientStatus.ACTIVE, PatientStatus.DECEASED),
    PatientStatus.DECEASED: (PatientStatus.ACTIVE,),
    PatientStatus.MERGED: (),
}


class Sex(StrEnum):
    """FHIR R4 administrative-gender."""

    MALE = "male"
    FEMALE = "female"
    OTHER = "other"
    UNKNOWN = "unknown"


class IdentifierTakenError(DomainError):
    """Another patient already has an identifier of this authority with this value."""

    slug: ClassVar[str] = "identifier-taken"
    title: ClassVar[str] = "Another patient has this identifier"
    fix: ClassVar[str] = "Search for the identifier: the person is probably registered already."


class AuthorityReservedError(InvalidRequestError):
    """Numbers of the network's own authority are given by the registry, once, at registration."""

    slug: ClassVar[str] = "identifier-authority-reserved"
    title: ClassVar[str] = "The network's own record number can't be chosen or changed"
    fix: ClassVar[str] = (
        "Leave out identifiers of `authority`; on a change, the patient's own may be repeated as it is."
    )


class PhoneNotValidError(InvalidRequestError):
    """A phone number can't be dialled as it is written."""

    slug: ClassVar[str] = "phone-not-valid"
    title: ClassVar[str] = "A phone number is not valid"
    fix: ClassVar[str] = "Write it with its country code, such as +7 000 000-00-01."


class BirthDateError(InvalidRequestError):
    """The birth date lies in the future or too far in the past."""

    slug: ClassVar[str] = "birth-date-not-plausible"
    title: ClassVar[str] = "The birth date is not plausible"
    fix: ClassVar[str] = "Send a date from 1880-01-01 to today, or `null` if it isn't known."


class IllegalPatientStatusError(DomainError):
    """A merged record stays merged, and a deceased patient's can only be made active again."""

    slug: ClassVar[str] = "illegal-status-change"
    title: ClassVar[str] = "The patient's status doesn't allow this"
    fix: ClassVar[str] = "Read the record again; a death recorded in error is undone by status `active`."


@dataclass(frozen=True, kw_only=True)
class PersonName:
    family: str
    given: str | None = None
    patronymic: str | None = None


@dataclass(frozen=True, kw_only=True)
class Identifier:
    """`type` is a code of HL7 table 0203; authority and value are opaque, compared as written."""

    authority: str
    type: str | None
    value: str

    @property
    def key(self) -> tuple[str, str]:
        return (self.authority, self.value)


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A registered person. `phones` and `emails` have the preferred one first."""

    patient_id: PatientId
    version: int
    status: PatientStatus
    centre_id: UUID | None
    name: PersonName
    birth_on: date | None
    sex: Sex
    phones: tuple[str, ...]
    emails: tuple[str, ...]
    language: str | None
    identifiers: tuple[Identifier, ...]
    registered_at: datetime
    updated_at: datetime

    _CONTACTS: ClassVar[frozenset[str]] = frozenset({"phones", "emails", "language"})
    _BOOKKEEPING: ClassVar[frozenset[str]] = frozenset({"version", "updated_at"})

    @property
    def identifiers_in_force(self) -> bool:
        """Whether nobody else may have the same identifiers: not once a record is set aside."""
        return self.status in {PatientStatus.ACTIVE, PatientStatus.DECEASED}

    def name_words(self) -> set[str]:
        """Return the words by whose beginnings this patient can be found."""
        parts = (self.name.family, self.name.given, self.name.patronymic)
        return {word for part in parts if part for word in name_words(part)}

    def exact_terms(self) -> set[str]:
        """Return everything else this patient can be found by, as a whole only."""
        terms = {phone_term(phone) for phone in self.phones}
        terms.update(identifier_term(i.authority, i.value) for i in self.identifiers)
        if self.birth_on is not None:
            terms.add(birth_term(self.birth_on))
        return terms

    def changed_fields(self, other: "Patient") -> set[str]:
        names = {f.name for f in fields(self)} - self._BOOKKEEPING
        return {name for name in names if getattr(self, name) != getattr(other, name)}

    def differs_only_in_contacts(self, other: "Patient") -> bool:
        return self.changed_fields(other) <= self._CONTACTS

    def succeeded_by(self, changed: "Patient", *, now: datetime) -> "Patient":
        """Return the changed record as this one's next version. Raises IllegalPatientStatusError."""
        if changed.status not in (self.status, *_STATUS_MOVES[self.status]):
            raise IllegalPatientStatusError(
                f"From {self.status} there is no way to {changed.status}.", status=self.status
            )
        return replace(changed, version=self.version + 1, updated_at=now)


def check_birth(birth_on: date | None, *, now: datetime) -> None:
    """Refuse a birth in the future (anywhere on Earth) or before living memory. Raises BirthDateError."""
    if not is_plausible_birth(birth_on, now=now):
        raise BirthDateError


def is_plausible_birth(birth_on: date | None, *, now: datetime) -> bool:
    return birth_on is None or OLDEST_BIRTH <= birth_on <= (now + timedelta(days=1)).date()


def record_number(serial: int) -> str:
    """Return a medical record number: eight digits and a check digit (Luhn), so that typing errors show."""
    digits = f"{serial:08d}"
    doubled = [int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(digits))]
    total = sum(d - 9 if d > 9 else d for d in doubled)  # noqa: PLR2004  # the sum of its digits
    return f"{digits}{-total % 10}"
