"""What clients are generated from: the description of all services, joined as the gateway does it."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from clinic_gateway.openapi import as_document, join
from clinic_gateway.routes import RouteTable
from clinic_shared.contracts import load


@pytest.fixture(scope="session")
def description() -> dict[str, Any]:
    files = sorted((load().folder / "openapi").glob("*.json"))
    parts = {file.stem: as_document(file.read_bytes()) or {} for file in files}
    return join(parts, RouteTable(), "http://127.0.0.1:8080")


@pytest.fixture
def with_renamed_field(description: dict[str, Any]) -> Callable[[str, str, str], dict[str, Any]]:
    """Make the description of an incompatible release: one field of one schema has another name."""

    def make(schema: str, field: str, name: str) -> dict[str, Any]:
        changed = deepcopy(description)
        described = changed["components"]["schemas"][schema]
        described["properties"][name] = described["properties"].pop(field)
        described["required"] = [name if one == field else one for one in described["required"]]
        return changed

    return make
