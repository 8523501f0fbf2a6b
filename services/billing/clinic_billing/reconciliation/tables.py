"""The tables of reconciliation."""

from clinic_shared.encryption.fields import SealedFields, seal_columns
from sqlalchemy import BigInteger, Column, Date, DateTime, Integer, LargeBinary, Table, Text, Uuid

from clinic_billing.tables import metadata

bank_statement = Table(
    "bank_statement",
    metadata,
    Column("statement_id", Uuid, primary_key=True),
    Column("legal_entity_id", Uuid, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("format", Text, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("imported_at", DateTime(timezone=True), nullable=False),
    Column("imported_by", Uuid, nullable=False),
)
bank_line = Table(
    "bank_line",
    metadata,
    Column("line_id", Uuid, primary_key=True),
    Column("statement_id", Uuid, nullable=False),
    Column("legal_entity_id", Uuid, nullable=False),
    Column("bank_reference", Text, nullable=False),
    Column("booked_on", Date, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("counterparty", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    *seal_columns(),
)
run = Table(
    "reconciliation_run",
    metadata,
    Column("day", Date, primary_key=True),
    Column("ran_at", DateTime(timezone=True), nullable=False),
    Column("providers_asked", Integer, nullable=False),
    Column("providers_away", Integer, nullable=False),
)
discrepancy = Table(
    "discrepancy",
    metadata,
    Column("discrepancy_id", Uuid, primary_key=True),
    Column("day", Date, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("provider", Text),
    Column("expected_minor", BigInteger),
    Column("found_minor", BigInteger),
    Column("currency", Text),
    Column("found_at", DateTime(timezone=True), nullable=False),
    Column("state", Text, nullable=False),
    Column("settled_at", DateTime(timezone=True)),
    Column("settled_by", Uuid),
    Column("note", Text),
)

PAYER = SealedFields(bank_line, empty={"counterparty": "", "purpose": ""})
