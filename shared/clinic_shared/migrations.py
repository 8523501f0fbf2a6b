"""Bringing a service's database up to date: the runtime's own tables first, then the service's.

Each has its own Alembic history (`versions/`) and version table. Runs under an advisory lock, so
that replicas may all try. Migrations are expand/contract: the release before must keep working.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError

from clinic_shared.partition_upkeep import create_missing

RUNTIME_DIR = Path(__file__).parent / "runtime_migrations"
RUNTIME_VERSION_TABLE = "alembic_version_runtime"
SERVICE_VERSION_TABLE = "alembic_version"
LOCK_TIMEOUT_SECONDS = 3
"""Longer than a request's transaction, shorter than what a client waits: all others queue behind the waiting one."""
ATTEMPTS = 60
PAUSE_SECONDS = 1.0
_LOCK = 0x0C11_71C0


# Events are kept in the copies of a read model too, which have the old shape from here on.
_GIVE_COPIES_UP = text("""
    UPDATE rebuild SET state = CASE state WHEN 'swapped' THEN 'done' ELSE 'failed' END,
        failure = CASE state WHEN 'swapped' THEN failure ELSE 'a migration changed the tables' END,
        finished_at = coalesce(finished_at, now())
    WHERE state IN ('filling', 'comparing', 'swapped')
""")


def migrate(sqlalchemy_url: str, migrations_dir: Path) -> None:
    """Apply what is missing. Safe to run twice and from several processes at once.

    Beside a running release: a statement that can't get its lock gives up before others queue behind it, and is
    tried again.
    """
    with _locked(sqlalchemy_url) as connection:
        _patiently(connection, lambda: _upgrade(connection, RUNTIME_DIR, RUNTIME_VERSION_TABLE))
        if not _has_all(connection, migrations_dir, SERVICE_VERSION_TABLE):
            connection.execute(_GIVE_COPIES_UP)
        connection.commit()
        _patiently(connection, lambda: _upgrade(connection, migrations_dir, SERVICE_VERSION_TABLE))
        _patiently(connection, lambda: create_missing(connection, datetime.now(UTC)))


def _patiently(connection: Connection, work: Callable[[], None]) -> None:
    """Do it again while its lock can't be had: each migration commits by itself, so it goes on where it was."""
    for attempt in range(ATTEMPTS):
        try:
            work()
        except OperationalError as error:
            connection.rollback()
            if not isinstance(error.orig, LockNotAvailable) or attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            return


@contextmanager
def _locked(sqlalchemy_url: str) -> Iterator[Connection]:
    engine = create_engine(
        sqlalchemy_url, connect_args={"options": f"-c lock_timeout={LOCK_TIMEOUT_SECONDS}s"}
    )
    try:
        with engine.connect() as lock_holder, engine.connect() as connection:
            # A lock of the session on a connection of its own: the migrations commit one by one.
            lock_holder.execution_options(isolation_level="AUTOCOMMIT")
            lock_holder.execute(text("SET lock_timeout = 0"))
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
    return _has_all(connection, RUNTIME_DIR, RUNTIME_VERSION_TABLE) and _has_all(
        connection, migrations_dir, SERVICE_VERSION_TABLE
    )


def _has_all(connection: Connection, directory: Path, version_table: str) -> bool:
    current = MigrationContext.configure(connection, opts={"version_table": version_table})
    return current.get_current_heads() >= tuple(ScriptDirectory(str(directory)).get_heads())
