"""Lab results: filed once per version, beside each other, whatever order they arrive in."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import chain
from uuid import UUID

import structlog
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.principal import Principal

from clinic_patients import care, chart_store, merge_store, readings, store
from clinic_patients.chart_domain import (
    RELEASED_STATUSES,
    RETRACTED,
    EntryKind,
    ResultVersion,
    ResultVersionConflictError,
    TimelineEntry,
)
from clinic_patients.events import result_filed_event, retracted_result_read_event

log = structlog.get_logger()

_OPENED = "charts-opened"
_UNFILED = "results-unfiled"


async def read_ahead(
    tx: Transaction, keys: Collection[tuple[UUID, int]], patient_ids: Iterable[UUID]
) -> None:
    """Find out at once which versions are filed and which patients have no chart yet, for several results."""
    await _open_charts(tx, patient_ids)
    tx.known[_UNFILED] = set(keys) - await chart_store.filed_versions(tx, keys)


async def file_result(tx: Transaction, result: ResultVersion) -> None:
    """Put a version of a result into the chart and say so to whoever sent it.

    Raises ResultVersionConflictError when the version stands there with other content: neither is
    dropped then, the message is parked for a person.
    """
    await _open_charts(tx, [result.patient_id])
    if await _add(tx, result):
        chart_store.keep_entry(tx, _entry(result))
        await _tell_readers(tx, result)
        tx.audit(
            AuditEntry(
                action=Action.CREATE,
                resource_type="DiagnosticReport",
                resource_id=result.result_id,
                patient_id=result.patient_id,
                details={"version": str(result.version), "status": result.status},
            )
        )
    elif await _is_settled(tx, result):
        return
    tx.emit(result_filed_event(result))


async def _open_charts(tx: Transaction, patient_ids: Iterable[UUID]) -> None:
    opened: set[UUID] = tx.known.setdefault(_OPENED, set())
    missing = set(patient_ids) - opened
    if missing:
        for patient_id in sorted(await store.keep_stubs(tx, missing)):
            log.warning("result_for_unregistered_patient", patient_id=patient_id)
        opened |= missing


async def _add(tx: Transaction, result: ResultVersion) -> bool:
    """File a version unless it is filed; returns whether it is new."""
    unfiled: set[tuple[UUID, int]] = tx.known.get(_UNFILED, set())
    if (result.result_id, result.version) not in unfiled:
        return await chart_store.add_result_version(tx, result)
    unfiled.discard((result.result_id, result.version))
    chart_store.add_result_version_later(tx, result)
    return True


async def _tell_readers(tx: Transaction, result: ResultVersion) -> None:
    """Name those who have read what is withdrawn now, so that somebody makes sure that they know."""
    if result.version == 1 or not result.withdraws(
        await chart_store.find_result_version(tx, result.result_id, result.version - 1)
    ):
        return
    await readings.lock(tx, result.patient_id, alone=True)
    readers = await readings.before(tx, result)
    if readers:
        tx.emit(retracted_result_read_event(result, readers))


async def _is_settled(tx: Transaction, result: ResultVersion) -> bool:
    """Tell whether the version was filed from this very line, whose sender has had its answer."""
    filed = await chart_store.find_result_version(tx, result.result_id, result.version)
    if filed is None or filed.contradicts(result):
        raise ResultVersionConflictError(result_id=str(result.result_id), version=result.version)
    return filed.line == result.line


async def list_results(
    tx: Transaction, patient_id: UUID, *, caller: Principal, after: UUID | None, limit: int
) -> list[list[ResultVersion]]:
    """Return results, newest first, each with its versions, newest first.

    Staff see all that was ever filed. Patients see the newest released version of each: what was
    posted to the wrong chart must not be read there by the wrong person.
    """
    decision = await care.permit(tx, patient_id, "results.read", caller=caller)
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type="DiagnosticReport",
            patient_id=patient_id,
            details=decision.explained(),
        )
    )
    statuses = RELEASED_STATUSES if caller.kind == "patient" else None
    records = await merge_store.records_of(tx, patient_id)
    if caller.kind == "staff":
        for record_id in records:
            await readings.lock(tx, record_id, alone=False)
    result_ids = await chart_store.list_result_ids(tx, records, statuses=statuses, after=after, limit=limit)
    versions: defaultdict[UUID, list[ResultVersion]] = defaultdict(list)
    for version in await chart_store.list_result_versions(tx, records, result_ids, statuses=statuses):
        versions[version.result_id].append(version)
    if caller.kind == "staff":
        await readings.note(tx, caller.subject, chain.from_iterable(versions.values()))
    shown = [versions[result_id] for result_id in result_ids]
    return [[for_the_patient(of_one[0])] for of_one in shown] if caller.kind == "patient" else shown


def for_the_patient(newest: ResultVersion) -> ResultVersion:
    """A retracted report says that it is retracted, and nothing that may be about somebody else."""
    if newest.status != RETRACTED:
        return newest
    return replace(newest, observations=(), conclusion=None, notes=())


def _entry(result: ResultVersion) -> TimelineEntry:
    return TimelineEntry(
        kind=EntryKind.LAB_RESULT,
        source_id=result.result_id,
        version=result.version,
        patient_id=result.patient_id,
        status=result.status,
        occurred_at=result.reported_at or result.received_at,
        centre_id=result.centre_id,
        department_id=result.department_id,
        practitioner_id=result.practitioner_id,
        code=result.report_code,
    )
