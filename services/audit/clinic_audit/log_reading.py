"""The whole log in its order, as fast as it can be read: for verifying, by the driver's own cursor on the server.

SQLAlchemy's rows cost several times the hashing that is done with them.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from clinic_shared.database import Transaction

if TYPE_CHECKING:
    import psycopg

CHUNK = 2000


class StoredRecord(NamedTuple):
    """A row of the log; ids as text, which is how records spell them."""

    leaf_index: int
    producer: str
    pseq: int
    leaf_hash: bytes
    record: bytes
    record_id: str
    recorded_at: datetime
    action: str
    outcome: str
    agent: str
    entity_type: str
    entity_id: str | None
    patient_id: str | None
    request_id: str | None
    agent_kind: str | None


_IDS = {"record_id", "agent", "patient_id", "request_id"}
_COLUMNS = ", ".join(f"{name}::text" if name in _IDS else name for name in StoredRecord._fields)
_WHOLE_LOG = f"SELECT {_COLUMNS} FROM audit_record ORDER BY leaf_index"  # noqa: S608  # our own names


async def read_log(tx: Transaction) -> AsyncIterator[Sequence[StoredRecord]]:
    """Yield the log by index in chunks, in constant memory."""
    pooled = await tx.connection.get_raw_connection()
    connection = cast("psycopg.AsyncConnection[Any]", pooled.driver_connection)
    async with connection.cursor(name="whole_log", row_factory=lambda _: StoredRecord._make) as cursor:
        await cursor.execute(_WHOLE_LOG, binary=True)
        while rows := await cursor.fetchmany(CHUNK):
            yield rows
