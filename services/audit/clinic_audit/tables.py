"""Audit's tables. By trigger `checkpoint` is append-only, and records leave `audit_record` only into archives."""

from clinic_shared.merges import patient_merge_table
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY

metadata = MetaData()

audit_record = Table(
    "audit_record",
    metadata,
    Column("leaf_index", BigInteger, primary_key=True),
    Column("producer", Text, nullable=False),
    Column("pseq", BigInteger, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Column("record_id", Uuid, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("agent", Uuid, nullable=False),
    Column("entity_type", Text, nullable=False),
    Column("entity_id", Text),
    Column("patient_id", Uuid),
    Column("request_id", Uuid),
    Column("agent_kind", Text),
)
patient_merge = patient_merge_table(metadata)
tree = Table(
    "tree",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("subtrees", ARRAY(LargeBinary), nullable=False),
)
checkpoint = Table(
    "checkpoint",
    metadata,
    Column("tree_size", BigInteger, primary_key=True),
    Column("checkpoint_id", Uuid, nullable=False),
    Column("log_origin", Text, nullable=False),
    Column("root_hash", LargeBinary, nullable=False),
    Column("signed_at", DateTime(timezone=True), nullable=False),
    Column("key_id", Text, nullable=False),
    Column("algorithm", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
feed = Table(
    "feed",
    metadata,
    Column("name", Text, primary_key=True),
    Column("next_index", BigInteger, nullable=False),
)
incident = Table(
    "incident",
    metadata,
    Column("incident_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("producer", Text),
    Column("pseq", BigInteger),
    Column("record", LargeBinary, nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("occurrences", Integer, nullable=False),
)
