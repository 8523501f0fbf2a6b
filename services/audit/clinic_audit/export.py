"""What audit holds about a patient: who looked at or changed their record, as the patient may read it anyway."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.exporting import LEFT_OUT, Json, Part, contribute
from sqlalchemy import Row, func, select, text

from clinic_audit.access_log import Access
from clinic_audit.search import Wanted, column, find

handlers = Handlers("audit")

NEWEST = 20_000
"""So many fit into a part, and into a worker's memory; how many more there are is said."""
_WHERE = "GET /v1/patients/{patient_id}/access-log pages through all of them"
_ARCHIVED = """
    SELECT max(last_received_at) AS until FROM archive_segment part WHERE EXISTS (
        SELECT FROM archived_record one WHERE one.leaf_index >= part.first_index AND one.leaf_index < part.end_index
    ) AND NOT EXISTS (
        SELECT FROM restored_record one WHERE one.leaf_index >= part.first_index AND one.leaf_index < part.end_index
    )
"""


async def gather(tx: Transaction, patient_ids: Sequence[UUID]) -> Part:
    """Acts of the platform itself are left out; what else isn't here is said, with where to get it."""
    wanted = Wanted(person=patient_ids, of_people_only=True)
    rows = await find(tx, wanted, after=None, limit=NEWEST, newest_first=True)
    accesses = [Access.of(row).model_dump(exclude_none=True) for row in rows]
    missing = [*await _older(tx, wanted, rows), *await _archived(tx)]
    return Part(others={"access-log": accesses, LEFT_OUT: missing})


async def _older(tx: Transaction, wanted: Wanted, rows: Sequence[Row[Any]]) -> list[Json]:
    if len(rows) < NEWEST:
        return []
    counted = select(func.count().label("records")).where(
        *wanted.conditions(), column.leaf_index < rows[-1].leaf_index
    )
    found = await tx.fetch_one(counted)
    if found is None or not found.records:
        return []
    return [
        {
            "what": "accesses before the oldest that is here",
            "count": found.records,
            "before": rows[-1].recorded_at,
            "where": _WHERE,
        }
    ]


async def _archived(tx: Transaction) -> list[Json]:
    """Archives say nothing about whose records they hold, so this is said of everybody's."""
    found = await tx.fetch_one(text(_ARCHIVED))
    if found is None or found.until is None:
        return []
    return [
        {
            "what": "accesses in archives of the audit log, should there be any",
            "before": found.until,
            "where": "ask the clinic, whose privacy officer has archives restored",
        }
    ]


contribute(handlers, "audit.export-part-ready.v1", gather)
