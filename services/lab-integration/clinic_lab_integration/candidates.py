"""Who an unmatched group may be about, with the reasons: help for a person who decides, never a decision."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from uuid import UUID

from clinic_shared.folding import name_words

MOST = 10
LONGEST_NAME = 200


class Reason(StrEnum):
    """Why somebody may be meant, and what speaks against it (the last two)."""

    NUMBER_OF_ANOTHER_AUTHORITY = "same-number-of-another-authority"
    SAME_IDENTIFIER = "same-identifier"
    ORDER = "order-of-this-patient"
    NAME = "same-name"
    FAMILY_NAME = "same-family-name"
    BIRTH_DATE = "same-birth-date"
    OTHER_SEX = "sex-differs"
    OTHER_BIRTH_DATE = "birth-date-differs"


_WEIGHTS = {
    Reason.ORDER: 40,
    Reason.SAME_IDENTIFIER: 40,
    Reason.NUMBER_OF_ANOTHER_AUTHORITY: 20,
    Reason.NAME: 15,
    Reason.BIRTH_DATE: 10,
    Reason.FAMILY_NAME: 5,
    Reason.OTHER_SEX: -10,
    Reason.OTHER_BIRTH_DATE: -10,
}
SEXES = {"F": "female", "M": "male"}
"""HL7 table 0001; the others tell nothing that could differ."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """What is known of somebody, by the laboratory or by the registry."""

    family: str | None = None
    given: str | None = None
    patronymic: str | None = None
    birth_on: date | None = None
    sex: str | None = None

    @property
    def family_key(self) -> str:
        return " ".join(name_words(self.family or ""))

    @property
    def given_key(self) -> str:
        return " ".join(name_words(self.given or ""))


@dataclass(frozen=True, kw_only=True)
class Known:
    """A patient of ours with what was found by looking for the group's numbers."""

    patient_id: UUID
    person: Person
    found_by: frozenset[Reason] = frozenset()


@dataclass(frozen=True)
class Candidate:
    patient_id: UUID
    person: Person
    reasons: tuple[Reason, ...]

    @property
    def is_likely(self) -> bool:
        """Enough to ask before somebody is registered a second time."""
        weight = sum(_WEIGHTS[reason] for reason in self.reasons)
        return weight >= _WEIGHTS[Reason.NAME]


def rank(sent: Person, known: Iterable[Known]) -> list[Candidate]:
    """Return the likeliest first, those left out for whom nothing speaks."""
    found = [Candidate(k.patient_id, k.person, _reasons(sent, k)) for k in known]
    for_them = [c for c in found if any(_WEIGHTS[r] > 0 for r in c.reasons)]
    for_them.sort(key=lambda c: (-sum(_WEIGHTS[r] for r in c.reasons), c.patient_id))
    return for_them[:MOST]


def _reasons(sent: Person, known: Known) -> tuple[Reason, ...]:
    person, reasons = known.person, set(known.found_by)
    if sent.family_key and sent.family_key == person.family_key:
        same_given = sent.given_key and sent.given_key == person.given_key
        reasons.add(Reason.NAME if same_given else Reason.FAMILY_NAME)
    if sent.birth_on and person.birth_on:
        same_birth = sent.birth_on == person.birth_on
        reasons.add(Reason.BIRTH_DATE if same_birth else Reason.OTHER_BIRTH_DATE)
    sex = SEXES.get(sent.sex or "", "")
    if sex and person.sex in SEXES.values() and person.sex != sex:
        reasons.add(Reason.OTHER_SEX)
    return tuple(reason for reason in _WEIGHTS if reason in reasons)
