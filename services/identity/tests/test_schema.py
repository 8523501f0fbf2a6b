"""The code's tables are the migrated database's tables."""

from clinic_identity import governance_tables, tables  # noqa: F401  # registers its own
from clinic_shared.testing import ServiceHarness, assert_tables_match


async def test_tables_and_migrations_agree(identity: ServiceHarness) -> None:
    await assert_tables_match(tables.metadata, identity)
