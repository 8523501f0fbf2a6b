"""Billing's tables. Centres, departments, patients and services are projections."""

from clinic_shared.encryption.fields import SealedFields, seal_columns
from clinic_shared.merges import patient_merge_table
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import DATERANGE

metadata = MetaData()

centre = Table(
    "centre",
    metadata,
    Column("centre_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("legal_entity_id", Uuid, nullable=False),
    Column("legal_entity_name", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("active", Boolean, nullable=False),
)
department = Table(
    "department",
    metadata,
    Column("department_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("centre_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
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
service = Table(
    "service",
    metadata,
    Column("service_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("active", Boolean, nullable=False),
)
price = Table(
    "price",
    metadata,
    Column("price_id", Uuid, primary_key=True),
    Column("centre_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("service_code", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("valid", DATERANGE, nullable=False),
    Column("set_at", DateTime(timezone=True), nullable=False),
    Column("department_id", Uuid),
    Column("payer", Text, nullable=False),
    Column("list_id", Uuid),
)
charge_item = Table(
    "charge_item",
    metadata,
    Column("appointment_id", Uuid, primary_key=True),
    Column("patient_id", Uuid, nullable=False),
    Column("centre_id", Uuid, nullable=False),
    Column("department_id", Uuid, nullable=False),
    Column("service_code", Text, nullable=False),
    Column("rendered_on", Date, nullable=False),
    Column("status", Text, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
)
cancelled_lab_order = Table(
    "cancelled_lab_order",
    metadata,
    Column("lab_order_id", Uuid, primary_key=True),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
)
invoice_number = Table(
    "invoice_number",
    metadata,
    Column("legal_entity_id", Uuid, primary_key=True),
    Column("year", SmallInteger, primary_key=True),
    Column("last", Integer, nullable=False),
)
invoice = Table(
    "invoice",
    metadata,
    Column("invoice_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("number", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("appointment_id", Uuid),
    Column("lab_order_id", Uuid),
    Column("centre_id", Uuid, nullable=False),
    Column("department_id", Uuid, nullable=False),
    Column("legal_entity_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("paid_minor", BigInteger, nullable=False),
    Column("issued_at", DateTime(timezone=True), nullable=False),
    Column("due_on", Date, nullable=False),
    Column("attention", Text),
    Column("kind", Text, nullable=False),
    Column("for_appointment_id", Uuid),
    Column("applied_minor", BigInteger, nullable=False),
    Column("written_off_minor", BigInteger, nullable=False),
    Column("payer", Text, nullable=False),
)
invoice_line = Table(
    "invoice_line",
    metadata,
    Column("invoice_id", Uuid, primary_key=True),
    Column("position", SmallInteger, primary_key=True),
    Column("service_code", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("unit_amount_minor", BigInteger, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("list_unit_amount_minor", BigInteger),
    Column("discount_code", Text),
)
payment = Table(
    "payment",
    metadata,
    Column("payment_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("invoice_id", Uuid, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("provider_reference", Text),
    Column("client_secret", Text),
    Column("confirmation_url", Text),
    Column("refunded_minor", BigInteger, nullable=False),
    Column("refunding_minor", BigInteger, nullable=False),
    Column("failure_code", Text),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("received_at", DateTime(timezone=True)),
    Column("desk_id", Uuid),
    Column("shift_id", Uuid),
    Column("receipt_contact", Text),
    *seal_columns(),
)
refund = Table(
    "refund",
    metadata,
    Column("refund_id", Uuid, primary_key=True),
    Column("payment_id", Uuid, nullable=False),
    Column("status", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("provider_reference", Text),
    Column("failure_code", Text),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("refunded_at", DateTime(timezone=True)),
    Column("requested_by", Uuid),
    Column("decided_by", Uuid),
    Column("shift_id", Uuid),
)
advance_application = Table(
    "advance_application",
    metadata,
    Column("application_id", Uuid, primary_key=True),
    Column("advance_id", Uuid, nullable=False),
    Column("invoice_id", Uuid, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("applied_at", DateTime(timezone=True), nullable=False),
)
write_off = Table(
    "write_off",
    metadata,
    Column("write_off_id", Uuid, primary_key=True),
    Column("invoice_id", Uuid, nullable=False),
    Column("status", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("requested_by", Uuid, nullable=False),
    Column("decided_by", Uuid),
    Column("decided_at", DateTime(timezone=True)),
)
provider_call = Table(
    "provider_call",
    metadata,
    Column("call_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False),
    Column("last_error", Text),
)
unheard_payment = Table(
    "unheard_payment",
    metadata,
    Column("payment_id", Uuid, primary_key=True),
    Column("readings", Integer, nullable=False),
    Column("next_reading_at", DateTime(timezone=True), nullable=False),
    Column("last_error", Text),
)
ledger_movement = Table(
    "ledger_movement",
    metadata,
    Column("movement_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("source_id", Uuid, nullable=False),
    Column("legal_entity_id", Uuid, nullable=False),
    Column("booked_at", DateTime(timezone=True), nullable=False),
)
ledger_entry = Table(
    "ledger_entry",
    metadata,
    Column("movement_id", Uuid, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
)
provider_event = Table(
    "provider_event",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("intake_id", Uuid, nullable=False),
)
notification = Table(
    "notification",
    metadata,
    Column("intake_id", Uuid, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("disposition", Text, nullable=False),
    Column("reason", Text),
    Column("claim", Text, nullable=False),
    Column("payment_reference", Text),
    Column("error", Text),
    Column("payment_id", Uuid),
    Column("decided_at", DateTime(timezone=True), nullable=False),
)

PRICE_ONE_AT_A_TIME = "price_one_at_a_time"
PAYMENT_PENDING_ONCE = "payment_pending_once"

PAYER_CONTACT = SealedFields(payment, empty={"receipt_contact": None})
