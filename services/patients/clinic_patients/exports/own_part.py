"""What patients itself holds: who the patient is, consents, the chart, lab results, who had them in their care.

A patient gets what they may read here anyway: released results, and who opened the record in an emergency a day
later. The timeline is left out: it is made of what stands in the other parts.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.exporting import Part, told
from sqlalchemy import select

from clinic_patients import break_glass_store, chart_store, merge_store, store
from clinic_patients.chart_domain import RELEASED_STATUSES, ResultVersion
from clinic_patients.chart_store import Position
from clinic_patients.exports import resources as fhir
from clinic_patients.exports.domain import Export
from clinic_patients.fhir import FhirPatient
from clinic_patients.results import for_the_patient
from clinic_patients.tables import care_relationship, patient_merge

_AT_ONCE = 500
_MERGE = ("source_id", "target_id", "state", "requested_at", "decided_at", "undone_at")

Entry = TypeVar("Entry")


async def gather(tx: Transaction, export: Export) -> Part:
    ids = export.record_ids
    resources = [
        *await _patients(tx, ids),
        *await _consents(tx, ids),
        *[one async for one in _encounters(tx, ids)],
        *[one async for one in _prescriptions(tx, ids)],
        *[one async for one in _results(tx, ids, for_patient=export.for_patient)],
    ]
    return Part(resources=resources, others=await _others(tx, export))


async def _patients(tx: Transaction, ids: Sequence[UUID]) -> list[dict[str, Any]]:
    shown = []
    for patient_id in ids:
        patient = await store.find_patient(tx, patient_id)
        if patient is not None:
            read = FhirPatient.of(patient, await merge_store.links_of(tx, patient_id))
            shown.append(read.model_dump(mode="json", by_alias=True, exclude_none=True))
    return shown


async def _consents(tx: Transaction, ids: Sequence[UUID]) -> list[dict[str, Any]]:
    consents = await chart_store.list_consents(tx, ids)
    history = await chart_store.list_consent_versions(tx, [one.consent_id for one in consents])
    return [fhir.consent(one, history[one.consent_id]) for one in consents]


async def _encounters(tx: Transaction, ids: Sequence[UUID]) -> AsyncIterator[dict[str, Any]]:
    async def page(after: Position | None) -> Sequence[Any]:
        return await chart_store.list_encounters(tx, ids, after=after, limit=_AT_ONCE)

    async for one in _all(page, lambda e: (e.started_at, e.encounter_id)):
        yield fhir.encounter(one)
        for number, diagnosis in enumerate(one.diagnoses, start=1):
            yield fhir.condition(one, diagnosis, number)


async def _prescriptions(tx: Transaction, ids: Sequence[UUID]) -> AsyncIterator[dict[str, Any]]:
    async def page(after: Position | None) -> Sequence[Any]:
        return await chart_store.list_prescriptions(tx, ids, after=after, limit=_AT_ONCE)

    async for one in _all(page, lambda p: (p.issued_at, p.prescription_id)):
        for number, item in enumerate(one.items, start=1):
            yield fhir.medication_request(one, item, number)


async def _results(
    tx: Transaction, ids: Sequence[UUID], *, for_patient: bool
) -> AsyncIterator[dict[str, Any]]:
    statuses = RELEASED_STATUSES if for_patient else None
    after: UUID | None = None
    while found := await chart_store.list_result_ids(tx, ids, statuses=statuses, after=after, limit=_AT_ONCE):
        seen: set[UUID] = set()
        for version in await chart_store.list_result_versions(tx, ids, found, statuses=statuses):
            if for_patient and version.result_id in seen:
                continue
            seen.add(version.result_id)
            for resource in _result(for_the_patient(version) if for_patient else version):
                yield resource
        after = found[-1]


def _result(version: ResultVersion) -> list[dict[str, Any]]:
    lines = [fhir.observation(version, line, number) for number, line in enumerate(version.observations, 1)]
    return [fhir.diagnostic_report(version, lines), *lines]


async def _others(tx: Transaction, export: Export) -> dict[str, list[dict[str, Any]]]:
    ids = export.record_ids
    relations = await tx.fetch_all(
        select(care_relationship)
        .where(care_relationship.c.patient_id.in_(ids))
        .order_by(care_relationship.c.begins_at, care_relationship.c.source_id)
    )
    merges = await tx.fetch_all(
        select(*(patient_merge.c[name] for name in _MERGE))
        .where(patient_merge.c.source_id.in_(ids))
        .order_by(patient_merge.c.requested_at)
    )
    opened = [one for record_id in ids for one in await break_glass_store.list_of_patient(tx, record_id)]
    return {
        "care-relationships": [told(row, without=("version",)) for row in relations],
        "merged-records": [told(row) for row in merges],
        "emergency-access": [
            {"reason_code": one.reason_code.value, "started_at": one.started_at, "ended_at": one.ended_at}
            for one in opened
            if one.started_at is not None
            if not export.for_patient or one.is_told_to_the_patient(tx.now)
        ],
    }


async def _all(
    page: Callable[[Position | None], Awaitable[Sequence[Entry]]], position: Callable[[Entry], Position]
) -> AsyncIterator[Entry]:
    """Yield everything of a list that comes in pages."""
    after: Position | None = None
    while found := await page(after):
        for one in found:
            yield one
        after = position(found[-1])
