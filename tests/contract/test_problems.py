"""Every problem has a page: what caused it, and what to do."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from clinic_shared import contracts
from clinic_shared.errors import DomainError
from clinic_shared.problem_pages import problem_pages

PACKAGES = [
    "clinic_shared",
    "clinic_gateway",
    *(entry.package for entry in contracts.load().services.values()),
]


def import_all(package: str) -> None:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith("__main__") and ".runtime_migrations" not in module.name:
            importlib.import_module(module.name)


def errors() -> Iterator[type[DomainError]]:
    for package in PACKAGES:
        import_all(package)
    found = [DomainError]
    for error in found:
        found += error.__subclasses__()
    ours = {error for error in found[1:] if error.__module__.split(".")[0] in PACKAGES}
    yield from sorted(ours, key=lambda error: (error.__module__, error.__name__))


@pytest.mark.parametrize("error", list(errors()), ids=lambda error: error.__name__)
def test_a_problem_has_a_page_with_cause_and_remedy(error: type[DomainError]) -> None:
    package = error.__module__.split(".")[0]
    page = problem_pages("clinic_shared", package)[error.slug]
    assert page.status == error.status
    assert len(page.cause) > len("short")
    assert len(page.fix) > len("short")
