"""The release before and this one run side by side: on this release's databases, with each other's events.

The release before is the one before the last change of a database or an event (`CLINIC_UPGRADE_FROM` names
another commit). Once its workers run behind this release's APIs, once its APIs before this release's workers.
"""

import io
import os
import random
import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from clinic_local.api_client import Caller
from clinic_local.environment import ADMIN_LOGIN, ADMIN_PASSWORD, Secrets
from clinic_local.paths import CHECKOUT
from clinic_local.testing import System, running_system

from tests.chaos.books import Books
from tests.chaos.history import History
from tests.chaos.paying import Till
from tests.chaos.people import Desk, Keys, Lab, read_network
from tests.chaos.traffic import Traffic

WHAT_UPGRADES_CHANGE = (
    "services/*/migrations",
    "shared/clinic_shared/runtime_migrations",
    "contracts/events",
)
OPERATIONS = 4
"""Of each kind: bookings, laboratory messages and payments touch every service."""


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=CHECKOUT, check=True, capture_output=True).stdout


def release_before() -> str:
    told = os.environ.get("CLINIC_UPGRADE_FROM")
    if told:
        return told
    try:
        changed = git("log", "-1", "--format=%H", "--", *WHAT_UPGRADES_CHANGE).decode().strip()
        return git("rev-parse", "--verify", f"{changed}~1").decode().strip()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no history here: a tarball or a shallow clone")


@pytest.fixture(scope="session")
def other_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release-before")
    archive = git("archive", "--format=tar", release_before())
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.fixture(params=["*-worker", "*-api"])
def system(
    request: pytest.FixtureRequest, other_checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    environment = {
        "CLINIC_ENVIRONMENT": "test",
        "CLINIC_RATE_SIGN_IN_PER_SECOND": "0",
        "CLINIC_ROLES": "split",
        "CLINIC_ENCRYPT_AT_REST": "false",
        "CLINIC_OTHER_RELEASE": f"{request.param}={other_checkout}",
    }
    with running_system(tmp_path_factory.mktemp("upgrade"), **environment) as started:
        yield started


def failures(system: System) -> list[str]:
    """Return the gateway's counts of answers that were our fault."""
    metrics = httpx.get(f"{system.url}/metrics", trust_env=False).text
    counted = re.findall(r"^clinic_http_requests_total\{.*\} .*$", metrics, flags=re.MULTILINE)
    assert counted
    return [line for line in counted if 'status="5' in line]


def runs_the_other_release(system: System, process: str) -> bool:
    command = Path(f"/proc/{system.process(process).pid}/cmdline").read_bytes()
    return b"-m\0clinic_scheduling" in command


@pytest.mark.extended
@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.timeout(300)
def test_both_work_on_one_database_and_take_each_others_events(
    system: System, request: pytest.FixtureRequest
) -> None:
    other = request.node.callspec.params["system"].removeprefix("*-")
    assert [runs_the_other_release(system, f"scheduling-{role}") for role in ("api", "worker")] == [
        other == "api",
        other == "worker",
    ]
    network, history, keys = read_network(system.root), History(), Keys()
    with ExitStack() as stack:

        def caller(login: str, password: str) -> Caller:
            return stack.enter_context(Caller(system.url, login, password))

        operator = caller(ADMIN_LOGIN, Secrets(system.root).get(ADMIN_PASSWORD))
        books = stack.enter_context(closing(Books(system, history, operator)))
        staff = {
            one: caller(network.login_of(one), network.password)
            for one in ("registrar", "dermatologist", "biller")
        }
        desk = Desk(staff["registrar"], network, history, keys)
        payer = desk.register()
        login = f"payer.{payer.patient_id}@example.org"
        given = desk.caller.post("/v1/users/patients", {"patient_id": payer.patient_id, "login": login})
        till = Till(
            desk=desk,
            doctor=staff["dermatologist"],
            biller=staff["biller"],
            payer=payer,
            patient=caller(login, given["initial_password"]),
            provider_url=system.addresses["CLINIC_FAKES_URL"],
            history=history,
        )
        lab = Lab(system.url, network, history, keys)
        traffic = Traffic(desk, lab, till, [desk.register() for _ in range(3)], random.Random(1))
        with traffic.flowing() as flow:
            flow.wait_for_more(OPERATIONS)
        verdict = books.settle()
        assert verdict.sound, f"\n{verdict}"
        assert operator.get("/v1/ops/dead-letters")["items"] == []
    assert failures(system) == []
