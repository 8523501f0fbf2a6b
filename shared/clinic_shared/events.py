"""Events out: what a use case emits, and the tables of the event log and its outbox.

The log (`event`) is immutable and kept for replay; `outbox` holds only what the broker hasn't
confirmed yet. Both are written in the transaction of the change itself (see `database.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB

type_of_json = JSONB(none_as_null=True)

runtime_metadata = MetaData()
"""Tables that the runtime keeps in every service's database; created by `clinic_shared.migrations`."""

event_log = Table(
    "event",
    runtime_metadata,
    Column("event_id", Uuid, primary_key=True),
    Column("type", Text, nullable=False),
    Column("subject", Uuid, nullable=False),
    Column("aggregate_version", BigInteger, nullable=False),
    Column("partition_key", Uuid, nullable=False),
    Column("patient_id", Uuid),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("origin", Text, nullable=False),
    Column("correlation_id", Uuid, nullable=False),
    Column("causation_id", Uuid),
    Column("traceparent", Text),
    Column("data", type_of_json, nullable=False),
    Column("private", type_of_json),
    Column("seal", Text),
    Column("carries", Uuid),
)

outbox = Table(
    "outbox",
    runtime_metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Uuid, nullable=False),
    Column("partition_key", Uuid, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("last_error", Text),
)

audit_outbox = Table(
    "audit_outbox",
    runtime_metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("record", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("pseq", BigInteger),
)


class Origin(StrEnum):
    """Where an event comes from. Side effects to the outside happen for `live` ones only."""

    LIVE = "live"
    IMPORT = "import"
    REPLAY = "replay"


@dataclass(frozen=True, kw_only=True)
class Event:
    """A fact to be published, with the aggregate's resulting state.

    `type` is the routing key, `<service>.<event-name>.v<n>`; `data` holds ids, codes, times and
    amounts; `private` the personal and clinical fields. With a `patient_id`, the patient's events
    stay in order at every consumer; without one, the subject's do.
    """

    type: str
    subject: UUID
    aggregate_version: int
    data: Mapping[str, object]
    private: Mapping[str, object] | None = None
    patient_id: UUID | None = None
    occurred_at: datetime | None = None

    @property
    def partition_key(self) -> UUID:
        return self.patient_id or self.subject


def wire_instant(moment: datetime | None) -> str | None:
    """Return an instant as contracts write it: RFC 3339, in UTC, with a Z."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def wire_id(value: UUID | None) -> str | None:
    """Return an identifier as contracts write it."""
    return None if value is None else str(value)
