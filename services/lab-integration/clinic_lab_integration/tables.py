"""Lab-integration's tables. Partners' secrets, patients, orders' places and appointments are projections.

The messages themselves are rows of the runtime's `intake`: raw bytes, sender, answer.
"""

from clinic_shared.care import care_relationship_table
from clinic_shared.encryption.fields import seal_columns
from clinic_shared.merges import patient_merge_table
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()

json_or_null = JSONB(none_as_null=True)

# -- projections

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
    Column("family", Text),
    Column("given", Text),
    Column("patronymic", Text),
    Column("birth_on", Date),
    Column("sex", Text),
    Column("family_key", Text),
    Column("given_key", Text),
    Column("birth_key", Text),
    *seal_columns(),
)
patient_merge = patient_merge_table(metadata)
patient_identifier = Table(
    "patient_identifier",
    metadata,
    Column("authority", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("patient_id", Uuid, primary_key=True),
    *seal_columns(),
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
)
partner = Table(
    "partner",
    metadata,
    Column("partner_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("secret_digests", ARRAY(Text), nullable=False),
)

# -- own

partner_configuration = Table(
    "partner_configuration",
    metadata,
    Column("partner_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("time_zone", Text),
    Column("default_charset", Text),
    Column("identifier_authorities", JSONB, nullable=False),
    Column("default_department_id", Uuid),
    Column("critical_acknowledge_seconds", Integer, nullable=False),
    Column("connection", JSONB, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)
lab_callback = Table(
    "lab_callback",
    metadata,
    Column("callback_id", Uuid, primary_key=True),
    Column("partner_id", Uuid, nullable=False),
    Column("message_id", Uuid, nullable=False),
    Column("group_index", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False),
    Column("last_status", Integer),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("delivered_at", DateTime(timezone=True)),
)
onboarding_case = Table(
    "onboarding_case",
    metadata,
    Column("partner_id", Uuid, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("message_id", Uuid, nullable=False),
    Column("passed_at", DateTime(timezone=True), nullable=False),
)
lab_order = Table(
    "lab_order",
    metadata,
    Column("lab_order_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("placer_order_number", Text, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("partner_id", Uuid, nullable=False),
    Column("practitioner_id", Uuid, nullable=False),
    Column("centre_id", Uuid, nullable=False),
    Column("department_id", Uuid, nullable=False),
    Column("appointment_id", Uuid),
    Column("encounter_id", Uuid),
    Column("referral_id", Uuid),
    Column("priority", Text, nullable=False),
    Column("tests", JSONB, nullable=False),
    Column("clinical_note", Text),
    Column("placed_at", DateTime(timezone=True), nullable=False),
    Column("cancelled_at", DateTime(timezone=True)),
    Column("cancelled_by", Uuid),
    Column("cancellation_reason", Text),
)
order_destination = Table(
    "order_destination",
    metadata,
    Column("partner_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("format", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("sending_application", Text, nullable=False),
    Column("sending_facility", Text, nullable=False),
    Column("receiving_application", Text, nullable=False),
    Column("receiving_facility", Text, nullable=False),
    Column("processing_id", Text, nullable=False),
    Column("country", Text),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)
order_transmission = Table(
    "order_transmission",
    metadata,
    Column("transmission_id", Uuid, primary_key=True),
    Column("lab_order_id", Uuid, nullable=False),
    Column("partner_id", Uuid, nullable=False),
    Column("action", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("control_id", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False),
    Column("settled_at", DateTime(timezone=True)),
    Column("answer_code", Text),
    Column("last_error", Text),
)
lab_unit = Table(
    "lab_unit",
    metadata,
    Column("message_id", Uuid, primary_key=True),
    Column("group_index", Integer, primary_key=True),
    Column("partner_id", Uuid, nullable=False),
    Column("interface", Text, nullable=False),
    Column("disposition", Text, nullable=False),
    Column("reason", Text),
    Column("patient_id", Uuid),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("settled_at", DateTime(timezone=True)),
    Column("decided_by", Uuid),
    Column("decision_reason", Text),
    Column("note", Text),
    Column("noted_by", Uuid),
    Column("noted_at", DateTime(timezone=True)),
)
unit_report = Table(
    "unit_report",
    metadata,
    Column("message_id", Uuid, primary_key=True),
    Column("group_index", Integer, primary_key=True),
    Column("report_index", Integer, primary_key=True),
    Column("disposition", Text, nullable=False),
    Column("reason", Text),
    Column("result_id", Uuid),
    Column("result_version", BigInteger),
    Column("filed_at", DateTime(timezone=True)),
)
wanted_key = Table(
    "wanted_key",
    metadata,
    Column("message_id", Uuid, primary_key=True),
    Column("group_index", Integer, primary_key=True),
    Column("authority", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    *seal_columns(),
)
lab_result = Table(
    "lab_result",
    metadata,
    Column("result_id", Uuid, primary_key=True),
    Column("partner_id", Uuid, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("report_key", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("lab_order_id", Uuid),
)
lab_result_version = Table(
    "lab_result_version",
    metadata,
    Column("result_id", Uuid, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("status", Text, nullable=False),
    Column("retraction_reason_code", Text),
    Column("message_id", Uuid, nullable=False),
    Column("group_index", Integer, nullable=False),
    Column("report_index", Integer, nullable=False),
    Column("placer_order_number", Text),
    Column("filler_order_number", Text),
    Column("parent_filler_order_number", Text),
    Column("code", Text),
    Column("system", Text),
    Column("display", Text),
    Column("collected_at", DateTime(timezone=True)),
    Column("reported_at", DateTime(timezone=True)),
    Column("sent_at", DateTime(timezone=True)),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("observation_count", Integer, nullable=False),
    Column("abnormal_count", Integer, nullable=False),
    Column("critical_count", Integer, nullable=False),
    Column("content", json_or_null),
    Column("meanings", json_or_null),
    Column("filed_at", DateTime(timezone=True)),
)
obligation = Table(
    "obligation",
    metadata,
    Column("obligation_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("result_id", Uuid, nullable=False),
    Column("result_version", BigInteger, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("partner_id", Uuid, nullable=False),
    Column("lab_order_id", Uuid),
    Column("practitioner_id", Uuid),
    Column("centre_id", Uuid),
    Column("department_id", Uuid),
    Column("reader_id", Uuid),
    Column("seconds", Integer, nullable=False),
    Column("owner_role", Text, nullable=False),
    Column("owner_id", Uuid),
    Column("raised_at", DateTime(timezone=True), nullable=False),
    Column("acknowledge_by_at", DateTime(timezone=True), nullable=False),
    Column("due_at", DateTime(timezone=True), nullable=False),
    Column("escalations", Integer, nullable=False),
    Column("acknowledged_at", DateTime(timezone=True)),
    Column("acknowledged_by", Uuid),
    Column("comment", Text),
)
duty = Table(
    "duty",
    metadata,
    Column("department_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("head_id", Uuid),
    Column("on_call_id", Uuid),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)
code_map_version = Table(
    "code_map_version",
    metadata,
    Column("partner_id", Uuid, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    Column("changed_by", Uuid, nullable=False),
)
code_map_entry = Table(
    "code_map_entry",
    metadata,
    Column("entry_id", Uuid, primary_key=True),
    Column("partner_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("source_system", Text, nullable=False),
    Column("source_code", Text, nullable=False),
    Column("since_version", BigInteger, nullable=False),
    Column("until_version", BigInteger),
    Column("code", Text, nullable=False),
    Column("display", Text),
    Column("unit", Text),
)
unmapped_code = Table(
    "unmapped_code",
    metadata,
    Column("unmapped_id", Uuid, primary_key=True),
    Column("partner_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("source_system", Text, nullable=False),
    Column("source_code", Text, nullable=False),
    Column("display", Text),
    Column("message_id", Uuid, nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False),
)
panic_range = Table(
    "panic_range",
    metadata,
    Column("code", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("display", Text),
    Column("unit", Text),
    Column("low", Numeric),
    Column("high", Numeric),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)
incident = Table(
    "incident",
    metadata,
    Column("incident_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("partner_id", Uuid, nullable=False),
    Column("message_id", Uuid, nullable=False),
    Column("earlier_message_id", Uuid, nullable=False),
    Column("owner_id", Uuid),
    Column("raised_at", DateTime(timezone=True), nullable=False),
    Column("settled_at", DateTime(timezone=True)),
    Column("note", Text),
)
care_relationship = care_relationship_table(metadata)
