"""Prometheus and promtool of the distribution, unpacked; tests that need them say why where they can't be had."""

import pytest
from clinic_local.errors import SetupError
from clinic_local.monitoring import Monitoring


@pytest.fixture(scope="session")
def monitoring() -> Monitoring:
    try:
        return Monitoring.unpacked()
    except SetupError as error:
        pytest.skip(f"no Prometheus on this machine: {error.report()}")
