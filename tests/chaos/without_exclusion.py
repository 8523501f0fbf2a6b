"""A pytest plugin: scheduling's tests on a database whose calendar lacks its exclusion constraint.

Loaded by `test_mutations.py` with `-p`, since the constraint is no code that a process could be told to skip.
"""

from collections.abc import Generator
from typing import Any

import psycopg
import pytest
from clinic_shared.testing import ServiceHarness


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    made = yield
    if fixturedef.argname == "scheduling" and isinstance(made, ServiceHarness):
        url = made.runtime.settings.database_url.get_secret_value()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER TABLE allocation DROP CONSTRAINT allocation_no_overlap")
    return made
