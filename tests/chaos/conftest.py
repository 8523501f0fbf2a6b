"""One stage for all chaos tests, and the checker after every test. `CLINIC_CHAOS_SEED` repeats random choices."""

import os
import random
import time
from collections.abc import Callable, Iterator

import pytest
from clinic_local.api_client import Caller
from clinic_local.testing import System

from .books import Books
from .history import History
from .paying import Till
from .people import Desk, Lab
from .server_harm import Broker
from .stage import Stage, staged
from .traffic import Traffic

TIMEOUT_SECONDS = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the system kills processes, and may wait for it to start first."""
    for item in items:
        if "stage" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.chaos)
            item.add_marker(pytest.mark.servers)
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    seed = int(os.environ.get("CLINIC_CHAOS_SEED") or time.time_ns() % 1_000_000)
    print(f"\nCLINIC_CHAOS_SEED={seed}")
    tampered_with = any(item.get_closest_marker("extended") for item in request.session.items)
    folder = tmp_path_factory.mktemp("chaos")
    with staged(folder, random.Random(seed), by_detours=tampered_with) as stage:
        yield stage


@pytest.fixture(scope="session")
def system(stage: Stage) -> System:
    return stage.system


@pytest.fixture(scope="session")
def history(stage: Stage) -> History:
    return stage.history


@pytest.fixture(scope="session")
def caller_of(stage: Stage) -> Callable[[str], Caller]:
    """Return a function that gives a member of the demo network's staff."""
    return stage.caller


@pytest.fixture(scope="session")
def operator(stage: Stage) -> Caller:
    return stage.caller("admin")


@pytest.fixture(scope="session")
def books(stage: Stage) -> Books:
    return stage.books


@pytest.fixture(scope="session")
def broker(stage: Stage) -> Broker:
    return stage.broker


@pytest.fixture(scope="session")
def desk(stage: Stage) -> Desk:
    return stage.desk


@pytest.fixture(scope="session")
def lab(stage: Stage) -> Lab:
    return stage.lab


@pytest.fixture(scope="session")
def till(stage: Stage) -> Till:
    return stage.till


@pytest.fixture(scope="session")
def traffic(stage: Stage) -> Traffic:
    return stage.traffic


@pytest.fixture(autouse=True)
def _accounted(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test on the system: everything comes to rest, and the books are right."""
    if "stage" not in request.fixturenames:
        yield
        return
    books: Books = request.getfixturevalue("books")
    yield
    if not books.nothing_new:
        verdict = books.settle()
        assert verdict.sound, f"\n{verdict}"
