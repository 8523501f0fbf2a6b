"""The one place where transactions open and commit."""

import psycopg
import pytest
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
    about = {"type": "identity.centre-opened.v1", "subject": subject, "aggregate_version": 1, "data": {}}
    assert Event(**about).partition_key == subject
    assert Event(**about, patient_id=patient_id).partition_key == patient_id
