"""Generated documents equal what would be generated now."""

import json

import pytest
import yaml
from clinic_shared.app import openapi_files
from clinic_shared.asyncapi import asyncapi_document, asyncapi_yaml
from clinic_shared.contracts import load

CONTRACTS = load()
OPENAPI = sorted(CONTRACTS.folder.glob("openapi/*.json"))
NO_SCOPE = {"public", "authenticated"}


def test_asyncapi_is_what_the_contracts_say_now():
    stored = (CONTRACTS.folder / "asyncapi.yaml").read_text(encoding="utf-8")
    assert stored == asyncapi_yaml(CONTRACTS), "run: python -m clinic_shared.contracts asyncapi"


def test_asyncapi_is_read_back_as_the_document():
    stored = (CONTRACTS.folder / "asyncapi.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(stored) == asyncapi_document(CONTRACTS)


def test_every_reference_of_asyncapi_leads_somewhere():
    document = asyncapi_document(CONTRACTS)
    for reference in _references(document):
        if reference.startswith("#/"):
            node = document
            for step in reference.removeprefix("#/").split("/"):
                node = node[step]
        else:
            assert (CONTRACTS.folder / reference).is_file()


def test_asyncapi_has_one_operation_per_producer_and_consumer_of_each_event():
    operations = asyncapi_document(CONTRACTS)["operations"]
    receivers = sum(len(event.consumers) + len(CONTRACTS.listeners) for event in CONTRACTS.events.values())
    among_services = 2 * len(CONTRACTS.platform) * len(CONTRACTS.services)
    assert len(operations) == len(CONTRACTS.events) + receivers + among_services


def test_every_service_has_its_openapi():
    assert {path.stem for path in OPENAPI} >= set(CONTRACTS.services), (
        "run: python -m clinic_shared.app openapi"
    )


def test_openapi_is_what_the_code_says_now():
    stale = [
        path.stem
        for path, text in openapi_files()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run: .venv/bin/python -m clinic_shared.app openapi"


@pytest.mark.parametrize("path", OPENAPI, ids=lambda path: path.stem)
def test_every_operation_asks_for_a_scope_of_the_taxonomy(path):
    document = json.loads(path.read_text(encoding="utf-8"))
    asked = {
        (operation["operationId"], operation.get("x-permission"))
        for methods in document["paths"].values()
        for operation in methods.values()
    }
    assert {(name, scope) for name, scope in asked if scope not in CONTRACTS.scopes() | NO_SCOPE} == set()


def _references(node):
    if isinstance(node, dict):
        yield from ([node["$ref"]] if "$ref" in node else [])
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)
