"""A worker dies in the middle of a run; another goes on; each message took effect once, in order."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clinic_shared.ids import uuid7
from clinic_shared.testing import eventually

from .conftest import Office, Person

pytestmark = pytest.mark.servers

POINTS = ["redrive.item.before", "consumer.effect.before", "redrive.commit.before", "redrive.commit.after"]
MESSAGES = 6


def die_working(office: Office, folder: Path, point: str, *, passage: int = 3) -> None:
    """Let a process work runs off until it dies at a passage of the point."""
    environment = os.environ | {"REPORTING_URL": office.database_url, "CLINIC_CRASH_AT": f"{point}:{passage}"}
    script = Path(__file__).with_name("reporting.py")
    command = [sys.executable, str(script), str(folder)]
    ended = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=100)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


@pytest.mark.parametrize("point", POINTS)
async def test_each_message_of_a_run_takes_effect_once_whenever_its_worker_dies(
    office: Office, admin: Person, tmp_path: Path, point: str
) -> None:
    key = uuid7()
    letters = [await office.park(key, version) for version in range(1, MESSAGES + 1)]
    begun = await admin.post("/redrive", {"ids": letters, "rate_per_second": 1000})
    run_id = begun.json()["run_id"]
    die_working(office, tmp_path, point)
    assert 2 <= len(await office.effects()) <= 3
    run = await office.finish(admin, run_id)
    assert (run["applied"], run["duplicate"], run["failed"]) == (MESSAGES, 0, 0)
    assert await office.effects() == [(key, version) for version in range(1, MESSAGES + 1)]
    assert await office.rows() == []


async def test_a_message_that_kills_processes_is_given_up_and_the_run_goes_on(
    office: Office, admin: Person, tmp_path: Path
) -> None:
    killer, other = await office.park(), await office.park()
    begun = await admin.post("/redrive", {"ids": [killer, other], "rate_per_second": 1000})
    die_working(office, tmp_path, "consumer.effect.before", passage=1)
    (item,) = await office.query("SELECT tries, state FROM redrive_item WHERE tries > 0")
    assert (item.tries, item.state) == (1, "waiting")
    await office.query("UPDATE redrive_item SET tries = 3 WHERE tries = 1 RETURNING run_id")
    run = await office.finish(admin, begun.json()["run_id"])
    assert (run["failed"], run["applied"]) == (1, 1)
    (row,) = await office.rows()
    assert (row.state, row.error.split(":")[0]) == ("parked", "WorkerDied")


async def test_what_a_dead_worker_had_in_hand_of_a_cancelled_run_is_given_back(
    office: Office, admin: Person
) -> None:
    """As after a kill between the cancellation, which passed the message in hand by, and its commit."""
    letter = await office.park()
    run_id = (await admin.post("/redrive", {"ids": [letter]})).json()["run_id"]
    await office.query("UPDATE redrive_run SET state = 'cancelled', finished_at = now() RETURNING run_id")
    async with office.working():

        async def given_back() -> bool:
            return [row.run_id for row in await office.rows()] == [None]

        await eventually(given_back)
    assert (await admin.get(f"/runs/{run_id}")).json()["run"]["cancelled"] == 1
