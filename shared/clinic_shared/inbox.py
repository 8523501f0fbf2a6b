"""One way in: an event takes effect here at most once.

The row is inserted first in the transaction of the effect. The table is partitioned by the range of
the event id, which a redelivery doesn't change (by time of arrival an event could apply twice).
"""

from collections.abc import Collection, Mapping
from uuid import UUID

from sqlalchemy import Column, DateTime, Table, Text, Uuid, func, text

from clinic_shared.database import Transaction
from clinic_shared.events import runtime_metadata
from clinic_shared.held import KeyIsWaitingError
from clinic_shared.tally import event_hour

inbox = Table(
    "inbox",
    runtime_metadata,
    Column("consumer", Text, primary_key=True),
    Column("event_id", Uuid, primary_key=True),
    Column("processed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)


# Counted in the same round trip; the row for the count has no index and nobody else to wait for.
_CLAIM = text("""
    WITH claimed AS (
        INSERT INTO inbox (consumer, event_id) VALUES (:consumer, :event_id)
        ON CONFLICT DO NOTHING RETURNING event_id
    ), counted AS (
        INSERT INTO tally_delta (direction, type, event_hour, events)
        SELECT 'applied', :event_type, :event_hour, 1 FROM claimed
    )
    SELECT event_id FROM claimed
""")

# Inserted in the order of the ids, so that two of these can't wait for each other; each with an instant of
# its own, in the order in which they take effect.
_CLAIM_IN_TURN = text("""
    WITH given AS (
        SELECT * FROM unnest(CAST(:event_ids AS uuid[]), CAST(:types AS text[]), CAST(:hours AS integer[]))
            WITH ORDINALITY AS given (event_id, type, event_hour, place)
    ), turn AS MATERIALIZED (
        SELECT clock_timestamp() AS at, EXISTS (
            SELECT FROM held WHERE partition_key = ANY(CAST(:keys AS uuid[])) AND state = 'held'
        ) AS is_another_s
    ), claimed AS (
        INSERT INTO inbox (consumer, event_id, processed_at)
        SELECT :consumer, event_id, turn.at + place * interval '1 microsecond'
        FROM given, turn WHERE NOT turn.is_another_s ORDER BY event_id
        ON CONFLICT DO NOTHING RETURNING event_id
    ), counted AS (
        INSERT INTO tally_delta (direction, type, event_hour, events)
        SELECT 'applied', type, event_hour, count(*) FROM given JOIN claimed USING (event_id)
        GROUP BY type, event_hour
    )
    SELECT event_id FROM claimed UNION ALL SELECT NULL FROM turn WHERE turn.is_another_s
""")


async def claim(transaction: Transaction, *, consumer: str, event_id: UUID, event_type: str) -> bool:
    """Return False when the event has taken effect here before."""
    row = await transaction.fetch_one(
        _CLAIM,
        {
            "consumer": consumer,
            "event_id": event_id,
            "event_type": event_type,
            "event_hour": event_hour(event_id),
        },
    )
    return row is not None


async def claim_in_turn(
    transaction: Transaction, *, consumer: str, types: Mapping[UUID, str], partition_keys: Collection[UUID]
) -> set[UUID]:
    """Return which of these events (ids and their types) haven't taken effect here before.

    Raises KeyIsWaitingError when earlier messages of one of their keys are held.
    """
    rows = await transaction.fetch_all(
        _CLAIM_IN_TURN,
        {
            "consumer": consumer,
            "event_ids": list(types),
            "types": list(types.values()),
            "hours": [event_hour(event_id) for event_id in types],
            "keys": list(partition_keys),
        },
    )
    claimed = {row.event_id for row in rows}
    if None in claimed:
        raise KeyIsWaitingError
    return claimed
