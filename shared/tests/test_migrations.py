"""A migration beside a running release: it doesn't queue everybody behind a lock that it can't get."""

import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from clinic_shared import migrations
from clinic_shared.consumer import Handlers
from clinic_shared.migrations import migrate
from clinic_shared.service import Service

FIRST = """
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.execute("CREATE TABLE thing (id integer PRIMARY KEY)")
"""
SECOND = """
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.execute("ALTER TABLE thing ADD COLUMN note text")
"""

WAITING = """
    SELECT 1 FROM pg_locks JOIN pg_class ON pg_class.oid = relation WHERE relname = 'thing' AND NOT granted
"""


@pytest.fixture
def service(tmp_path: Path) -> Service:
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    (tmp_path / "migrations" / "versions" / "0001_first.py").write_text(FIRST, encoding="utf-8")
    return Service(name="patients", package_dir=tmp_path / "code", routers=(), handlers=Handlers("patients"))


def test_it_gives_up_before_others_wait_and_tries_again(
    service: Service, database_of: Callable[[Service], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database_of(service)
    (service.migrations_dir / "versions" / "0002_second.py").write_text(SECOND, encoding="utf-8")
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_SECONDS", 1)
    monkeypatch.setattr(migrations, "PAUSE_SECONDS", 0.2)
    migrating = threading.Thread(
        target=migrate, args=(url.replace("postgresql:", "postgresql+psycopg:", 1), service.migrations_dir)
    )
    with psycopg.connect(url) as long_running:
        long_running.execute("SELECT * FROM thing")
        migrating.start()
        with psycopg.connect(url, autocommit=True, options="-c lock_timeout=5000") as other:
            while not other.execute(WAITING).fetchone():
                assert migrating.is_alive()
            # Queues behind the migration, and gets through once that gives up.
            other.execute("INSERT INTO thing VALUES (1)")
    migrating.join(30)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT id, note FROM thing").fetchall() == [(1, None)]


def test_it_does_not_wait_for_ever(
    service: Service, database_of: Callable[[Service], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database_of(service)
    (service.migrations_dir / "versions" / "0002_second.py").write_text(SECOND, encoding="utf-8")
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_SECONDS", 1)
    monkeypatch.setattr(migrations, "ATTEMPTS", 1)
    with psycopg.connect(url) as long_running:
        long_running.execute("SELECT * FROM thing")
        with pytest.raises(Exception, match="lock timeout"):
            migrate(url.replace("postgresql:", "postgresql+psycopg:", 1), service.migrations_dir)
