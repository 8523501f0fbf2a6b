"""Bringing a service's database up to date: the runtime's own tables first, then the service's.

Each has its own Alembic history (`versions/`) and version table. Runs under an advisory lock, so
that replicas may all try. Migrations are expand/contract: the release before must keep working.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from clinic_shared.ids import uuid7_floor

RUNTIME_DIR = Path(__file__).parent / "runtime_migrations"
RUNTIME_VERSION_TABLE = "alembic_version_runtime"
SERVICE_VERSION_TABLE = "alembic_version"
MONTHS_AHEAD = 3
_LOCK = 0x0C11_71C0


def migrate(sqlalchemy_url: str, migrations_dir: Path) -> None:
    """Apply what is missing. Safe to run twice and from several processes at once."""
    with _locked(sqlalchemy_url) as connection:
        _upgrade(connection, RUNTIME_DIR, RUNTIME_VERSION_TABLE)
        _upgrade(connection, migrations_dir, SERVICE_VERSION_TABLE)
        ensure_partitions(connection, datetime.now(UTC))


@contextmanager
def _locked(sqlalchemy_url: str) -> Iterator[Connection]:
    engine = create_engine(sqlalchemy_url, connect_args={"options": "-c lock_timeout=60000"})
    try:
        with engine.connect() as lock_holder, engine.connect() as connection:
            # A lock of the session on a connection of its own: the migrations commit one by one.
            lock_holder.execution_options(isolation_level="AUTOCOMMIT")
            lock_holder.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            yield connection
    finally:
        engine.dispose()


def _upgrade(connection: Connection, directory: Path, version_table: str) -> None:
    script = ScriptDirectory(str(directory))
    with EnvironmentContext(
        Config(),
        script,
        fn=lambda revision, _: script._upgrade_revs("head", revision),  # noqa: SLF001
    ) as environment:
        environment.configure(
            connection=connection, version_table=version_table, transaction_per_migration=True
        )
        with environment.begin_transaction():
            environment.run_migrations()
    connection.commit()


def is_current(connection: Connection, migrations_dir: Path) -> bool:
    """Tell whether this code's migrations are all applied (readiness)."""
    return all(
        MigrationContext.configure(connection, opts={"version_table": table}).get_current_heads()
        >= tuple(ScriptDirectory(str(directory)).get_heads())
        for directory, table in (
            (RUNTIME_DIR, RUNTIME_VERSION_TABLE),
            (migrations_dir, SERVICE_VERSION_TABLE),
        )
    )


def ensure_partitions(connection: Connection, now: datetime) -> None:
    """Create this month's partitions of the event log and inbox, and those of the months to come."""
    month = datetime(now.year, now.month, 1, tzinfo=UTC)
    for _ in range(MONTHS_AHEAD + 1):
        following = datetime(month.year + month.month // 12, month.month % 12 + 1, 1, tzinfo=UTC)
        for table in ("event", "inbox"):
            connection.execute(
                text(
                    f"CREATE TABLE IF NOT EXISTS {table}_{month:%Y_%m} PARTITION OF {table} "
                    f"FOR VALUES FROM ('{uuid7_floor(month)}') TO ('{uuid7_floor(following)}')"
                )
            )
        month = following
    connection.commit()
