"""The patient's journey, as `make demo` tells it."""

import pytest
from clinic_local.testing import System

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(300)]


def test_the_demo_ends_with_everything_in_its_place(system: System) -> None:
    told = system.clinic("demo")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "The journey went well." in told.stdout
    assert "✗" not in told.stdout
