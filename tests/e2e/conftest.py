"""One whole system for all journeys: what `make up` starts, beside any other that runs here."""

import subprocess
from collections.abc import Callable, Iterator

import pytest
from clinic_local.api_client import Caller
from clinic_local.demo_network import Network
from clinic_local.testing import System, running_system
from clinic_shared.testing_spans import Collector, collecting


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """What the whole system tells an OTLP collector, from its start on."""
    with collecting() as listening:
        yield listening


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[System]:
    with running_system(
        tmp_path_factory.mktemp("e2e"),
        CLINIC_ENVIRONMENT="test",
        CLINIC_RATE_SIGN_IN_PER_SECOND="0",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="500",
    ) as started:
        yield started


@pytest.fixture(scope="session")
def journey(system: System) -> subprocess.CompletedProcess[str]:
    """The patient's journey, led once; returns how `make demo` ended."""
    return system.clinic("demo")


@pytest.fixture(scope="session")
def network(system: System) -> Network:
    found = Network.read(system.root)
    assert found is not None, "make up makes the demo network"
    return found


@pytest.fixture(scope="session")
def as_person(system: System, network: Network) -> Iterator[Callable[[str], Caller]]:
    """Return a function that gives the caller for a member of the demo network's staff."""
    callers: dict[str, Caller] = {}

    def caller(person: str) -> Caller:
        if person not in callers:
            callers[person] = Caller(system.url, network.login_of(person), network.password)
        return callers[person]

    yield caller
    for open_caller in callers.values():
        open_caller.__exit__()
