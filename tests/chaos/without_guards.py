"""A pytest plugin: services' tests on databases that lack what guards them, an exclusion constraint or a trigger.

Loaded by `test_mutations.py` with `-p`, since neither is code that a process could be told to skip.
"""

from collections.abc import Generator
from typing import Any

import psycopg
import pytest
from clinic_shared.testing import ServiceHarness

_GUARDS = {
    "scheduling": "ALTER TABLE allocation DROP CONSTRAINT allocation_no_overlap",
    "billing": "DROP TRIGGER receipt_owed ON ledger_entry",
}


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    made = yield
    guard = _GUARDS.get(fixturedef.argname)
    if guard is not None and isinstance(made, ServiceHarness):
        url = made.runtime.settings.database_url.get_secret_value()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(guard)
    return made
