"""How people and their numbers lie in the database: sealed, and found as a whole by blind indexes.

Who has the database alone sees that two records share a name, a birth date or a number, and not which.
"""

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

from clinic_shared.database import Transaction
from clinic_shared.encryption.backlog import Kind
from clinic_shared.encryption.fields import SEAL_COLUMNS, SealedFields, blind_form, forms
from sqlalchemy import ColumnElement, Row, and_, or_, tuple_

from clinic_lab_integration.candidates import Person
from clinic_lab_integration.domain import Identifier
from clinic_lab_integration.tables import patient, patient_identifier, wanted_key

_NAME, _BIRTH, _NUMBER = "name", "birth-date", "identifier"
_IN_ONE = "~"
"""Stands for a given name whose index is in that of the family name: alone it would tell too much."""
_KEYS = ("family_key", "given_key", "birth_key")

PERSON = SealedFields(
    patient,
    empty={"family": None, "given": None, "patronymic": None, "birth_on": None},
    read={"birth_on": date.fromisoformat},
)
NUMBERS = SealedFields(patient_identifier, empty={}, indexed={"value": _NUMBER})
WANTED = SealedFields(wanted_key, empty={}, indexed={"value": _NUMBER})


def stored_person(tx: Transaction, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a patient's values as they are stored, with what they are found by. Raises KeysUnavailableError."""
    person = person_in(values)
    keys: dict[str, Any] = {"family_key": person.family_key, "given_key": person.given_key, "birth_key": None}
    if tx.keyring.encrypting:
        keys = {
            "family_key": _name_index(tx, person),
            "given_key": _IN_ONE,
            "birth_key": _birth_index(tx, person),
        }
    return PERSON.stored(tx, values) | keys


def person_in(values: Mapping[str, Any]) -> Person:
    return Person(**{name: values[name] for name in ("family", "given", "patronymic", "birth_on", "sex")})


def person_of(tx: Transaction, row: Row[Any]) -> Person:
    """Return whom a patient's row is about. Raises KeysUnavailableError, SealBrokenError."""
    return person_in(vars(PERSON.opened(tx, row)))


def _name_index(tx: Transaction, person: Person) -> str | None:
    if not person.family_key or not person.given_key:
        return None
    return blind_form(tx.keyring, _NAME, f"{person.family_key}\x1f{person.given_key}")


def _birth_index(tx: Transaction, person: Person) -> str | None:
    return blind_form(tx.keyring, _BIRTH, person.birth_on.isoformat()) if person.birth_on else None


def has_name_of(tx: Transaction, sent: Person) -> ColumnElement[bool]:
    """Tell of patients whether they have the same family and given name, whichever release stored them."""
    in_clear = and_(patient.c.family_key == sent.family_key, patient.c.given_key == sent.given_key)
    return or_(in_clear, and_(patient.c.family_key == _name_index(tx, sent), patient.c.given_key == _IN_ONE))


def has_birth_date_of(tx: Transaction, sent: Person) -> ColumnElement[bool]:
    return or_(patient.c.birth_on == sent.birth_on, patient.c.birth_key == _birth_index(tx, sent))


# -- numbers


def opened_number(tx: Transaction, row: Row[Any]) -> Identifier:
    """Return an identifier of its whole row. Raises KeysUnavailableError, SealBrokenError."""
    found = NUMBERS.opened(tx, row)
    return Identifier(found.authority, found.value)


def by_form(tx: Transaction, identifiers: Collection[Identifier]) -> dict[tuple[str, str], Identifier]:
    """Return all that identifiers may be stored as, with what each stands for."""
    return {
        (one.authority, form): one for one in identifiers for form in forms(tx.keyring, _NUMBER, one.value)
    }


def all_forms(tx: Transaction, numbers: Collection[str]) -> list[str]:
    return sorted(form for number in numbers for form in forms(tx.keyring, _NUMBER, number))


def stands_in(table: Any, stored: Collection[tuple[str, str]]) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = tuple_(table.c.authority, table.c.value).in_(list(stored))
    return condition


def _sealed_person(tx: Transaction, row: Row[Any]) -> dict[str, Any]:
    stored = stored_person(tx, row._asdict())
    return {name: stored[name] for name in (*PERSON.names, *_KEYS, *SEAL_COLUMNS)}


ENCRYPTED = (Kind(patient, PERSON.kind.place, _sealed_person), NUMBERS.kind, WANTED.kind)
