"""Finding people by blind indexes, and by words in clear where the release before still stores some."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.encryption.keyring import Keyring
from sqlalchemy import ColumnElement, and_, exists, func, or_, select, tuple_
from sqlalchemy.sql.expression import FromClause

from clinic_patients import store
from clinic_patients.domain import Patient, PatientStatus
from clinic_patients.names import beginning_term
from clinic_patients.protection import blind_beginning, forms_of
from clinic_patients.tables import patient, search_term

_AFTER_EVERY_LETTER = "\U0010ffff"


@dataclass(frozen=True)
class TermRange:
    """A term (exact), or that words begin with one (prefix) and how many of them must."""

    term: str
    prefix: bool = False
    at_least: int = 1


class _Wanted:
    """What a range is looked for as: by the blind index, and as the release before stores it where it still does."""

    def __init__(self, asked: TermRange, keyring: Keyring, *, some_in_clear: bool) -> None:
        self._prefix = asked.term if asked.prefix and some_in_clear else None
        self._at_least = asked.at_least
        if asked.prefix:
            self._terms = [blind_beginning(keyring, beginning_term(asked.term, asked.at_least))]
        else:
            self._terms = forms_of(keyring, asked.term)

    def contains(self, terms: FromClause) -> ColumnElement[bool]:
        blind = terms.c.term.in_(self._terms)
        return blind if self._prefix is None else or_(blind, self._begins(terms, self._prefix))

    def matches(self, hit: FromClause) -> ColumnElement[bool]:
        """Tell whether the patient of this hit matches, by whichever term."""
        other = search_term.alias()
        of_this = other.c.patient_id == hit.c.patient_id
        found = exists().where(of_this, other.c.term.in_(self._terms))
        if self._prefix is None:
            return found
        words = select(func.count()).where(of_this, self._begins(other, self._prefix))
        return or_(found, words.scalar_subquery() >= self._at_least)

    @property
    def must_count(self) -> bool:
        """Whether one term that fits doesn't say yet that the patient matches."""
        return self._prefix is not None and self._at_least > 1

    @staticmethod
    def _begins(terms: FromClause, prefix: str) -> ColumnElement[bool]:
        return and_(terms.c.term >= prefix, terms.c.term <= prefix + _AFTER_EVERY_LETTER)


async def search_patients(
    tx: Transaction,
    ranges: Sequence[TermRange],
    *,
    visible: ColumnElement[bool],
    after: UUID | None,
    limit: int,
) -> list[Patient] | None:
    """Return patients who match every range and are `visible`, in the order they were registered in.

    The first range drives the search, so it should be the rarest; the others are looked up per hit.
    `after` is the last patient seen; None comes back when that one no longer matches.
    """
    some_in_clear = await _are_some_in_clear(tx)
    driving, *others = [_Wanted(one, tx.keyring, some_in_clear=some_in_clear) for one in ranges]
    hit = search_term.alias("hit")
    statement = (
        select(hit.c.patient_id)
        .join(patient, patient.c.patient_id == hit.c.patient_id)
        .where(
            driving.contains(hit),
            # Whoever matches by two words is listed once, at the first.
            ~_term_of(hit, driving, before=hit.c.term),
            *(other.matches(hit) for other in ([driving] if driving.must_count else []) + others),
            patient.c.registered_at.is_not(None),
            patient.c.status != PatientStatus.MERGED.value,
            visible,
        )
        .order_by(hit.c.term, hit.c.patient_id)
        .limit(limit)
    )
    if after is not None:
        position = await _position(tx, driving, after, visible)
        if position is None:
            return None
        statement = statement.where(tuple_(hit.c.term, hit.c.patient_id) > tuple_(position, after))
    return await store.find_patients(tx, [row.patient_id for row in await tx.fetch_all(statement)])


async def _are_some_in_clear(tx: Transaction) -> bool:
    """Tell whether anybody is stored as the release before does it; an index of those alone knows."""
    if not tx.keyring.encrypting:
        return True
    in_clear = exists().where(patient.c.person.is_(None), patient.c.registered_at.is_not(None))
    row = await tx.fetch_one(select(in_clear))
    return row is not None and bool(row[0])


def _term_of(hit: FromClause, wanted: _Wanted, *, before: ColumnElement[str]) -> ColumnElement[bool]:
    earlier = search_term.alias("earlier")
    return exists().where(
        earlier.c.patient_id == hit.c.patient_id, wanted.contains(earlier), earlier.c.term < before
    )


async def _position(
    tx: Transaction, driving: _Wanted, patient_id: UUID, visible: ColumnElement[bool]
) -> str | None:
    """Return where a patient stands in the order of a search: a cursor holds no name, only the id."""
    row = await tx.fetch_one(
        select(func.min(search_term.c.term))
        .join(patient, patient.c.patient_id == search_term.c.patient_id)
        .where(search_term.c.patient_id == patient_id, driving.contains(search_term), visible)
    )
    return None if row is None else row[0]
