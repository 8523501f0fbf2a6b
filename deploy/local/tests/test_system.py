"""The whole system as an operator meets it: up, twice up, a dead service, a killed supervisor, down."""

import os
import signal
import time
from pathlib import Path

import pytest
from clinic_local import loopback, state
from clinic_local.testing import System, running_system

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900)]

PATIENCE_SECONDS = 120
# Where nobody answers: what one of our processes asks another must not go through the machine's proxy.
PROXY = dict.fromkeys(
    ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9"
)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running_system(
        tmp_path_factory.mktemp("system") / "Сеть клиник",
        **PROXY,
        CLINIC_SUBSCRIBED_SERVICES="scheduling",
        CLINIC_SEED="no",
    ) as started:
        yield started


def test_it_answers_at_the_address_it_wrote_down(system: System):
    assert loopback.answers(f"{system.url}/healthz")


def test_a_second_up_says_that_it_runs(system: System):
    second = system.clinic("up")
    assert second.returncode == 0
    assert "runs already" in second.stdout


def test_status_tells_of_every_process(system: System):
    by_name = {process.name: process for process in system.status()}
    assert {"postgres", "rabbitmq", "scheduling", "gateway", "fakes"} <= by_name.keys()
    scheduling = by_name["scheduling"]
    assert scheduling.state == "running"
    assert (scheduling.memory_bytes or 0) > 1_000_000
    # What the start itself told the services may still be on its way to them.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (waiting := what_waits_in(system, "scheduling")) != (0, 0, 0, 0):
        assert time.monotonic() < deadline, f"queued, outbox, held, parked: {waiting}"
        time.sleep(0.5)


def what_waits_in(system: System, service: str):
    (row,) = (row for row in system.status() if row.name == service)
    return row.queued, row.outbox_pending, row.held, row.parked


def test_a_dead_service_is_started_again(system: System):
    old = system.kill("scheduling")
    assert system.wait_until_restarted("scheduling", old).restarts == 1


@pytest.mark.parametrize("server", ["postgres", "rabbitmq"])
def test_a_dead_server_is_started_again_at_the_same_address(system: System, server: str):
    before = system.addresses
    old = system.kill(server)
    system.wait_until_restarted(server, old)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not loopback.answers(f"{before['CLINIC_SCHEDULING_URL']}/readyz"):
        assert time.monotonic() < deadline, "scheduling never became ready again"
        time.sleep(0.1)


def test_down_and_a_killed_supervisor_leave_no_process(system: System):
    for end in (signal.SIGTERM, signal.SIGKILL):
        assert system.clinic("up").returncode == 0
        pids = [process.pid for process in system.status()]
        supervisor = state.supervisor_pid(system.root)
        assert supervisor is not None
        if end == signal.SIGTERM:
            assert system.clinic("down").returncode == 0
            assert not is_alive(supervisor)
        else:
            os.kill(supervisor, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while alive := [pid for pid in (supervisor, *pids) if pid and is_alive(pid)]:
            assert time.monotonic() < deadline, f"still there: {alive}"
            time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
