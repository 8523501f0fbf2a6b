"""`make test-modules`: a whole system for each service that can be left out. Minutes, so not in `make test`."""

from pathlib import Path

import pytest
from clinic_local.testing import running_system

from .reduced import PATHS, check

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("left_out", PATHS)
def test_a_system_without_it_works(left_out: str, tmp_path: Path) -> None:
    with running_system(tmp_path, CLINIC_WITHOUT=left_out) as system:
        check(system, (left_out,))
