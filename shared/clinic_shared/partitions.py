"""Months of the event log and the inbox as partitions: made ahead, and dropped after their retention, online.

Nothing here makes others wait longer than LOCK_MS for a lock: who can't have it tries again later. Before a
month of the event log goes, what only it can tell is carried into today's as state events, so that a rebuild
gives the same model. State events are never published: their aggregates' subscribers heard of them long ago.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from clinic_shared import contracts
from clinic_shared.crash import crash_point
from clinic_shared.ids import uuid7_at, uuid7_floor

TABLES = ("event", "inbox")
MONTHS_AHEAD = 3
LOCK_MS = 200
MOVE_MS = 4_000
"""For moving what lies in the default partition: less than a request waits for a lock."""
CARRIED_AT_ONCE = 500

_SUFFIX = re.compile(r"_(\d{4})_(\d{2})$")


@dataclass(frozen=True, order=True)
class Month:
    starts_at: datetime

    @classmethod
    def of(cls, moment: datetime) -> "Month":
        return cls(datetime(moment.year, moment.month, 1, tzinfo=UTC))

    @property
    def following(self) -> "Month":
        return Month.of(self.starts_at + timedelta(days=32))

    @property
    def ends_at(self) -> datetime:
        return self.following.starts_at

    @property
    def bounds(self) -> dict[str, UUID]:
        return {"first": uuid7_floor(self.starts_at), "end": uuid7_floor(self.ends_at)}

    def name(self, table: str) -> str:
        return f"{table}_{self.starts_at:%Y_%m}"


@dataclass(frozen=True, kw_only=True)
class Partition:
    """`month` is None for the default partition, which takes what no month was there for."""

    table: str
    name: str
    month: Month | None
    rows: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long a month is kept after its end, by table; on legal hold, all are."""

    kept: dict[str, timedelta]
    legal_hold: bool = False

    def expires_at(self, partition: Partition) -> datetime | None:
        if self.legal_hold or partition.month is None:
            return None
        return partition.month.ends_at + self.kept[partition.table]

    def has_expired(self, partition: Partition, now: datetime) -> bool:
        expires_at = self.expires_at(partition)
        return expires_at is not None and expires_at <= now


def listed(connection: Connection) -> list[Partition]:
    """Return the partitions that there are, the oldest first; row counts are the planner's estimates."""
    rows = connection.execute(_PARTITIONS, {"tables": list(TABLES)}).all()
    return [
        Partition(
            table=row.parent, name=row.name, month=_month_of(row.name), rows=row.estimate, size_bytes=row.size
        )
        for row in rows
    ]


_PARTITIONS = text("""
    SELECT parent.relname AS parent, child.relname AS name, greatest(child.reltuples, 0)::bigint AS estimate,
           pg_total_relation_size(child.oid) AS size
    FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent
    WHERE parent.relname = ANY(:tables) AND parent.relkind = 'p' ORDER BY 1, 2
""")


def _month_of(name: str) -> Month | None:
    found = _SUFFIX.search(name)
    return Month(datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC)) if found else None


# -- ahead


def missing(connection: Connection, now: datetime) -> list[tuple[str, Month]]:
    """Return which of this month's and the next months' partitions aren't there yet."""
    there = {partition.name for partition in listed(connection)}
    connection.rollback()
    months = [Month.of(now)]
    for _ in range(MONTHS_AHEAD):
        months.append(months[-1].following)
    return [(table, month) for month in months for table in TABLES if month.name(table) not in there]


def create(connection: Connection, table: str, month: Month) -> None:
    """Make one partition, with what of its month lies in the default partition by now.

    Made beside and attached, since CREATE TABLE ... PARTITION OF would lock out every reader and writer of
    the whole table. Raises the database's error when the locks can't be had at once.
    """
    name, bounds = month.name(table), month.bounds
    with _briefly_locked(connection) as run:
        run(f"SET LOCAL statement_timeout = {MOVE_MS}")
        run(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)")
        # Proven here, so that attaching needn't look.
        run(
            f"ALTER TABLE {name} ADD CONSTRAINT bounds CHECK (event_id >= '{bounds['first']}' "
            f"AND event_id < '{bounds['end']}')"
        )
        run(f"LOCK TABLE {table}_default IN ACCESS EXCLUSIVE MODE")
        run(
            f"WITH moved AS (DELETE FROM {table}_default "  # noqa: S608  # names and ids of our own
            f"WHERE event_id >= '{bounds['first']}' AND event_id < '{bounds['end']}' RETURNING *) "
            f"INSERT INTO {name} SELECT * FROM moved"
        )
        crash_point("partitions.moved")
        run(
            f"ALTER TABLE {table} ATTACH PARTITION {name} "
            f"FOR VALUES FROM ('{bounds['first']}') TO ('{bounds['end']}')"
        )
        run(f"ALTER TABLE {name} DROP CONSTRAINT bounds")


def rows_in_default(connection: Connection, table: str, *, at_most: int = 10_000) -> int:
    """Count what no month's partition was there for; a sign that nobody made them ahead."""
    limited = text(f"SELECT count(*) FROM (SELECT 1 FROM {table}_default LIMIT :most) AS found")  # noqa: S608
    found = int(connection.execute(limited, {"most": at_most}).scalar_one())
    connection.rollback()
    return found


# -- after retention


@dataclass(frozen=True)
class Audience:
    """Event types of which the newest of each aggregate makes up for the older ones.

    `types` are those that one consumer hears: the newest that it has heard of is what it must hear again.
    Without `superseding`, each event stands alone.
    """

    types: tuple[str, ...]
    superseding: bool


def audiences(service: str) -> list[Audience]:
    """Return whom a service's events must be able to tell again all they know."""
    published = [event for event in contracts.load().published_by(service) if event.consumers]
    alone = tuple(event.type for event in published if event.stands_alone)
    consumers = dict.fromkeys(consumer for event in published for consumer in event.consumers)
    heard = dict.fromkeys(
        tuple(event.type for event in published if consumer in event.consumers and not event.stands_alone)
        for consumer in consumers
    )
    found = [Audience(types, superseding=True) for types in heard if types]
    return [*found, Audience(alone, superseding=False)] if alone else found


def carry_some(
    connection: Connection, *, month: Month, audience: Audience, now: datetime, after: UUID
) -> UUID | None:
    """Carry the next events that nothing newer makes up for. Returns the last one's id, None when all are.

    Doing it twice changes nothing: an event that was carried is made up for by its state event.
    """
    with connection.begin():
        found = connection.execute(
            text(_TO_CARRY.format(partition=month.name("event"))),
            {
                "types": list(audience.types),
                "superseding": list(audience.types) if audience.superseding else [],
                "after": after,
                "most": CARRIED_AT_ONCE,
            },
        )
        ids: Sequence[UUID] = found.scalars().all()
        if not ids:
            return None
        # In the order of the originals.
        new_ids = sorted(uuid7_at(now) for _ in ids)
        connection.execute(_CARRY, {"old": list(ids), "new": new_ids})
    crash_point("partitions.carried")
    return ids[-1]


_TO_CARRY = """
    SELECT old.event_id FROM {partition} AS old
    WHERE old.type = ANY(CAST(:types AS text[])) AND old.event_id > :after AND NOT EXISTS (
        SELECT 1 FROM event AS newer WHERE newer.subject = old.subject AND (
            newer.type = ANY(CAST(:superseding AS text[])) AND newer.aggregate_version > old.aggregate_version
            OR newer.event_id > old.event_id AND newer.carries = coalesce(old.carries, old.event_id)
        )
    ) ORDER BY old.event_id LIMIT :most
"""
_CARRY = text("""
    INSERT INTO event (event_id, carries, type, subject, aggregate_version, partition_key, patient_id, occurred_at,
                       recorded_at, origin, correlation_id, causation_id, traceparent, data, private, seal)
    SELECT pair.new_id, coalesce(event.carries, event.event_id), type, subject, aggregate_version, partition_key,
           patient_id, occurred_at, recorded_at, origin, correlation_id, causation_id, traceparent, data, private, seal
    FROM unnest(CAST(:old AS uuid[]), CAST(:new AS uuid[])) AS pair(old_id, new_id)
    JOIN event ON event.event_id = pair.old_id
""")


def reason_to_keep(connection: Connection, partition: Partition) -> str | None:
    """Return why an expired month can't go yet, or None."""
    assert partition.month is not None  # noqa: S101  # the default partition never expires
    for reason, condition in _REASONS[partition.table].items():
        found = connection.execute(text(f"SELECT EXISTS ({condition})"), partition.month.bounds)
        if found.scalar_one():
            connection.rollback()
            return reason
    connection.rollback()
    return None


_REASONS = {
    "event": {
        "not-published": "SELECT 1 FROM outbox WHERE event_id >= :first AND event_id < :end",
        # It would miss what it hasn't read: the state events are newer than where it ends.
        "being-replayed": "SELECT 1 FROM replay_job WHERE state = 'running' AND begun_at IS NOT NULL",
    },
    "inbox": {
        "messages-held": "SELECT 1 FROM held WHERE state <> 'discarded' "
        "AND event_id >= :first AND event_id < :end",
    },
}


def drop(connection: Connection, partition: Partition) -> None:
    """Drop a month at once and whole. Raises the database's error when the lock can't be had at once.

    DETACH CONCURRENTLY isn't to be had beside a default partition.
    """
    with _briefly_locked(connection) as run:
        run(f"ALTER TABLE {partition.table} DETACH PARTITION {partition.name}")
        crash_point("partitions.detached")
        run(f"DROP TABLE {partition.name}")


@contextmanager
def _briefly_locked(connection: Connection) -> Iterator[Callable[[str], object]]:
    """Run statements in a transaction that gives up rather than make others queue behind it."""
    with connection.begin():
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_MS}")
        yield connection.exec_driver_sql


def expired(connection: Connection, retention: Retention, now: datetime) -> list[Partition]:
    """Return the months whose time is over, the oldest first."""
    found = [partition for partition in listed(connection) if retention.has_expired(partition, now)]
    connection.rollback()
    return found
