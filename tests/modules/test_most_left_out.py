"""A practice that only registers and books: everything else was left out at the start.

That each service can be missing by itself is shown where services meet (`shared/tests/messaging` and
`gateway/tests`, both `test_modules.py`), with a real broker; `make test-modules` starts a whole system for each.
"""

from collections.abc import Iterator

import pytest
from clinic_local.testing import System, running_system

from .reduced import check, installed

LEFT_OUT = ("referrals", "notifications", "lab-integration", "billing", "reporting")

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("modules"), CLINIC_WITHOUT=",".join(LEFT_OUT)) as started:
        yield started


def test_who_is_there_works_and_waits_for_nobody(system: System) -> None:
    check(system, LEFT_OUT)


def test_no_queue_is_kept_for_who_isnt_there(system: System) -> None:
    pruned = system.clinic("topology", "prune", "--yes")
    assert (pruned.returncode, "No queue" in pruned.stdout) == (0, True), pruned.stdout + pruned.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("demo",), "billing"),
        (("lab", "send", "contracts/hl7/panel.hl7"), "not installed"),
        (("restart", "billing"), "there is no such process"),
    ],
)
def test_commands_that_need_the_rest_say_what_is_missing(
    system: System, command: tuple[str, ...], said: str
) -> None:
    ended = system.clinic(*command)
    assert ended.returncode == 1
    assert said in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_service_that_everything_needs_cant_be_left_out(system: System) -> None:
    refused = system.clinic("up", "--without", "identity")
    assert refused.returncode == 1
    assert "can't be left out" in refused.stderr
    assert "identity" in installed(LEFT_OUT)
