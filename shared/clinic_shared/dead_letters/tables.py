"""Redrive runs with their messages, and decisions that wait for a second person."""

from sqlalchemy import ARRAY, BigInteger, Column, DateTime, Integer, Table, Text, Uuid, func

from clinic_shared.events import runtime_metadata

run_table = Table(
    "redrive_run",
    runtime_metadata,
    Column("run_id", Uuid, primary_key=True),
    Column("state", Text, nullable=False),
    Column("cause", Text),
    Column("total", Integer, nullable=False),
    Column("rate_per_second", Integer, nullable=False),
    Column("reason", Text),
    Column("requested_by", Uuid, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("next_item_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("worker", Uuid),
    Column("leased_until", DateTime(timezone=True)),
    Column("cancelled_by", Uuid),
    Column("finished_at", DateTime(timezone=True)),
)
"""`next_item_at` and the lease are by the database's clock, all else by that of the business."""

item_table = Table(
    "redrive_item",
    runtime_metadata,
    Column("run_id", Uuid, primary_key=True),
    Column("held_id", BigInteger, primary_key=True),
    Column("place", BigInteger, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("partition_key", Uuid, nullable=False),
    Column("state", Text, nullable=False, server_default="waiting"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("error", Text),
    Column("settled_at", DateTime(timezone=True)),
)
"""`place` orders a key's messages; what became of one is written in the transaction in which it became so."""

decision_table = Table(
    "dead_letter_decision",
    runtime_metadata,
    Column("decision_id", Uuid, primary_key=True),
    Column("state", Text, nullable=False),
    Column("held_ids", ARRAY(BigInteger), nullable=False),
    Column("cause", Text),
    Column("reason", Text, nullable=False),
    Column("requested_by", Uuid, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("decided_by", Uuid),
    Column("decided_at", DateTime(timezone=True)),
    Column("decision_reason", Text),
)
