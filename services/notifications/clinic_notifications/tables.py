"""Notifications' tables. Centres, departments, patients, consents and appointments are projections."""

from clinic_shared.encryption.fields import SealedFields, seal_columns
from clinic_shared.merges import patient_merge_table
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()

centre = Table(
    "centre",
    metadata,
    Column("centre_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("address", Text),
    Column("phone", Text),
    Column("time_zone", Text, nullable=False),
    Column("language", Text, nullable=False),
)
department = Table(
    "department",
    metadata,
    Column("department_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("centre_id", Uuid),
)
patient = Table(
    "patient",
    metadata,
    Column("patient_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("phones", ARRAY(Text), nullable=False),
    Column("emails", ARRAY(Text), nullable=False),
    Column("language", Text),
    Column("centre_id", Uuid),
    *seal_columns(),
)
consent = Table(
    "consent",
    metadata,
    Column("consent_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("channel", Text),
    Column("expires_at", DateTime(timezone=True)),
)
appointment = Table(
    "appointment",
    metadata,
    Column("appointment_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("centre_id", Uuid, nullable=False),
    Column("department_id", Uuid, nullable=False),
    Column("starts_at", DateTime(timezone=True), nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("service_name", Text),
)
patient_merge = patient_merge_table(metadata)
preference = Table(
    "preference",
    metadata,
    Column("patient_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("channels", ARRAY(Text), nullable=False),
    Column("opted_out", ARRAY(Text), nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)
staff_contact = Table(
    "staff_contact",
    metadata,
    Column("staff_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("phone", Text),
    Column("email", Text),
    Column("language", Text),
    Column("channels", ARRAY(Text), nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    *seal_columns(),
)
template = Table(
    "template",
    metadata,
    Column("template_id", Uuid, primary_key=True),
    Column("code", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("department_id", Uuid),
    Column("version", BigInteger, nullable=False),
    Column("subject", Text),
    Column("body", Text, nullable=False),
    Column("vendor_name", Text),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)
message = Table(
    "message",
    metadata,
    Column("message_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("patient_id", Uuid),
    Column("staff_id", Uuid),
    Column("channel", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("centre_id", Uuid),
    Column("department_id", Uuid),
    Column("about_type", Text, nullable=False),
    Column("about_id", Uuid, nullable=False),
    Column("about_version", BigInteger, nullable=False),
    Column("occurrence", Text, nullable=False),
    Column("step", SmallInteger, nullable=False),
    Column("facts", JSONB, nullable=False),
    Column("template_id", Uuid),
    Column("recipient", Text),
    Column("text", Text),
    Column("queued_at", DateTime(timezone=True), nullable=False),
    Column("send_at", DateTime(timezone=True), nullable=False),
    Column("useful_until_at", DateTime(timezone=True)),
    Column("sent_at", DateTime(timezone=True)),
    Column("delivered_at", DateTime(timezone=True)),
    Column("read_at", DateTime(timezone=True)),
    Column("failed_at", DateTime(timezone=True)),
    Column("failure_code", Text),
    Column("provider", Text),
    Column("provider_reference", Text),
    # The sender's own columns; leases and back-off go by the database's clock.
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("unknown_outcomes", Integer, nullable=False, server_default="0"),
    Column("call_open", Boolean, nullable=False, server_default="false"),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("last_error", Text),
    *seal_columns(),
)
joined_subject = Table(
    "joined_subject",
    metadata,
    Column("about_id", Uuid, primary_key=True),
    Column("about_type", Text, primary_key=True),
    Column("about_version", BigInteger, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("message_id", Uuid, nullable=False),
    Column("joined_at", DateTime(timezone=True), nullable=False),
)
delivery_status = Table(
    "delivery_status",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("provider_reference", Text, primary_key=True),
    Column("status", Text, primary_key=True),
    Column("message_id", Uuid),
    Column("failure_code", Text),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
)
reply = Table(
    "reply",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("provider_reference", Text, primary_key=True),
    Column("content", JSONB, nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    *seal_columns(),
)
callback = Table(
    "callback",
    metadata,
    Column("intake_id", Uuid, primary_key=True),
    Column("disposition", Text, nullable=False),
    Column("reason", Text),
    Column("decided_at", DateTime(timezone=True), nullable=False),
)

MESSAGE_ONCE = "message_once"
TEMPLATE_VERSION_ONCE = "template_version_once"

CONTACTS = SealedFields(patient, empty={"phones": [], "emails": []})
STAFF_CONTACTS = SealedFields(staff_contact, empty={"phone": None, "email": None})
WORDS = SealedFields(message, empty={"facts": {}, "recipient": None, "text": None})
REPLIES = SealedFields(reply, empty={"content": {}})
ENCRYPTED = tuple(fields.kind for fields in (CONTACTS, STAFF_CONTACTS, WORDS, REPLIES))
