"""What audit holds about a patient: who looked at or changed their record, as the patient may read it anyway."""

from collections.abc import Sequence
from uuid import UUID

from clinic_shared.consumer import Handlers
from clinic_shared.database import Transaction
from clinic_shared.exporting import Part, contribute
from sqlalchemy import select

from clinic_audit.access_log import Access
from clinic_audit.tables import audit_record

handlers = Handlers("audit")

NEWEST = 20_000


async def gather(tx: Transaction, patient_ids: Sequence[UUID]) -> Part:
    """Acts of the platform itself are left out, and of very many the oldest: the access log pages through all."""
    rows = await tx.fetch_all(
        select(audit_record)
        .where(audit_record.c.patient_id.in_(patient_ids), audit_record.c.agent != UUID(int=0))
        .order_by(audit_record.c.leaf_index.desc())
        .limit(NEWEST)
    )
    return Part(others={"access-log": [Access.of(row).model_dump(exclude_none=True) for row in rows]})


contribute(handlers, "audit.export-part-ready.v1", gather)
