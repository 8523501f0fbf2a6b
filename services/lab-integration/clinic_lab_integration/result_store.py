"""The queries of results: a report by its key, and its versions."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from clinic_shared import merges
from clinic_shared.bulk import InsertRows, UpdateRows, excluded
from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7
from sqlalchemy import Row, select, tuple_

from clinic_lab_integration.domain import (
    ObservationState,
    ReportContent,
    ReportVersion,
    ResultId,
    SentReport,
)
from clinic_lab_integration.hl7 import ResultStatus
from clinic_lab_integration.meaning import Meaning
from clinic_lab_integration.tables import lab_result, lab_result_version
from clinic_lab_integration.unit_store import Unit

ResultKey = tuple[UUID, UUID, str]
"""Whose report it is: the laboratory, the patient, and the key that its versions share."""
Known = tuple[ResultId, ReportVersion]

_KEEP_RESULT = InsertRows(
    lab_result,
    replacing={
        **excluded(("version", "status")),
        "lab_order_id": "coalesce(excluded.lab_order_id, kept.lab_order_id)",
    },
)
_ADD_VERSION = InsertRows(lab_result_version)
_MARK_FILED = UpdateRows(lab_result_version, ("filed_at",))


async def find_results(tx: Transaction, keys: Collection[ResultKey]) -> dict[ResultKey, Known]:
    """Return reports as they are known: version 0 with a new id, if one isn't. Their patients are locked already.

    A report that was begun under a record which the patient's has replaced is theirs.
    """
    if not keys:
        return {}
    columns = lab_result.c
    absorbed = await merges.absorbed_by(tx, {patient_id for _, patient_id, _ in keys})
    begun = [
        (partner_id, source_id, report_key)
        for partner_id, patient_id, report_key in keys
        for source_id, target_id in absorbed.items()
        if target_id == patient_id
    ]
    rows = await tx.fetch_all(
        select(lab_result_version, columns.partner_id, columns.patient_id, columns.report_key)
        .join(
            lab_result,
            (columns.result_id == lab_result_version.c.result_id)
            & (columns.version == lab_result_version.c.version),
        )
        .where(tuple_(columns.partner_id, columns.patient_id, columns.report_key).in_([*keys, *begun]))
    )
    known = {
        (row.partner_id, absorbed.get(row.patient_id, row.patient_id), row.report_key): (
            ResultId(row.result_id),
            _version(row),
        )
        # What stands under the patient's own id last: it has the last word.
        for row in sorted(rows, key=lambda row: row.patient_id not in absorbed)
    }
    return {key: known.get(key) or (ResultId(uuid7()), ReportVersion()) for key in keys}


async def find_result(tx: Transaction, key: ResultKey) -> Known:
    return (await find_results(tx, [key]))[key]


async def find_newest(tx: Transaction, result_id: UUID) -> Known:
    """Return the newest version of a report that is known."""
    row = await tx.fetch_one(
        select(lab_result_version)
        .where(lab_result_version.c.result_id == result_id)
        .order_by(lab_result_version.c.version.desc())
        .limit(1)
    )
    return ResultId(result_id), ReportVersion() if row is None else _version(row)


def add_version(
    tx: Transaction,
    unit: Unit,
    sent: SentReport,
    new: ReportVersion,
    *,
    result_id: ResultId,
    patient_id: UUID,
    lab_order_id: UUID | None,
) -> None:
    tx.write_later(
        _KEEP_RESULT,
        {
            "result_id": result_id,
            "partner_id": unit.partner_id,
            "patient_id": patient_id,
            "report_key": sent.key,
            "version": new.version,
            "status": new.status.value,
            "lab_order_id": lab_order_id,
        },
    )
    tx.write_later(_ADD_VERSION, _version_row(unit, sent, new, result_id))


def _version_row(unit: Unit, sent: SentReport, new: ReportVersion, result_id: ResultId) -> dict[str, Any]:
    return {
        "result_id": result_id,
        "version": new.version,
        "status": new.status.value,
        "retraction_reason_code": new.retraction_reason_code,
        "message_id": unit.message_id,
        "group_index": unit.group_index,
        "report_index": sent.index,
        "placer_order_number": sent.placer_order_number,
        "filler_order_number": sent.filler_order_number,
        "parent_filler_order_number": sent.parent_filler_order_number,
        "code": sent.code,
        "system": sent.system,
        "display": sent.display,
        "collected_at": new.collected_at,
        "reported_at": new.reported_at,
        "sent_at": new.sent_at,
        "received_at": unit.received_at,
        "observation_count": len(new.content.observations),
        "abnormal_count": new.content.count(critical=False),
        "critical_count": new.content.count(critical=True),
        "content": new.content.as_written(),
        "filed_at": None,
        "meanings": [vars(o.meaning) if o.meaning else None for o in new.content.observations],
    }


def mark_filed(tx: Transaction, result_id: UUID, version: int, *, filed_at: datetime) -> None:
    tx.write_later(_MARK_FILED, {"result_id": result_id, "version": version, "filed_at": filed_at})


async def order_of_parent(
    tx: Transaction, *, partner_id: UUID, patient_id: UUID, parent_filler_order_number: str
) -> UUID | None:
    """Return the order that a report's parent answers: what it led to is the same doctor's."""
    row = await tx.fetch_one(
        select(lab_result.c.lab_order_id)
        .join(lab_result_version, lab_result_version.c.result_id == lab_result.c.result_id)
        .where(
            lab_result.c.patient_id == patient_id,
            lab_result.c.partner_id == partner_id,
            lab_result.c.lab_order_id.is_not(None),
            lab_result_version.c.filler_order_number == parent_filler_order_number,
        )
        .limit(1)
    )
    return row.lab_order_id if row else None


async def list_results(
    tx: Transaction, patient_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[Row[Any]]:
    """Return the newest version of each of a person's reports, under any of their records, without what it says."""
    person = await merges.records_of(tx, patient_id)
    columns = [c for c in lab_result_version.columns if c.name not in {"content", "meanings", "sent_at"}]
    statement = (
        select(*columns, lab_result.c.patient_id, lab_result.c.partner_id, lab_result.c.lab_order_id)
        .join(
            lab_result,
            (lab_result.c.result_id == lab_result_version.c.result_id)
            & (lab_result.c.version == lab_result_version.c.version),
        )
        .where(lab_result.c.patient_id.in_(person))
        .order_by(lab_result.c.result_id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(lab_result.c.result_id > after)
    return await tx.fetch_all(statement)


async def find_content(tx: Transaction, result_id: UUID, version: int) -> ReportContent:
    """What a version says; empty after an erasure."""
    row = await tx.fetch_one(
        select(lab_result_version.c.content, lab_result_version.c.meanings).where(
            lab_result_version.c.result_id == result_id, lab_result_version.c.version == version
        )
    )
    return ReportContent() if row is None else _content(row)


def _version(row: Row[Any]) -> ReportVersion:
    return ReportVersion(
        version=row.version,
        status=ResultStatus(row.status),
        retraction_reason_code=row.retraction_reason_code,
        collected_at=row.collected_at,
        reported_at=row.reported_at,
        sent_at=row.sent_at,
        content=_content(row),
    )


def _content(row: Row[Any]) -> ReportContent:
    """Empty after an erasure; without meanings where the release before has written it."""
    document = row.content or {}
    observations = document.get("observations", [])
    meanings = row.meanings or [None] * len(observations)
    return ReportContent(
        observations=tuple(
            ObservationState(
                **{**o, "interpretation": tuple(o["interpretation"]), "notes": tuple(o["notes"])},
                meaning=Meaning(**meaning) if meaning else None,
            )
            for o, meaning in zip(observations, meanings, strict=True)
        ),
        notes=tuple(document.get("notes", [])),
        conclusion=document.get("conclusion"),
    )
