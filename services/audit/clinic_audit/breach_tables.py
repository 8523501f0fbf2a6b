"""The tables of breaches; the log's own are in `tables.py`."""

from sqlalchemy import BigInteger, Column, DateTime, Table, Text, Uuid

from clinic_audit.tables import metadata

_INSTANT = DateTime(timezone=True)

breach = Table(
    "breach",
    metadata,
    Column("breach_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("jurisdiction", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("since", _INSTANT, nullable=False),
    Column("until", _INSTANT, nullable=False),
    Column("actor", Uuid),
    Column("action", Text),
    Column("service", Text),
    Column("resource_type", Text),
    Column("discovered_at", _INSTANT, nullable=False),
    Column("recorded_at", _INSTANT, nullable=False),
    Column("recorded_by", Uuid, nullable=False),
    Column("owner_id", Uuid, nullable=False),
    Column("close_asked_by", Uuid),
    Column("close_asked_at", _INSTANT),
    Column("conclusion", Text),
    Column("closed_by", Uuid),
    Column("closed_at", _INSTANT),
)
breach_clock = Table(
    "breach_clock",
    metadata,
    Column("breach_id", Uuid, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("basis", Text, nullable=False),
    Column("due_at", _INSTANT, nullable=False),
    Column("met_at", _INSTANT),
    Column("met_by", Uuid),
    Column("note", Text),
    Column("overdue_at", _INSTANT),
)
