"""The tables of cash desks."""

from sqlalchemy import BigInteger, Column, DateTime, Table, Text, Uuid

from clinic_billing.tables import metadata

cash_desk = Table(
    "cash_desk",
    metadata,
    Column("desk_id", Uuid, primary_key=True),
    Column("centre_id", Uuid, nullable=False),
    Column("legal_entity_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
)
shift = Table(
    "cash_shift",
    metadata,
    Column("shift_id", Uuid, primary_key=True),
    Column("desk_id", Uuid, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    Column("opened_by", Uuid, nullable=False),
    Column("counted_at_open_minor", BigInteger, nullable=False),
    Column("closed_at", DateTime(timezone=True)),
    Column("closed_by", Uuid),
    Column("expected_minor", BigInteger),
    Column("counted_minor", BigInteger),
    Column("terminal_minor", BigInteger),
)
SHIFT_OPEN_ONCE = "cash_shift_open_once"
