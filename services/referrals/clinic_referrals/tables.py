"""Referrals' tables. Departments, practitioners and patients are projections."""

from clinic_shared.encryption.fields import SealedFields, seal_columns
from clinic_shared.merges import patient_merge_table
from sqlalchemy import BigInteger, Boolean, Column, DateTime, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY

metadata = MetaData()

department = Table(
    "department",
    metadata,
    Column("department_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("centre_id", Uuid, nullable=False),
    Column("active", Boolean, nullable=False),
)
practitioner = Table(
    "practitioner",
    metadata,
    Column("practitioner_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("department_ids", ARRAY(Uuid), nullable=False),
    Column("active", Boolean, nullable=False),
)
patient = Table(
    "patient",
    metadata,
    Column("patient_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("active", Boolean, nullable=False),
)
patient_merge = patient_merge_table(metadata)
referral = Table(
    "referral",
    metadata,
    Column("referral_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("priority", Text, nullable=False),
    Column("from_centre_id", Uuid, nullable=False),
    Column("from_department_id", Uuid, nullable=False),
    Column("from_practitioner_id", Uuid),
    Column("to_centre_id", Uuid, nullable=False),
    Column("to_department_id", Uuid, nullable=False),
    Column("to_practitioner_id", Uuid),
    Column("service_code", Text),
    Column("source_encounter_id", Uuid),
    Column("question", Text),
    Column("appointment_id", Uuid),
    Column("encounter_id", Uuid),
    Column("outcome", Text),
    Column("decline_comment", Text),
    Column("decline_reason_code", Text),
    Column("close_reason_code", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("accepted_at", DateTime(timezone=True)),
    Column("declined_at", DateTime(timezone=True)),
    Column("booked_at", DateTime(timezone=True)),
    Column("seen_at", DateTime(timezone=True)),
    Column("reported_at", DateTime(timezone=True)),
    Column("closed_at", DateTime(timezone=True)),
    *seal_columns(),
)

WORDS = SealedFields(referral, empty={"question": None, "outcome": None, "decline_comment": None})
