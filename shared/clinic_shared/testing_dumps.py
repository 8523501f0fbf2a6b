"""What somebody finds who has a service's database and none of its keys: every cell of every table is looked into."""

from sqlalchemy import text

from clinic_shared.database import Database

_TABLES = text("""
    SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
    WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1
""")


async def tables_that_show(database: Database, *canaries: str) -> dict[str, set[str]]:
    """Return which of the texts stand where, as text or in bytes, as a dump of the database has them."""
    found: dict[str, set[str]] = {}
    async with database.transaction() as tx:
        for table in [row.name for row in await tx.fetch_all(_TABLES)]:
            looking = text(
                f"SELECT EXISTS (SELECT 1 FROM {table} AS t WHERE strpos(t::text, :said) > 0 "  # noqa: S608
                "OR strpos(t::text, :bytes) > 0)"
            )
            for canary in canaries:
                wanted = {"said": canary, "bytes": canary.encode().hex()}
                if (await tx.execute(looking, wanted)).scalar_one():
                    found.setdefault(table.removeprefix("public."), set()).add(canary)
    return found
