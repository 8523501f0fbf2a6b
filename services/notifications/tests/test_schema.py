"""The code's tables are the migrated database's tables."""

from clinic_notifications import tables
from clinic_shared.testing import ServiceHarness, assert_tables_match


async def test_tables_and_migrations_agree(notifications: ServiceHarness) -> None:
    await assert_tables_match(tables.metadata, notifications)
