"""How a patient lies in the database: sealed under the patient's own keys, found by blind indexes.

Each patient has a key per retention class, so that what may be erased can be, by its key, while the rest stays. A
blind index is an HMAC under a key of its own: equal values are seen to be equal, and nothing else. Names have one of
each beginning of each word.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson
from clinic_shared.database import Transaction
from clinic_shared.encryption.backlog import Kind
from clinic_shared.encryption.ciphers import DataKey, Place
from clinic_shared.encryption.keyring import Keyring
from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_patients.domain import Identifier, Patient, PersonName
from clinic_patients.names import beginnings
from clinic_patients.tables import patient_key

SERVICE = "patients"
_BLIND = "~"
_BEGINNING_BYTES = 12
"""Of a digest, for a term of which a patient has some 25: by chance two are equal once in 10^14 pairs."""


class RetentionClass(StrEnum):
    """What is kept equally long, and erased together."""

    CONTACT = "contact"
    IDENTITY = "identity"


RECORD = "record"
"""The key of name and birth date: without them the chart is nobody's, so they go with it and never by themselves."""
_KEYS = (*RetentionClass, RECORD)


@dataclass(frozen=True)
class Keys:
    """A patient's keys that are at hand; None where nothing is encrypted."""

    contact: DataKey | None = None
    identity: DataKey | None = None
    record: DataKey | None = None


def place_of_key(patient_id: UUID, retention_class: str) -> Place:
    return Place(SERVICE, "patient_key", f"{patient_id}/{retention_class}")


PATIENT_KEYS = Kind(patient_key, lambda _, row: place_of_key(row.patient_id, row.retention_class))


async def keys_to_write(tx: Transaction, patient_id: UUID) -> Keys:
    """Return the patient's keys, making those that don't exist."""
    if not tx.keyring.encrypting:
        return Keys()
    made = {one: tx.keyring.new_key(place_of_key(patient_id, one)) for one in _KEYS}
    rows = [
        {"patient_id": patient_id, "retention_class": one, "data_key": wrapped, "created_at": tx.now}
        for one, (_, wrapped) in made.items()
    ]
    statement = upsert(patient_key).values(rows)
    # Of whoever is registered again after an erasure, there is something new to keep.
    kept = statement.on_conflict_do_update(
        index_elements=patient_key.primary_key.columns,
        set_={"data_key": statement.excluded.data_key, "created_at": tx.now, "destroyed_at": None},
        where=patient_key.c.data_key.is_(None),
    )
    fresh = {row.retention_class for row in await tx.fetch_all(kept.returning(patient_key.c.retention_class))}
    keys = {one: key for one, (key, _) in made.items() if one in fresh}
    if len(keys) < len(made):
        keys |= await _existing(tx, patient_id)
    return Keys(**keys)


async def _existing(tx: Transaction, patient_id: UUID) -> dict[str, DataKey]:
    rows = await tx.fetch_all(
        select(patient_key.c.retention_class, patient_key.c.data_key).where(
            patient_key.c.patient_id == patient_id, patient_key.c.data_key.is_not(None)
        )
    )
    return {
        row.retention_class: tx.keyring.data_key(
            bytes(row.data_key), place_of_key(patient_id, row.retention_class)
        )
        for row in rows
    }


# -- who it is


def stored_person(owner: Patient, key: DataKey | None) -> dict[str, Any]:
    """Return the columns that hold a patient's name and birth date."""
    person = {
        "family": owner.name.family,
        "given": owner.name.given,
        "patronymic": owner.name.patronymic,
        "birth_on": owner.birth_on,
    }
    if key is None:
        return {**person, "person": None}
    sealed = key.seal(orjson.dumps(person), Place(SERVICE, "patient", str(owner.patient_id)), "person")
    # Not null: whoever is registered has a family name, the database says.
    return {**dict.fromkeys(person), "family": "", "person": sealed}


def opened_person(keyring: Keyring, row: Row[Any]) -> tuple[PersonName, date | None]:
    """Return name and birth date of a patient's row with its `record_key`."""
    if row.person is None:
        return PersonName(family=row.family, given=row.given, patronymic=row.patronymic), row.birth_on
    key = keyring.data_key(bytes(row.record_key), place_of_key(row.patient_id, RECORD))
    content = orjson.loads(
        key.open(bytes(row.person), Place(SERVICE, "patient", str(row.patient_id)), "person")
    )
    born = content.pop("birth_on")
    return PersonName(**content), born and date.fromisoformat(born)


# -- contacts


def stored_contacts(owner: Patient, key: DataKey | None) -> dict[str, Any]:
    """Return the columns that hold how to reach a patient."""
    if key is None:
        return {"contacts": None, "phones": list(owner.phones), "emails": list(owner.emails)}
    content = orjson.dumps({"phones": owner.phones, "emails": owner.emails})
    sealed = key.seal(content, Place(SERVICE, "patient", str(owner.patient_id)), "contacts")
    return {"contacts": sealed, "phones": [], "emails": []}


def opened_contacts(keyring: Keyring, row: Row[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return phones and e-mails of a patient's row with its `contact_key`; none once that was destroyed."""
    if row.contacts is None:
        return tuple(row.phones), tuple(row.emails)
    if row.contact_key is None:
        return (), ()
    key = keyring.data_key(bytes(row.contact_key), place_of_key(row.patient_id, RetentionClass.CONTACT))
    content = orjson.loads(
        key.open(bytes(row.contacts), Place(SERVICE, "patient", str(row.patient_id)), "contacts")
    )
    return tuple(content["phones"]), tuple(content["emails"])


# -- identifiers


def blind_value(keyring: Keyring, authority: str, value: str) -> str:
    """Return what stands for an identifier's value: the same for the same one, whoever has it."""
    return _text(keyring.blind("identifier", f"{len(authority)}:{authority}|{value}"))


def stored_identifier(
    keyring: Keyring, patient_id: UUID, identifier: Identifier, key: DataKey | None
) -> dict[str, Any]:
    """Return the columns that hold an identifier's value."""
    if key is None:
        return {"value": identifier.value, "sealed": None}
    value = blind_value(keyring, identifier.authority, identifier.value)
    place = _place_of_identifier(patient_id, identifier.authority, value)
    return {"value": value, "sealed": key.seal(identifier.value.encode(), place, "sealed")}


def opened_identifiers(keyring: Keyring, rows: Sequence[Row[Any]]) -> tuple[Identifier, ...]:
    """Return a patient's identifiers, of rows with their `identity_key`; none once that was destroyed."""
    if not rows or (rows[0].sealed is not None and rows[0].identity_key is None):
        return ()
    key = _identity_key(keyring, rows[0]) if rows[0].identity_key is not None else None
    return tuple(_opened_identifier(row, key) for row in rows)


def _identity_key(keyring: Keyring, row: Row[Any]) -> DataKey:
    place = place_of_key(row.patient_id, RetentionClass.IDENTITY)
    return keyring.data_key(bytes(row.identity_key), place)


def _opened_identifier(row: Row[Any], key: DataKey | None) -> Identifier:
    value = row.value
    if row.sealed is not None and key is not None:
        place = _place_of_identifier(row.patient_id, row.authority, row.value)
        value = key.open(bytes(row.sealed), place, "sealed").decode()
    return Identifier(authority=row.authority, type=row.type, value=value)


def _place_of_identifier(patient_id: UUID, authority: str, blind: str) -> Place:
    return Place(SERVICE, "patient_identifier", f"{patient_id}/{blind}/{authority}")


# -- search terms


def stored_terms(keyring: Keyring, owner: Patient) -> set[str]:
    """Return everything this patient can be found by, as it is stored."""
    words, others = owner.name_words(), owner.exact_terms()
    if not keyring.encrypting:
        return words | others
    blind = {blind_beginning(keyring, term) for term in beginnings(words)}
    return blind | {blind_term(keyring, term) for term in others}


def forms_of(keyring: Keyring, term: str) -> list[str]:
    """Return all that a term which is looked for as a whole may be stored as, by this release and the one before."""
    return [term, blind_term(keyring, term)]


def blind_term(keyring: Keyring, term: str) -> str:
    return _BLIND + _text(keyring.blind("search-term", term))


def blind_beginning(keyring: Keyring, term: str) -> str:
    return _BLIND + _text(keyring.blind("name-beginning", term)[:_BEGINNING_BYTES])


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
