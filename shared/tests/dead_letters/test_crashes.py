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


def die_working(office: Office, folder: Path, point: str) -> None:
    """Let a process work runs off until it dies at its third passage of the point."""
    environment = os.environ | {"REPORTING_URL": office.database_url, "CLINIC_CRASH_AT": f"{point}:3"}
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
