"""The tables beside `price` that say what things cost."""

from sqlalchemy import BigInteger, Column, Date, DateTime, Integer, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import DATERANGE, JSONB

from clinic_billing.tables import metadata

price_list = Table(
    "price_list",
    metadata,
    Column("list_id", Uuid, primary_key=True),
    Column("centre_id", Uuid, nullable=False),
    Column("department_id", Uuid),
    Column("payer", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("valid_from", Date, nullable=False),
    Column("prices", Integer, nullable=False),
    Column("published_at", DateTime(timezone=True), nullable=False),
    Column("published_by", Uuid, nullable=False),
)
discount = Table(
    "discount",
    metadata,
    Column("discount_id", Uuid, primary_key=True),
    Column("centre_id", Uuid, nullable=False),
    Column("code", Text, nullable=False),
    Column("service_code", Text),
    Column("patient_id", Uuid),
    Column("basis_points", Integer, nullable=False),
    Column("valid", DATERANGE, nullable=False),
    Column("set_at", DateTime(timezone=True), nullable=False),
    Column("set_by", Uuid, nullable=False),
)
coverage = Table(
    "coverage",
    metadata,
    Column("coverage_id", Uuid, primary_key=True),
    Column("patient_id", Uuid, nullable=False),
    Column("payer", Text, nullable=False),
    Column("valid", DATERANGE, nullable=False),
    Column("set_at", DateTime(timezone=True), nullable=False),
)
package = Table(
    "package",
    metadata,
    Column("package_id", Uuid, primary_key=True),
    Column("centre_id", Uuid, nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("items", JSONB, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("defined_at", DateTime(timezone=True), nullable=False),
    Column("withdrawn_at", DateTime(timezone=True)),
)
entitlement = Table(
    "package_entitlement",
    metadata,
    Column("advance_id", Uuid, primary_key=True),
    Column("service_code", Text, primary_key=True),
    Column("patient_id", Uuid, nullable=False),
    Column("legal_entity_id", Uuid, nullable=False),
    Column("unit_amount_minor", BigInteger, nullable=False),
    Column("bought", Integer, nullable=False),
    Column("used", Integer, nullable=False),
)
COVERAGE_ONE_AT_A_TIME = "coverage_one_at_a_time"
