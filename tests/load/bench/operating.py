"""What an operator waits for or pays for: starts, memory, and how soon everything runs again after a kill -9."""

import socket
import tempfile
import time
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from clinic_local.commands_status import memory_bytes
from clinic_local.state import RunState
from clinic_local.testing import System, running_system

from .figures import Figure, needs_nothing, needs_system
from .whole import book, database, is_reported, network_of, register, registrar, wait_until

MEGABYTE = 1_000_000


@needs_nothing
def starts() -> list[Figure]:
    """`clinic up` until the first answered request: with nothing there yet but the packages, and again."""
    with tempfile.TemporaryDirectory(prefix="polyclinic-bench-") as folder:
        begun = time.monotonic()
        with running_system(Path(folder)) as system:
            cold = _answered(system) - begun
            system.clinic("down")
            begun = time.monotonic()
            system.clinic("up")
            warm = _answered(system) - begun
    return [
        Figure.ceiling("first start until the first answered request", cold, "s", target=60),
        Figure.ceiling("start with data there until the first answered request", warm, "s", target=15),
    ]


def _answered(system: System) -> float:
    wait_until(lambda: httpx.get(f"{system.url}/readyz", trust_env=False, timeout=5).is_success, every=0.05)
    return time.monotonic()


@needs_system
def memory(system: System) -> list[Figure]:
    """All services and the gateway (what they share counts once), idle; not the servers, not the vendors' fakes."""
    running = RunState.read(system.root)
    assert running is not None
    ours = [process.pid for process in running.processes if process.kind in {"service", "gateway"}]
    total = sum(memory_bytes(pid) or 0 for pid in ours)
    name = f"memory of {len(ours)} processes: all services and the gateway, idle (PSS)"
    return [Figure.ceiling(name, total / MEGABYTE, "MB", target=500)]


@needs_system
def recovery_of_a_service(system: System) -> list[Figure]:
    """After kill -9 of scheduling: until an appointment booked after it is back is in another service's table."""
    network = network_of(system)
    with registrar(system) as caller, database(system, "reporting") as reporting:
        patient_id = register(caller, network)["patient_id"]
        old = system.kill("scheduling")
        system.wait_until_restarted("scheduling", old)
        back = time.monotonic()
        appointment = wait_until(lambda: _booked(system, patient_id), every=0.05)
        wait_until(partial(is_reported, reporting, appointment))
        seconds = time.monotonic() - back
    return [Figure.ceiling("a service killed, publishing again after it is back", seconds, "s", target=5)]


def _booked(system: System, patient_id: str) -> str | None:
    with registrar(system) as caller:
        try:
            return book(caller, network_of(system), patient_id)
        except httpx.HTTPError:
            return None


@needs_system
def recovery_of_the_broker(system: System) -> list[Figure]:
    """After kill -9 of RabbitMQ: until what was committed while it was away has its effect in another service."""
    network = network_of(system)
    with registrar(system) as caller, database(system, "reporting") as reporting:
        patient_id = register(caller, network)["patient_id"]
        old = system.kill("rabbitmq")
        appointment = book(caller, network, patient_id)
        system.wait_until_restarted("rabbitmq", old)
        _listens(system.addresses["CLINIC_PRIVATE_AMQP_URL"])
        back = time.monotonic()
        wait_until(partial(is_reported, reporting, appointment))
        seconds = time.monotonic() - back
    return [Figure.ceiling("the broker killed, publishing again after it is back", seconds, "s", target=10)]


def _listens(url: str) -> None:
    parts = urlsplit(url)

    def connected() -> bool:
        try:
            socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
        except OSError:
            return False
        return True

    wait_until(connected, every=0.02)
