"""A rebuild from the event logs of several services, beside live traffic, on a real broker."""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from typing import Any

import pytest
from clinic_shared import partitions
from clinic_shared.ids import uuid7_at
from clinic_shared.partition_upkeep import keep_partitions
from clinic_shared.partitions import Month
from clinic_shared.service import Runtime
from clinic_shared.testing import eventually
from sqlalchemy import text

from .rebuilding import INSTALLED, Clinic, TwoRecords, clinic, looping, stream, working

__all__ = ["clinic", "working"]

PRODUCER_PROCESS = """
import sys
from pathlib import Path
from clinic_shared.consumer import Handlers
from clinic_shared.main import run
from clinic_shared.service import Service
name = sys.argv[1]
run(Service(name=name, package_dir=Path(sys.argv[2]), routers=(), handlers=Handlers(name)), "worker")
"""


async def test_a_rebuilt_read_model_is_the_live_one_bit_for_bit_with_traffic_running(working: Clinic) -> None:
    await working.history(2)
    stop = asyncio.Event()
    counted = await working.scalar("SELECT count(*) FROM appointment_fact")

    async def traffic() -> None:
        while not stop.is_set():
            await working.happen(stream(next(working.seeds)), at_once=5)

    async def read() -> None:
        """No reader ever meets a model with less in it than before."""
        before = counted
        while not stop.is_set():
            now = await working.scalar("SELECT count(*) FROM appointment_fact")
            assert now >= before
            before = now

    running = [asyncio.create_task(work()) for work in (traffic, read, read)]
    ended = await working.ended(await working.rebuild(), "swapped")
    stop.set()
    await asyncio.gather(*running)
    await working.quiet()
    assert ended["difference_count"] == 0
    assert await working.scalar("SELECT count(*) FROM appointment_fact") > counted
    # What was live before the swap got every event too, and was never rebuilt.
    rebuilt, live = await working.rows("public"), await working.rows("previous")
    assert rebuilt == live
    assert all(rebuilt[name] for name in ("appointment_fact", "payment_fact", "lab_milestone"))
    [told] = await working.reporting.events("reporting.read-model-rebuilt.v1")
    assert told.data["checksum"] == ended["checksum"]


async def test_after_a_merge_and_after_its_undoing_a_rebuilt_model_is_the_live_one_bit_for_bit(
    working: Clinic,
) -> None:
    await working.history()
    records = TwoRecords()
    for told, status in (
        (records.registered(), "active"),
        (records.merged(), "merged"),
        (records.parted(), "active"),
    ):
        await working.happen([*told, *stream(next(working.seeds))[:40]], at_once=7)
        await working.quiet()
        live = await working.rows()
        ended = await working.ended(await working.rebuild(), "swapped")
        assert ended["difference_count"] == 0, ended["differences"]
        assert await working.rows() == live
        source = "SELECT status FROM registration_fact WHERE patient_id = :patient"
        assert await working.scalar(source, patient=records.source) == status
        assert await working.scalar(source, patient=records.target) == "active"


async def test_a_planted_difference_is_found_repaired_and_comes_back_with_a_roll_back(
    working: Clinic,
) -> None:
    await working.history()
    right = await working.rows()
    await working.execute("UPDATE appointment_fact SET service_code = 'planted'")
    await working.execute("DELETE FROM payment_fact")
    await working.execute(
        "INSERT INTO invoice_fact SELECT gen_random_uuid(), version, centre_id, department_id, currency, total_minor, "
        "issued_at, occurred_at FROM invoice_fact LIMIT 1"
    )
    wrong = await working.rows()

    compared = await working.ended(await working.rebuild(compare_only=True), "compared")
    found = {row.pop("table"): row for row in compared["differences"]}
    assert found == {
        "appointment_fact": {"missing": 0, "surplus": 0, "different": len(right["appointment_fact"])},
        "payment_fact": {"missing": len(right["payment_fact"]), "surplus": 0, "different": 0},
        "invoice_fact": {"missing": 0, "surplus": 1, "different": 0},
    }
    assert await working.rows() == wrong

    rebuilt = await working.rebuild()
    await working.ended(rebuilt, "swapped")
    assert await working.rows() == right

    await working.history()
    await working.post(f"rebuilds/{rebuilt}/roll-back")
    rolled_back = await working.rows()
    assert set(wrong["invoice_fact"]) <= set(rolled_back["invoice_fact"])
    assert len(rolled_back["appointment_fact"]) > len(wrong["appointment_fact"])


async def test_a_swap_leaves_names_of_indexes_and_keys_as_migrations_know_them(working: Clinic) -> None:
    names = (
        "SELECT string_agg(indexname || indexdef, ',' ORDER BY indexname) FROM pg_indexes "
        "WHERE schemaname = 'public' AND tablename LIKE '%fact'"
    )
    before = await working.scalar(names)
    await working.ended(await working.rebuild(), "swapped")
    assert await working.scalar(names) == before


async def test_one_rebuild_at_a_time_and_a_cancelled_one_leaves_everything_as_it_was(clinic: Clinic) -> None:
    # Only reporting works: the owners don't answer, so that it goes on until it is cancelled.
    async with looping(clinic.reporting.runtime):
        rebuild_id = await clinic.rebuild()
        await clinic.ended(rebuild_id, "filling")
        operator = clinic.reporting.principal("system-administrator")
        second = await clinic.reporting.http.post(
            "/v1/ops/rebuilds", json={}, headers=clinic.reporting.headers(operator)
        )
        assert (second.status_code, second.json()["type"].rpartition("/")[2]) == (409, "rebuild-running")
        await clinic.post(f"rebuilds/{rebuild_id}/cancel")
        assert (
            await clinic.scalar(
                "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'shadow'"
            )
            == 0
        )
        assert (await clinic.shown(rebuild_id))["state"] == "cancelled"


async def test_who_may_not_operate_may_not_rebuild(clinic: Clinic) -> None:
    reader = clinic.reporting.principal("management")
    answer = await clinic.reporting.http.post(
        "/v1/ops/rebuilds", json={}, headers=clinic.reporting.headers(reader)
    )
    assert answer.status_code == 403


async def test_after_months_were_dropped_a_rebuild_still_gives_the_same_model(working: Clinic) -> None:
    await working.history(2)
    logs: dict[str, int] = {}
    for name, runtime in working.producers.items():
        await _age(working, runtime, days=500)
        logs[name] = await _logged(runtime)
        await keep_partitions(runtime)
        assert Month.of(runtime.clock.now() - timedelta(days=500)).name("event") not in await _names(runtime)
        assert 0 < await _logged(runtime) <= logs[name]
    assert await _logged(working.producers["scheduling"]) < logs["scheduling"]
    await working.happen(stream(next(working.seeds)))
    await working.quiet()
    before = await working.rows()
    ended = await working.ended(await working.rebuild(), "swapped")
    assert ended["difference_count"] == 0, ended["differences"]
    assert await working.rows() == before


async def _age(clinic: Clinic, runtime: Runtime, *, days: int) -> None:
    """Let everything have happened so long ago, but for the newest of each service."""
    moment = runtime.clock.now() - timedelta(days=days)
    async with runtime.database.engine.connect() as connection:
        await connection.run_sync(partitions.create, "event", Month.of(moment))
    async with runtime.database.transaction() as tx:
        ids = [row[0] for row in await tx.fetch_all(text("SELECT event_id FROM event ORDER BY event_id"))]
        aged = sorted(uuid7_at(moment) for _ in ids)
        older = [{"old": old, "new": new} for old, new in list(zip(ids, aged, strict=True))[:-5]]
        await tx.execute(text("UPDATE event SET event_id = :new WHERE event_id = :old"), older)
    async with clinic.reporting.runtime.database.transaction() as tx:
        await tx.execute(text("UPDATE inbox SET event_id = :new WHERE event_id = :old"), older)


async def _logged(runtime: Runtime) -> int:
    async with runtime.database.transaction() as tx:
        return int((await tx.execute(text("SELECT count(*) FROM event"))).scalar_one())


async def _names(runtime: Runtime) -> list[str]:
    async with runtime.database.engine.connect() as connection:
        return [partition.name for partition in await connection.run_sync(partitions.listed)]


async def test_what_a_queue_lost_is_resent_and_what_took_effect_is_skipped(clinic: Clinic) -> None:
    begun_at = clinic.reporting.clock.now() - timedelta(minutes=5)
    async with looping(clinic.reporting.runtime, *clinic.producers.values()):
        await clinic.history()
    async with looping(*clinic.producers.values()):
        await clinic.happen(stream(next(clinic.seeds)))
        await eventually(clinic.published, within_seconds=60)
    await clinic.lose_queue("reporting.scheduling")
    async with looping(clinic.reporting.runtime, *clinic.producers.values()):
        for producer in ("patients", "lab-integration", "billing"):
            await clinic.quiet(producer)
        lost = await clinic.not_applied("scheduling")
        assert lost
        asked = {"from_at": begun_at.isoformat(), "event_types": ["scheduling.appointment-booked.v1"]}
        counted = await clinic.answered(await clinic.post("replays", asked | {"dry_run": True}))
        sent = await clinic.answered(await clinic.post("replays", {"from_at": begun_at.isoformat()}))
        assert 0 < counted < sent
        await clinic.quiet()
        assert await clinic.not_applied("scheduling") == []
    held = await clinic.scalar("SELECT count(*) FROM held")
    assert held == 0


@pytest.mark.timeout(300)
async def test_killed_again_and_again_it_ends_as_if_nothing_had_been(clinic: Clinic, tmp_path: Any) -> None:
    async with looping(clinic.reporting.runtime, *clinic.producers.values()):
        await clinic.history()
    before = await clinic.rows()
    rebuild_id = await clinic.rebuild()
    owners = [runtime for name, runtime in clinic.producers.items() if name != "scheduling"]
    async with looping(*owners):
        reporting = (sys.executable, "-m", "clinic_reporting", "worker")
        scheduling = (sys.executable, "-c", PRODUCER_PROCESS, "scheduling", str(tmp_path / "package"))
        await asyncio.gather(
            _dies_at("rebuild.batch.before", reporting, clinic.reporting.runtime),
            _dies_at("replay.batch.sent", scheduling, clinic.producers["scheduling"]),
        )
    async with looping(*clinic.producers.values()):
        for label in ("rebuild.swap.exchanged", "rebuild.swap.after"):
            await _dies_at(label, reporting, clinic.reporting.runtime)
    ended = await clinic.shown(rebuild_id)
    assert (ended["state"], ended["difference_count"]) == ("swapped", 0)
    assert await clinic.rows() == before


async def _dies_at(label: str, command: tuple[str, ...], runtime: Runtime) -> None:
    settings = runtime.settings
    process = await asyncio.create_subprocess_exec(
        *command,
        env={
            **os.environ,
            "CLINIC_ENVIRONMENT": "test",
            "CLINIC_DATABASE_URL": settings.database_url.get_secret_value(),
            "CLINIC_AMQP_URL": settings.amqp_url.get_secret_value(),
            "CLINIC_SUBSCRIBED_SERVICES": INSTALLED,
            "CLINIC_CRASH_AT": label,
        },
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(90):
            assert await process.wait() == -signal.SIGKILL, label
    finally:
        if process.returncode is None:
            process.kill()
