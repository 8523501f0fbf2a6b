"""The tables of detection; the log's own are in `tables.py`."""

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, Integer, LargeBinary, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from clinic_audit.tables import metadata

_INSTANT = DateTime(timezone=True)

known_staff = Table(
    "known_staff",
    metadata,
    Column("staff_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("family", LargeBinary),
    Column("full_name", LargeBinary),
)
known_patient = Table(
    "known_patient",
    metadata,
    Column("patient_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("family", LargeBinary),
    Column("full_name", LargeBinary),
)
watched_patient = Table(
    "watched_patient",
    metadata,
    Column("patient_id", Uuid, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("added_by", Uuid, nullable=False),
    Column("added_at", _INSTANT, nullable=False),
)
workday = Table(
    "workday",
    metadata,
    Column("person", Uuid, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("peers", Text, nullable=False),
    Column("patients", Integer, nullable=False),
    Column("busiest_hour", Integer, nullable=False),
    Column("hours", Integer, nullable=False),
)
suspicion = Table(
    "suspicion",
    metadata,
    Column("suspicion_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("occasion", Text, nullable=False, unique=True),
    Column("rule", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("person", Uuid, nullable=False),
    Column("patient_id", Uuid),
    Column("first_at", _INSTANT, nullable=False),
    Column("last_at", _INSTANT, nullable=False),
    Column("records", ARRAY(BigInteger), nullable=False),
    Column("figures", JSONB, nullable=False),
    Column("detected_at", _INSTANT, nullable=False),
    Column("review_due_at", _INSTANT, nullable=False),
    Column("taken_by", Uuid),
    Column("taken_at", _INSTANT),
    Column("closed_by", Uuid),
    Column("closed_at", _INSTANT),
    Column("finding", Text),
    Column("comment", Text),
)
