"""One system for all chaos tests, those who use it, and the checker after every test.

`CLINIC_CHAOS_ROOT` names the folder of a system that runs already (with `CLINIC_ENVIRONMENT=test`) to
save its start while writing tests. `CLINIC_CHAOS_SEED` repeats a run's random choices.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from clinic_local.api_client import Caller
from clinic_local.environment import ADMIN_LOGIN, ADMIN_PASSWORD, Secrets
from clinic_local.testing import System, running_system

from .accounting import History
from .books import Books
from .people import Desk, Keys, Lab, Till, read_network
from .traffic import Traffic

ENVIRONMENT = {
    "CLINIC_ENVIRONMENT": "test",
    "CLINIC_LONGEST_RESTART_PAUSE_SECONDS": "1",
    "CLINIC_RATE_SIGN_IN_PER_SECOND": "0",
    # As deployed: whoever answers requests and whoever works behind them die separately.
    "CLINIC_ROLES": "split",
}
TIMEOUT_SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the system kills processes, and may wait for it to start first."""
    for item in items:
        if "system" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.chaos)
            item.add_marker(pytest.mark.servers)
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    running = os.environ.get("CLINIC_CHAOS_ROOT")
    if running:
        yield System(Path(running), {**os.environ, "CLINIC_ROOT": running, **ENVIRONMENT})
        return
    with running_system(tmp_path_factory.mktemp("chaos"), **ENVIRONMENT) as started:
        yield started


@pytest.fixture(scope="session")
def history() -> History:
    return History()


@pytest.fixture(scope="session")
def rng() -> random.Random:
    seed = int(os.environ.get("CLINIC_CHAOS_SEED") or time.time_ns() % 1_000_000)
    print(f"\nCLINIC_CHAOS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="session")
def keys() -> Keys:
    # A system that ran before has its first slots taken.
    return Keys(first=int(time.time()) % 50_000 if os.environ.get("CLINIC_CHAOS_ROOT") else 0)


@pytest.fixture(scope="session")
def caller_of(system: System) -> Iterator[Callable[[str], Caller]]:
    """Return a function that gives a member of the demo network's staff."""
    network = read_network(system.root)
    callers: dict[str, Caller] = {}

    def caller(person: str) -> Caller:
        password = Secrets(system.root).get(ADMIN_PASSWORD) if person == "admin" else network.password
        login = ADMIN_LOGIN if person == "admin" else network.login_of(person)
        return callers.setdefault(person, Caller(system.url, login, password))

    yield caller
    for one in callers.values():
        one.__exit__()


@pytest.fixture(scope="session")
def books(system: System, history: History, operator: Caller) -> Iterator[Books]:
    with closing(Books(system, history, operator)) as books:
        yield books


@pytest.fixture(scope="session")
def operator(caller_of: Callable[[str], Caller]) -> Caller:
    return caller_of("admin")


@pytest.fixture(scope="session")
def desk(system: System, history: History, keys: Keys, caller_of: Callable[[str], Caller]) -> Desk:
    return Desk(caller_of("registrar"), read_network(system.root), history, keys)


@pytest.fixture(scope="session")
def lab(system: System, history: History, keys: Keys) -> Lab:
    return Lab(system.url, read_network(system.root), history, keys)


@pytest.fixture(scope="session")
def till(system: System, history: History, desk: Desk, caller_of: Callable[[str], Caller]) -> Iterator[Till]:
    payer = desk.register()
    login = f"payer.{payer.patient_id}@example.org"
    given = desk.caller.post("/v1/users/patients", {"patient_id": payer.patient_id, "login": login})
    with Caller(system.url, login, given["initial_password"]) as patient:
        yield Till(
            desk=desk,
            doctor=caller_of("dermatologist"),
            biller=caller_of("biller"),
            payer=payer,
            patient=patient,
            provider_url=system.addresses["CLINIC_FAKES_URL"],
            history=history,
        )


@pytest.fixture(scope="session")
def traffic(desk: Desk, lab: Lab, till: Till, rng: random.Random) -> Traffic:
    return Traffic(desk, lab, till, [desk.register() for _ in range(5)], rng)


@pytest.fixture(autouse=True)
def _accounted(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test on the system: everything comes to rest, and the books are right."""
    if "system" not in request.fixturenames:
        yield
        return
    books: Books = request.getfixturevalue("books")
    yield
    if not books.nothing_new:
        verdict = books.settle()
        assert verdict.sound, f"\n{verdict}"
