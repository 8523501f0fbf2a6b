"""Scheduling's tables. Practitioners, centres, departments, patients and referrals are projections."""

from clinic_shared.care import care_relationship_table
from clinic_shared.merges import patient_merge_table
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Interval,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Time,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSTZRANGE

metadata = MetaData()

centre = Table(
    "centre",
    metadata,
    Column("centre_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("active", Boolean, nullable=False),
)
department = Table(
    "department",
    metadata,
    Column("department_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("centre_id", Uuid, nullable=False),
    Column("active", Boolean, nullable=False),
)
patient = Table(
    "patient",
    metadata,
    Column("patient_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("active", Boolean, nullable=False),
)
referral = Table(
    "referral",
    metadata,
    Column("referral_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("to_department_id", Uuid, nullable=False),
)
service = Table(
    "service",
    metadata,
    Column("service_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("duration", Interval, nullable=False),
    Column("department_ids", ARRAY(Uuid), nullable=False),
    Column("needs", ARRAY(Text), nullable=False),
    Column("online_bookable", Boolean, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("defined_at", DateTime(timezone=True), nullable=False),
)
resource = Table(
    "resource",
    metadata,
    Column("resource_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text),
    Column("centre_id", Uuid),
    Column("department_ids", ARRAY(Uuid), nullable=False),
    Column("active", Boolean, nullable=False),
)
weekly_hours = Table(
    "weekly_hours",
    metadata,
    Column("weekly_hours_id", Uuid, primary_key=True),
    Column("practitioner_id", Uuid, nullable=False),
    Column("centre_id", Uuid, nullable=False),
    Column("weekday", SmallInteger, nullable=False),
    Column("starts_local", Time, nullable=False),
    Column("ends_local", Time, nullable=False),
    Column("valid_from", Date, nullable=False),
    Column("valid_until", Date),
)
availability_exception = Table(
    "availability_exception",
    metadata,
    Column("exception_id", Uuid, primary_key=True),
    Column("practitioner_id", Uuid, nullable=False),
    Column("centre_id", Uuid, nullable=False),
    Column("opens", Boolean, nullable=False),
    Column("during", TSTZRANGE, nullable=False),
    Column("reason_code", Text),
)
appointment = Table(
    "appointment",
    metadata,
    Column("appointment_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("practitioner_id", Uuid),
    Column("room_id", Uuid),
    Column("device_ids", ARRAY(Uuid), nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("service_code", Text, nullable=False),
    Column("centre_id", Uuid, nullable=False),
    Column("department_id", Uuid, nullable=False),
    Column("starts_at", DateTime(timezone=True), nullable=False),
    Column("ends_at", DateTime(timezone=True), nullable=False),
    Column("referral_id", Uuid),
    Column("booked_through", Text, nullable=False),
    Column("reason", Text),
    Column("booked_at", DateTime(timezone=True), nullable=False),
    Column("confirmed_at", DateTime(timezone=True)),
    Column("arrived_at", DateTime(timezone=True)),
    Column("completed_at", DateTime(timezone=True)),
    Column("cancelled_at", DateTime(timezone=True)),
    Column("missed_at", DateTime(timezone=True)),
    Column("cancellation_reason_code", Text),
)
allocation = Table(
    "allocation",
    metadata,
    Column("appointment_id", Uuid, primary_key=True),
    Column("resource_id", Uuid, primary_key=True),
    Column("during", TSTZRANGE, nullable=False),
)

NO_OVERLAP = "allocation_no_overlap"
SERVICE_CODE_ONCE = "service_code_once"
care_relationship = care_relationship_table(metadata)
patient_merge = patient_merge_table(metadata)
