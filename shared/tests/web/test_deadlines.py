"""A request whose caller has stopped waiting isn't worked on."""

import time

import pytest
from clinic_shared.context import Context
from clinic_shared.deadlines import HEADER, DeadlineExceededError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError


async def test_a_request_that_comes_too_late_has_no_effect(probe, writer, query):
    headers = probe.headers(writer) | {HEADER: "0"}
    answer = await probe.http.post("/v1/notes", json={"text": "late"}, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (504, "/problems/deadline-exceeded")
    assert await query("SELECT * FROM note") == []


@pytest.mark.parametrize("header", ["5000", "", "-1", "soon", "9" * 40])
async def test_a_request_in_time_or_without_a_deadline_is_worked_on(probe, writer, header):
    headers = probe.headers(writer) | {HEADER: header}
    answer = await probe.http.post("/v1/notes", json={"text": "in time"}, headers=headers)
    assert answer.status_code == 201


async def test_whoever_waited_too_long_for_a_connection_gives_it_back_unused(probe):
    with pytest.raises(DeadlineExceededError):
        async with probe.runtime.database.transaction(Context(deadline=time.monotonic() - 0.001)):
            pytest.fail("the transaction began")
    assert probe.runtime.database.engine.pool.checkedout() == 0


async def test_a_statement_ends_with_its_callers_patience(probe):
    begun = time.monotonic()
    with pytest.raises(OperationalError, match="statement timeout"):
        async with probe.runtime.database.transaction(Context(deadline=begun + 0.2)) as tx:
            await tx.execute(text("SELECT pg_sleep(60)"))
    assert time.monotonic() - begun < 12  # well before any statement's own end
    async with probe.runtime.database.transaction() as tx:
        assert (await tx.execute(text("SHOW statement_timeout"))).scalar() == "15s"
