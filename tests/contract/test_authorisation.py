"""Nothing is reached without a declared permission, and the policy speaks of every permission on people's data."""

import importlib
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from clinic_shared.app import create_app, undeclared_routes
from clinic_shared.contracts import CONTRACTS_DIR, load
from clinic_shared.policy import POLICY_FILE, current
from clinic_shared.routing import Access, ClinicRoute
from clinic_shared.service import Service
from fastapi import FastAPI

CONTRACTS = load()
ROLES = CONTRACTS.taxonomy("roles")["roles"]

NOT_ABOUT_PATIENTS = ("ops.", "profile.")
"""Dead letters are shown without private fields, or by `ops.reveal`; one's profile is one's own."""
_PERSONAL = re.compile(r"\bpatient_id\b")


def service_of(name: str) -> Service:
    made: Service = importlib.import_module(f"{CONTRACTS.services[name].package}.app").service
    return made


@cache
def app_of(name: str) -> FastAPI:
    return create_app(service_of(name))


def routes() -> Iterator[tuple[str, ClinicRoute]]:
    for name in CONTRACTS.services:
        for route in app_of(name).routes:
            if isinstance(route, ClinicRoute):
                yield name, route


@pytest.mark.parametrize("service", CONTRACTS.services)
def test_every_route_of_a_service_declares_its_permission(service: str) -> None:
    assert undeclared_routes(app_of(service)) == []


def test_a_route_asks_for_a_permission_that_exists_or_says_that_it_asks_for_none() -> None:
    wrong = [
        f"{service} {route.operation_id}: {route.permission}"
        for service, route in routes()
        if not isinstance(route.permission, Access) and route.permission not in CONTRACTS.scopes()
    ]
    assert wrong == []


def test_every_permission_on_peoples_data_has_a_reach() -> None:
    """A route that takes or shows a patient's id is about a person: roles alone don't say whose."""
    forgotten = {
        f"{route.permission_name} ({service} {route.operation_id})"
        for service, route in routes()
        if isinstance(route.permission, str) and not route.permission.startswith(NOT_ABOUT_PATIENTS)
        if _is_personal(service, route) and not current().governs(route.permission)
    }
    assert forgotten == set()


@cache
def _description(service: str) -> dict[str, Any]:
    path = CONTRACTS_DIR / "openapi" / f"{service}.json"
    described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return described


def _is_personal(service: str, route: ClinicRoute) -> bool:
    operations = _description(service)["paths"].get(route.path_format, {}).values()
    told = [one for one in operations if one.get("operationId") == route.operation_id]
    shown = [_whole(_description(service), operation, set()) for operation in told]
    return bool(_PERSONAL.search(" ".join([route.path_format, *shown])))


def _whole(description: dict[str, Any], node: Any, seen: set[str]) -> str:
    """Return the node's text with every schema that it refers to."""
    text = str(node)
    for name in set(re.findall(r"#/components/schemas/([\w.-]+)", text)) - seen:
        seen.add(name)
        text += _whole(description, description["components"]["schemas"][name], seen)
    return text


def test_the_policy_and_the_roles_name_the_same_holders() -> None:
    document = yaml.safe_load((CONTRACTS_DIR / POLICY_FILE).read_text(encoding="utf-8"))
    reaching = {
        permission: set(rule["reach"])
        for permissions in document["data"].values()
        for permission, rule in permissions.items()
    }
    holding = {
        permission: {role for role, entry in ROLES.items() if permission in entry["scopes"]}
        for permission in reaching
    }
    assert reaching == holding
