"""The tables of access governance; identity's others are in `tables.py`."""

from sqlalchemy import BigInteger, Column, Table, Text, Uuid

from clinic_identity.tables import Instant, metadata

leaving = Table(
    "leaving",
    metadata,
    Column("staff_id", Uuid, primary_key=True),
    Column("ends_at", Instant, nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_by", Uuid, nullable=False),
    Column("set_at", Instant, nullable=False),
)
role_expiry = Table(
    "role_expiry",
    metadata,
    Column("staff_id", Uuid, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("expires_at", Instant, nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_by", Uuid, nullable=False),
    Column("set_at", Instant, nullable=False),
)
role_request = Table(
    "role_request",
    metadata,
    Column("decision_id", Uuid, primary_key=True),
    Column("staff_id", Uuid, nullable=False),
    Column("role", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_by", Uuid, nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("decided_by", Uuid),
    Column("decided_at", Instant),
    Column("decision_reason", Text),
)
account_use = Table(
    "account_use",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("last_used_at", Instant, nullable=False),
    Column("warned_at", Instant),
    Column("disabled_at", Instant),
)
access_review = Table(
    "access_review",
    metadata,
    Column("review_id", Uuid, primary_key=True),
    Column("department_id", Uuid, nullable=False),
    Column("opened_by", Uuid, nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("closed_at", Instant),
)
access_review_item = Table(
    "access_review_item",
    metadata,
    Column("review_id", Uuid, primary_key=True),
    Column("staff_id", Uuid, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("outcome", Text),
    Column("decided_by", Uuid),
    Column("decided_at", Instant),
    Column("reason", Text),
)
