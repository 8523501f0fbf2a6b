"""Telling the others of the care relationships that were here before they were told of any.

The migration that took them over sets the first timer; each firing tells a batch and sets the next.
"""

from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.timers import Timer, Timers
from sqlalchemy import or_, select, tuple_

from clinic_patients.care_domain import CareKind, CareRelationship
from clinic_patients.events import care_event
from clinic_patients.tables import care_relationship

timers = Timers()

KIND = "tell-care-relationships"
NOBODY = UUID(int=0)
BATCH = 500
_COLUMNS = care_relationship.c


@timers.on(KIND)
async def tell(tx: Transaction, timer: Timer) -> None:
    """Whoever knows a relationship already ignores what they are told: its version isn't newer."""
    statement = (
        select(care_relationship)
        .where(or_(_COLUMNS.ends_at.is_(None), _COLUMNS.ends_at > tx.now))
        .order_by(_COLUMNS.kind, _COLUMNS.source_id)
        .limit(BATCH)
    )
    if timer.payload:
        after = (timer.payload["kind"], UUID(timer.payload["source_id"]))
        statement = statement.where(tuple_(_COLUMNS.kind, _COLUMNS.source_id) > tuple_(*after))
    rows = await tx.fetch_all(statement)
    for row in rows:
        values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it
        tx.emit(care_event(CareRelationship(**values | {"kind": CareKind(row.kind)}), now=tx.now))
    if len(rows) == BATCH:
        last = {"kind": rows[-1].kind, "source_id": str(rows[-1].source_id)}
        version = timer.subject_version + 1
        following = Timer(kind=KIND, subject=NOBODY, subject_version=version, due_at=tx.now, payload=last)
        await tx.schedule(following)
