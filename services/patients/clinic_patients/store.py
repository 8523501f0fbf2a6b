"""Queries of the registry: patients, their identifiers and search terms; what is known of identity."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import ColumnElement, Row, and_, delete, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.expression import FromClause

from clinic_patients.domain import (
    Identifier,
    Patient,
    PatientId,
    PatientStatus,
    Sex,
)
from clinic_patients.protection import (
    RECORD,
    Keys,
    RetentionClass,
    blind_value,
    keys_to_write,
    opened_contacts,
    opened_identifiers,
    opened_person,
    stored_contacts,
    stored_identifier,
    stored_person,
    stored_terms,
)
from clinic_patients.tables import (
    centre,
    department,
    patient,
    patient_identifier,
    patient_key,
    record_number,
    search_term,
    staff,
)

# -- patients


async def find_patient(tx: Transaction, patient_id: UUID) -> Patient | None:
    """Return a registered patient; None for an unknown one and for a stub."""
    found = await find_patients(tx, [patient_id])
    return found[0] if found else None


async def lock_patient(tx: Transaction, patient_id: UUID) -> Patient | None:
    """Return a registered patient, locked against other changes of the record."""
    await tx.execute(select(patient.c.patient_id).where(patient.c.patient_id == patient_id).with_for_update())
    return await find_patient(tx, patient_id)


async def find_centre_of_patient(tx: Transaction, patient_id: UUID) -> tuple[bool, UUID | None]:
    """Return whether there can be something in this chart, and where the patient is registered."""
    row = await tx.fetch_one(select(patient.c.centre_id).where(patient.c.patient_id == patient_id))
    return (False, None) if row is None else (True, row.centre_id)


async def has_chart(tx: Transaction, patient_id: UUID) -> bool:
    """Tell whether there can be something in this chart; a stub has one too."""
    known, _ = await find_centre_of_patient(tx, patient_id)
    return known


async def keep_stub(tx: Transaction, patient_id: UUID) -> bool:
    """Open a chart for an id that the registry doesn't have; returns whether it was needed."""
    return patient_id in await keep_stubs(tx, [patient_id])


async def keep_stubs(tx: Transaction, patient_ids: Iterable[UUID]) -> set[UUID]:
    """Open charts for those ids that the registry doesn't have; returns for which it was needed."""
    rows = [
        {"patient_id": p, "version": 0, "status": PatientStatus.ACTIVE.value, "sex": Sex.UNKNOWN.value}
        for p in sorted(set(patient_ids))
    ]
    stubs = upsert(patient).values(rows).on_conflict_do_nothing().returning(patient.c.patient_id)
    return {row.patient_id for row in await tx.fetch_all(stubs)}


async def next_record_number(tx: Transaction) -> int:
    """Return a serial number that nobody had or will have; rolled back, it leaves a gap."""
    row = await tx.fetch_one(select(record_number.next_value()))
    assert row is not None  # noqa: S101  # a sequence always answers
    return int(row[0])


async def add_patient(tx: Transaction, new: Patient) -> list[Identifier]:
    """Store a patient; returns the identifiers that another one has, so that none of it may stand."""
    keys = await keys_to_write(tx, new.patient_id)
    await tx.execute(insert(patient).values(_patient_values(new, keys)))
    await _add_search_terms(tx, new)
    return await _add_identifiers(tx, new, keys)


async def save_patient(tx: Transaction, changed: Patient) -> list[Identifier]:
    """Store a change; returns the identifiers that another patient has, so that none of it may stand."""
    keys = await keys_to_write(tx, changed.patient_id)
    values = _patient_values(changed, keys)
    await tx.execute(update(patient).where(patient.c.patient_id == changed.patient_id).values(values))
    for table in (search_term, patient_identifier):
        await tx.execute(delete(table).where(table.c.patient_id == changed.patient_id))
    await _add_search_terms(tx, changed)
    return await _add_identifiers(tx, changed, keys)


async def _add_identifiers(tx: Transaction, owner: Patient, keys: Keys) -> list[Identifier]:
    stored_as = {
        identifier.key: stored_identifier(tx.keyring, owner.patient_id, identifier, keys.identity)
        for identifier in owner.identifiers
    }
    # In one order for everybody, so that two registrations with the same two identifiers don't deadlock.
    rows = sorted(_identifier_rows(owner, stored_as), key=lambda row: (row["authority"], row["value"]))
    if not rows:
        return []
    # A concurrent holder is waited for here; then all conflicts can be told, not only the first.
    stored = await tx.fetch_all(
        upsert(patient_identifier)
        .values(rows)
        .on_conflict_do_nothing(
            index_elements=[patient_identifier.c.authority, patient_identifier.c.value],
            index_where=patient_identifier.c.in_force,
        )
        .returning(patient_identifier.c.authority, patient_identifier.c.value)
    )
    kept = {(row.authority, row.value) for row in stored}
    taken = await _taken_in_another_form(tx, owner) if owner.identifiers_in_force else set()
    return [
        identifier
        for identifier in owner.identifiers
        if (identifier.authority, stored_as[identifier.key]["value"]) not in kept or identifier.key in taken
    ]


async def _taken_in_another_form(tx: Transaction, owner: Patient) -> set[tuple[str, str]]:
    """Return the identifiers that somebody else has as the other release stores them, which no constraint compares."""
    columns = patient_identifier.c
    forms = _forms(tx, owner.identifiers)
    rows = await tx.fetch_all(
        select(columns.authority, columns.value).where(
            tuple_(columns.authority, columns.value).in_(list(forms)),
            columns.in_force,
            columns.patient_id != owner.patient_id,
        )
    )
    return {forms[row.authority, row.value] for row in rows}


def _forms(tx: Transaction, identifiers: Iterable[Identifier]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return, by all that they may be stored as, the identifiers as (authority, value)."""
    return {
        (i.authority, form): i.key
        for i in identifiers
        for form in (i.value, blind_value(tx.keyring, i.authority, i.value))
    }


async def taken_identifiers(tx: Transaction, wanted: Sequence[Identifier]) -> set[tuple[str, str]]:
    """Return those of these identifiers that a patient has, as (authority, value)."""
    if not wanted:
        return set()
    columns, forms = patient_identifier.c, _forms(tx, wanted)
    rows = await tx.fetch_all(
        select(columns.authority, columns.value).where(
            tuple_(columns.authority, columns.value).in_(list(forms)), columns.in_force
        )
    )
    return {forms[row.authority, row.value] for row in rows}


def _identifier_rows(
    owner: Patient, stored_as: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    return [
        {
            **stored_as[identifier.key],
            "patient_id": owner.patient_id,
            "authority": identifier.authority,
            "type": identifier.type,
            "position": position,
            "in_force": owner.identifiers_in_force,
        }
        for position, identifier in enumerate(owner.identifiers)
    ]


async def _add_search_terms(tx: Transaction, owner: Patient) -> None:
    terms = stored_terms(tx.keyring, owner)
    rows = [{"term": term, "patient_id": owner.patient_id} for term in sorted(terms)]
    await tx.execute(insert(search_term), rows)


async def find_patients(tx: Transaction, patient_ids: Sequence[UUID]) -> list[Patient]:
    """Return the registered ones of these patients, in the order asked for."""
    if not patient_ids:
        return []
    contact, record, identity = patient_key.alias(), patient_key.alias(), patient_key.alias()
    rows = await tx.fetch_all(
        select(patient, contact.c.data_key.label("contact_key"), record.c.data_key.label("record_key"))
        .outerjoin(contact, _key_of(contact, patient.c.patient_id, RetentionClass.CONTACT))
        .outerjoin(record, _key_of(record, patient.c.patient_id, RECORD))
        .where(patient.c.patient_id.in_(patient_ids), patient.c.registered_at.is_not(None))
    )
    identifiers = await tx.fetch_all(
        select(patient_identifier, identity.c.data_key.label("identity_key"))
        .outerjoin(identity, _key_of(identity, patient_identifier.c.patient_id, RetentionClass.IDENTITY))
        .where(patient_identifier.c.patient_id.in_(patient_ids))
        .order_by(patient_identifier.c.patient_id, patient_identifier.c.position)
    )
    found = {
        row.patient_id: _patient(tx, row, [i for i in identifiers if i.patient_id == row.patient_id])
        for row in rows
    }
    return [found[patient_id] for patient_id in patient_ids if patient_id in found]


def _key_of(key: FromClause, patient_id: ColumnElement[UUID], of: str) -> ColumnElement[bool]:
    return and_(key.c.patient_id == patient_id, key.c.retention_class == str(of))


def _patient(tx: Transaction, row: Row[Any], identifiers: Sequence[Row[Any]]) -> Patient:
    name, birth_on = opened_person(tx.keyring, row)
    phones, emails = opened_contacts(tx.keyring, row)
    return Patient(
        patient_id=PatientId(row.patient_id),
        version=row.version,
        status=PatientStatus(row.status),
        centre_id=row.centre_id,
        name=name,
        birth_on=birth_on,
        sex=Sex(row.sex),
        phones=phones,
        emails=emails,
        language=row.language,
        identifiers=opened_identifiers(tx.keyring, identifiers),
        registered_at=row.registered_at,
        updated_at=row.updated_at,
    )


def _patient_values(value: Patient, keys: Keys) -> dict[str, Any]:
    return {
        **stored_person(value, keys.record),
        **stored_contacts(value, keys.contact),
        "patient_id": value.patient_id,
        "version": value.version,
        "status": value.status.value,
        "centre_id": value.centre_id,
        "sex": value.sex.value,
        "language": value.language,
        "registered_at": value.registered_at,
        "updated_at": value.updated_at,
    }


# -- what is known of identity


async def is_centre_known(tx: Transaction, centre_id: UUID) -> bool:
    return await tx.fetch_one(select(centre.c.centre_id).where(centre.c.centre_id == centre_id)) is not None


async def centre_of(tx: Transaction, department_id: UUID) -> UUID | None:
    """Return the centre that a department belongs to; None when the department isn't known here."""
    row = await tx.fetch_one(
        select(department.c.centre_id).where(department.c.department_id == department_id)
    )
    return None if row is None else row.centre_id


async def centres_of_departments(tx: Transaction, department_ids: Collection[UUID]) -> frozenset[UUID]:
    if not department_ids:
        return frozenset()
    columns = department.c
    rows = await tx.fetch_all(select(columns.centre_id).where(columns.department_id.in_(department_ids)))
    return frozenset(row.centre_id for row in rows)


async def has_department(tx: Transaction, centre_id: UUID, department_ids: Collection[UUID]) -> bool:
    """Tell whether one of the departments belongs to the centre."""
    row = await tx.fetch_one(
        select(department.c.department_id)
        .where(department.c.centre_id == centre_id, department.c.department_id.in_(department_ids))
        .limit(1)
    )
    return row is not None


async def staff_names(tx: Transaction, staff_ids: Collection[UUID]) -> dict[UUID, str]:
    """Return the names that are known of these people."""
    rows = await tx.fetch_all(
        select(staff.c.staff_id, staff.c.name).where(
            staff.c.staff_id.in_(staff_ids), staff.c.name.is_not(None)
        )
    )
    return {row.staff_id: row.name for row in rows}
