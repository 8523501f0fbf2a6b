"""Who of the staff has read which version of a result: those who act on it must hear when it is withdrawn."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_patients.chart_domain import ResultVersion
from clinic_patients.tables import result_reading, result_version

_LOCK = 0x0C4A_0001


@dataclass(frozen=True)
class Reading:
    reader_id: UUID
    version: int
    read_at: datetime


async def lock(tx: Transaction, patient_id: UUID, *, alone: bool) -> None:
    """Keep readings and withdrawals apart until commit: whoever reads shares it, a withdrawal holds it alone.

    Else somebody could read a version in the instant in which it is withdrawn, and be told of nothing.
    """
    take = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
    await tx.execute(select(take(_LOCK, func.hashtext(str(patient_id)))))


async def note(tx: Transaction, reader_id: UUID, versions: Iterable[ResultVersion]) -> None:
    rows = [
        {"result_id": v.result_id, "version": v.version, "reader_id": reader_id, "read_at": tx.now}
        for v in versions
    ]
    if rows:
        await tx.execute(upsert(result_reading).on_conflict_do_nothing(), rows)


async def before(tx: Transaction, withdrawn: ResultVersion) -> list[Reading]:
    """Return who has read an earlier version, and the newest that they have read.

    What a laboratory cancels matters only to those who have seen it released.
    """
    earlier = result_reading.c.version < withdrawn.version
    if withdrawn.status == "cancelled":
        earlier &= result_version.c.status.in_(["final", "amended", "corrected"])
    rows = await tx.fetch_all(
        select(
            result_reading.c.reader_id,
            func.max(result_reading.c.version).label("version"),
            func.max(result_reading.c.read_at).label("read_at"),
        )
        .join(
            result_version,
            (result_version.c.result_id == result_reading.c.result_id)
            & (result_version.c.version == result_reading.c.version),
        )
        .where(result_reading.c.result_id == withdrawn.result_id, earlier)
        .group_by(result_reading.c.reader_id)
        .order_by(result_reading.c.reader_id)
    )
    return [Reading(row.reader_id, row.version, row.read_at) for row in rows]
