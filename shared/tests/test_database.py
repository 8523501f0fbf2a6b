"""The one place where transactions open and commit."""

from typing import Any

import psycopg
import pytest
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Database
from clinic_shared.events import Event
from clinic_shared.ids import uuid7
from clinic_shared.testing import Servers
from sqlalchemy import text


@pytest.mark.servers
async def test_a_connection_that_died_while_idle_is_replaced_unnoticed(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinic_shared.database.PING_AFTER_SECONDS", 0.0)
    url = servers.postgres_admin_url.replace("postgresql://", "postgresql+psycopg://", 1)
    database = Database(url, service="ping-test", pool_size=1)
    try:
        async with database.transaction() as tx:
            row = await tx.fetch_one(text("SELECT pg_backend_pid()"))
        assert row is not None
        with psycopg.connect(servers.postgres_admin_url, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", (row[0],))
        async with database.transaction() as tx:
            again = await tx.fetch_one(text("SELECT pg_backend_pid()"))
        assert again is not None
        assert again[0] != row[0]
    finally:
        await database.dispose()


def test_an_event_without_a_patient_keeps_its_subject_s_order() -> None:
    subject, patient_id = uuid7(), uuid7()
    about: dict[str, Any] = {
        "type": "identity.centre-opened.v1",
        "subject": subject,
        "aggregate_version": 1,
        "data": {},
    }
    assert Event(**about).partition_key == subject
    assert Event(**about, patient_id=patient_id).partition_key == patient_id


async def test_the_points_around_a_commit_are_passed_only_by_what_leaves_something(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker told to die there would die of looking for work."""
    passed: list[str] = []
    monkeypatch.setattr("clinic_shared.database.crash_point", passed.append)
    url = servers.postgres_admin_url.replace("postgresql://", "postgresql+psycopg://", 1)
    database = Database(url, service="commit-test", pool_size=1)
    try:
        async with database.transaction() as tx:
            await tx.execute(text("SELECT 1"))
        assert passed == []
        async with database.transaction() as tx:
            await tx.execute(
                text("CREATE TEMP TABLE audit_outbox (id serial, record bytea, leaf_hash bytea)")
            )
            tx.audit(AuditEntry(action=Action.READ, resource_type="Test"))
    finally:
        await database.dispose()
    assert passed == ["commit.before", "commit.after"]
