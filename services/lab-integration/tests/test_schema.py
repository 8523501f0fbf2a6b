"""The code's tables are the migrated database's tables."""

from clinic_lab_integration import tables
from clinic_shared.testing import ServiceHarness, assert_tables_match


async def test_tables_and_migrations_agree(lab_integration: ServiceHarness) -> None:
    await assert_tables_match(tables.metadata, lab_integration)
