"""The tables of receipts."""

from clinic_shared.encryption.fields import seal_columns
from sqlalchemy import BigInteger, Column, DateTime, Integer, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from clinic_billing.tables import metadata

receipt = Table(
    "receipt",
    metadata,
    # The movement's: one receipt for each.
    Column("receipt_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("operation", Text),
    Column("document", JSONB),
    Column("total_minor", BigInteger),
    Column("invoice_id", Uuid),
    Column("payment_id", Uuid),
    Column("patient_id", Uuid),
    Column("legal_entity_id", Uuid, nullable=False),
    Column("owed_at", DateTime(timezone=True), nullable=False),
    Column("submission", Integer, nullable=False),
    Column("reference", Text),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False),
    Column("last_error", Text),
    Column("overdue_at", DateTime(timezone=True)),
    Column("fiscal_storage", Text),
    Column("shift_number", Integer),
    Column("receipt_number", Integer),
    Column("document_number", Text),
    Column("document_sign", Text),
    Column("registered_at", DateTime(timezone=True)),
    *seal_columns(),
)
fiscal_profile = Table(
    "fiscal_profile",
    metadata,
    Column("legal_entity_id", Uuid, primary_key=True),
    Column("inn", Text, nullable=False),
    Column("taxation", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("payment_address", Text, nullable=False),
    Column("group_code", Text, nullable=False),
)
