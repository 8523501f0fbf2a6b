"""Queries of the chart: encounters, prescriptions, consents, lab results, timeline."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared.bulk import InsertRows
from clinic_shared.database import Transaction
from clinic_shared.projections import keep_newer_later
from sqlalchemy import Row, Table, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_patients.chart_domain import (
    Consent,
    ConsentStatus,
    Diagnosis,
    DiagnosisRank,
    Encounter,
    EncounterStatus,
    EntryKind,
    Observation,
    PrescribedItem,
    Prescription,
    ResultVersion,
    TimelineEntry,
)
from clinic_patients.tables import (
    consent,
    consent_version,
    diagnosis,
    encounter,
    observation,
    prescription,
    prescription_item,
    result_version,
    timeline_entry,
)

_ADD_RESULT_VERSION = InsertRows(result_version)
_ADD_OBSERVATIONS = InsertRows(observation)

Position = tuple[datetime, UUID]
"""Where a page ended: lists of a chart are sorted by time and then id, newest first."""


# -- encounters


async def add_encounter(tx: Transaction, new: Encounter) -> None:
    await tx.execute(insert(encounter).values(_columns_of(encounter, new)))
    rows = [
        {"encounter_id": new.encounter_id, "position": position, **asdict(d)}
        for position, d in enumerate(new.diagnoses)
    ]
    if rows:
        await tx.execute(insert(diagnosis), rows)


async def list_encounters(
    tx: Transaction, patient_ids: Collection[UUID], *, after: Position | None, limit: int
) -> list[Encounter]:
    rows = await _newest_first(
        tx, encounter, encounter.c.started_at, encounter.c.encounter_id, patient_ids, after, limit
    )
    diagnoses = await _children(tx, diagnosis, "encounter_id", [row.encounter_id for row in rows])
    return [_encounter(row, diagnoses[row.encounter_id]) for row in rows]


async def patient_of_encounter(tx: Transaction, encounter_id: UUID) -> UUID | None:
    row = await tx.fetch_one(select(encounter.c.patient_id).where(encounter.c.encounter_id == encounter_id))
    return None if row is None else row.patient_id


def _encounter(row: Row[Any], diagnoses: Sequence[Mapping[str, Any]]) -> Encounter:
    values = _values(row)
    return Encounter(
        **{**values, "status": EncounterStatus(values["status"])},
        diagnoses=tuple(
            Diagnosis(code=d["code"], display=d["display"], rank=DiagnosisRank(d["rank"])) for d in diagnoses
        ),
    )


# -- prescriptions


async def add_prescription(tx: Transaction, new: Prescription) -> None:
    await tx.execute(insert(prescription).values(_columns_of(prescription, new)))
    rows = [
        {"prescription_id": new.prescription_id, "position": position, **asdict(item)}
        for position, item in enumerate(new.items)
    ]
    await tx.execute(insert(prescription_item), rows)


async def list_prescriptions(
    tx: Transaction, patient_ids: Collection[UUID], *, after: Position | None, limit: int
) -> list[Prescription]:
    rows = await _newest_first(
        tx, prescription, prescription.c.issued_at, prescription.c.prescription_id, patient_ids, after, limit
    )
    items = await _children(tx, prescription_item, "prescription_id", [row.prescription_id for row in rows])
    return [
        Prescription(
            **_values(row), items=tuple(PrescribedItem(**item) for item in items[row.prescription_id])
        )
        for row in rows
    ]


# -- consents


async def find_consent(tx: Transaction, patient_id: UUID, kind: str, channel: str | None) -> Consent | None:
    row = await tx.fetch_one(
        select(consent).where(
            consent.c.patient_id == patient_id,
            consent.c.kind == kind,
            consent.c.channel.is_not_distinct_from(channel),
        )
    )
    return None if row is None else _consent(row)


async def list_consents(tx: Transaction, patient_ids: Collection[UUID]) -> list[Consent]:
    rows = await tx.fetch_all(
        select(consent).where(consent.c.patient_id.in_(patient_ids)).order_by(consent.c.consent_id)
    )
    return [_consent(row) for row in rows]


async def list_consent_versions(
    tx: Transaction, consent_ids: Collection[UUID]
) -> Mapping[UUID, list[Row[Any]]]:
    """Return all that was ever said, oldest first, by consent."""
    rows = await tx.fetch_all(
        select(consent_version)
        .where(consent_version.c.consent_id.in_(consent_ids))
        .order_by(consent_version.c.consent_id, consent_version.c.version)
    )
    versions: defaultdict[UUID, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        versions[row.consent_id].append(row)
    return versions


async def save_consent(tx: Transaction, said: Consent, *, recorded_by: UUID) -> None:
    """Store what was said as the current state and beside all earlier statements."""
    values = _columns_of(consent, said)
    if said.version == 1:
        await tx.execute(insert(consent).values(values))
    else:
        await tx.execute(update(consent).where(consent.c.consent_id == said.consent_id).values(values))
    history = {column.name: values.get(column.name) for column in consent_version.columns}
    await tx.execute(insert(consent_version).values(history | {"recorded_by": recorded_by}))


def _consent(row: Row[Any]) -> Consent:
    values = _values(row)
    return Consent(**{**values, "status": ConsentStatus(values["status"])})


# -- lab results


async def add_result_version(tx: Transaction, new: ResultVersion) -> bool:
    """File a version unless it is filed already; returns whether it is new.

    Waits for a concurrent transaction that files the same version.
    """
    filed = await tx.fetch_one(
        upsert(result_version)
        .values(_columns_of(result_version, new))
        .on_conflict_do_nothing(constraint="result_version_once")
        .returning(result_version.c.version)
    )
    if filed is None:
        return False
    _add_observations(tx, new)
    return True


def add_result_version_later(tx: Transaction, new: ResultVersion) -> None:
    """File a version that isn't filed; who does so at the same time makes the transaction fail."""
    tx.write_later(_ADD_RESULT_VERSION, _columns_of(result_version, new))
    _add_observations(tx, new)


def _add_observations(tx: Transaction, new: ResultVersion) -> None:
    place = {"result_id": new.result_id, "version": new.version}
    for position, line in enumerate(new.observations):
        tx.write_later(_ADD_OBSERVATIONS, {**place, "position": position, **vars(line)})


async def filed_versions(tx: Transaction, keys: Collection[tuple[UUID, int]]) -> set[tuple[UUID, int]]:
    """Return which of these versions of results are filed."""
    version = result_version.c
    rows = await tx.fetch_all(
        select(version.result_id, version.version).where(tuple_(version.result_id, version.version).in_(keys))
    )
    return {(row.result_id, row.version) for row in rows}


async def find_result_version(tx: Transaction, result_id: UUID, version: int) -> ResultVersion | None:
    row = await tx.fetch_one(
        select(result_version).where(
            result_version.c.result_id == result_id, result_version.c.version == version
        )
    )
    return None if row is None else (await _with_observations(tx, [row]))[0]


async def list_result_ids(
    tx: Transaction,
    patient_ids: Collection[UUID],
    *,
    statuses: Collection[str] | None,
    after: UUID | None,
    limit: int,
) -> list[UUID]:
    """Return the ids of results that have a version in one of the statuses, newest result first."""
    statement = (
        select(result_version.c.result_id)
        .where(result_version.c.patient_id.in_(patient_ids))
        .group_by(result_version.c.result_id)
        .order_by(result_version.c.result_id.desc())
        .limit(limit)
    )
    if statuses is not None:
        statement = statement.where(result_version.c.status.in_(statuses))
    if after is not None:
        statement = statement.where(result_version.c.result_id < after)
    return [row.result_id for row in await tx.fetch_all(statement)]


async def list_result_versions(
    tx: Transaction,
    patient_ids: Collection[UUID],
    result_ids: Collection[UUID],
    *,
    statuses: Collection[str] | None,
) -> list[ResultVersion]:
    """Return the versions that stand in this person's chart, newest result and version first."""
    statement = (
        select(result_version)
        .where(result_version.c.patient_id.in_(patient_ids), result_version.c.result_id.in_(result_ids))
        .order_by(result_version.c.result_id.desc(), result_version.c.version.desc())
    )
    if statuses is not None:
        statement = statement.where(result_version.c.status.in_(statuses))
    return await _with_observations(tx, await tx.fetch_all(statement))


async def _with_observations(tx: Transaction, rows: Sequence[Row[Any]]) -> list[ResultVersion]:
    keys = [(row.result_id, row.version) for row in rows]
    lines = await tx.fetch_all(
        select(observation)
        .where(tuple_(observation.c.result_id, observation.c.version).in_(keys))
        .order_by(observation.c.result_id, observation.c.version, observation.c.position)
    )
    by_version: defaultdict[tuple[UUID, int], list[Observation]] = defaultdict(list)
    for line in lines:
        values = _tuples(_without(line, "result_id", "version", "position"))
        by_version[line.result_id, line.version].append(Observation(**values))
    return [
        ResultVersion(**_tuples(_values(row)), observations=tuple(by_version[row.result_id, row.version]))
        for row in rows
    ]


# -- timeline


def keep_entry(tx: Transaction, entry: TimelineEntry) -> None:
    """Put an aggregate's newest state into the timeline; an older one changes nothing."""
    keep_newer_later(tx, timeline_entry, asdict(entry))


async def list_entries(
    tx: Transaction,
    patient_ids: Collection[UUID],
    *,
    kinds: Collection[EntryKind],
    after: Position | None,
    limit: int,
) -> list[TimelineEntry]:
    statement = (
        select(timeline_entry)
        .where(timeline_entry.c.patient_id.in_(patient_ids), timeline_entry.c.kind.in_(kinds))
        .order_by(timeline_entry.c.occurred_at.desc(), timeline_entry.c.source_id.desc())
        .limit(limit)
    )
    if after is not None:
        position = tuple_(timeline_entry.c.occurred_at, timeline_entry.c.source_id)
        statement = statement.where(position < tuple_(*after))
    rows = [_values(row) for row in await tx.fetch_all(statement)]
    return [TimelineEntry(**{**values, "kind": EntryKind(values["kind"])}) for values in rows]


async def patient_of_entry(tx: Transaction, kind: EntryKind, source_id: UUID) -> UUID | None:
    """Return whose an appointment or referral is; None when it isn't known here yet."""
    row = await tx.fetch_one(
        select(timeline_entry.c.patient_id).where(
            timeline_entry.c.kind == kind.value, timeline_entry.c.source_id == source_id
        )
    )
    return None if row is None else row.patient_id


# -- rows to values and back


async def _newest_first(
    tx: Transaction,
    table: Table,
    moment: Any,
    identity: Any,
    patient_ids: Collection[UUID],
    after: Position | None,
    limit: int,
) -> Sequence[Row[Any]]:
    statement = (
        select(table)
        .where(table.c.patient_id.in_(patient_ids))
        .order_by(moment.desc(), identity.desc())
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(tuple_(moment, identity) < tuple_(*after))
    return await tx.fetch_all(statement)


async def _children(
    tx: Transaction, table: Table, parent: str, parent_ids: Collection[UUID]
) -> Mapping[UUID, list[dict[str, Any]]]:
    """Return the rows that belong to each parent, in their order."""
    rows = await tx.fetch_all(
        select(table).where(table.c[parent].in_(parent_ids)).order_by(table.c[parent], table.c.position)
    )
    children: defaultdict[UUID, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        children[getattr(row, parent)].append(_without(row, parent, "position"))
    return children


def _values(row: Row[Any]) -> dict[str, Any]:
    return dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it


def _without(row: Row[Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in _values(row).items() if name not in names}


def _columns_of(table: Table, value: object) -> dict[str, Any]:
    return _lists({column.name: getattr(value, column.name) for column in table.columns})


def _lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """PostgreSQL's arrays come from lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the domain are immutable."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
