"""The patient's journey, as `make demo` tells it."""

import subprocess

import pytest

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900)]


def test_the_demo_ends_with_everything_in_its_place(journey: subprocess.CompletedProcess[str]) -> None:
    assert journey.returncode == 0, journey.stdout + journey.stderr
    assert "The journey went well." in journey.stdout
    assert "✗" not in journey.stdout
