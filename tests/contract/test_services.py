"""Every service keeps its side: it handles what it subscribes to, whole, erased or newer, and publishes its own."""

import importlib
from typing import Any

import pytest
from clinic_shared.consumer import Handlers
from clinic_shared.contracts import CONTRACTS_DIR, Contracts, EventType, load
from pydantic import BaseModel

CONTRACTS: Contracts = load()
SUBSCRIPTIONS = [
    pytest.param(service, event, id=f"{service}<-{event.type}")
    for service in CONTRACTS.services
    for event in CONTRACTS.consumed_by(service)
]
CODE_OF_TOMORROW = "a-code-of-tomorrow"


def handlers_of(service: str) -> Handlers:
    module = importlib.import_module(f"{CONTRACTS.services[service].package}.consumers")
    return module.handlers


def payload_model(service: str, event: EventType) -> type[BaseModel]:
    return handlers_of(service).subscription(event.type).payload_model


@pytest.mark.parametrize("service", [name for name in CONTRACTS.services if CONTRACTS.consumed_by(name)])
def test_a_service_handles_exactly_what_it_subscribes_to(service):
    assert set(handlers_of(service).subscriptions) == {event.type for event in CONTRACTS.consumed_by(service)}
    assert handlers_of(service).service_name == service


@pytest.mark.parametrize(("service", "event"), SUBSCRIPTIONS)
def test_a_consumer_accepts_every_example(service, event):
    model = payload_model(service, event)
    for example in CONTRACTS.examples(event.type):
        model.model_validate({**example["data"], **(example.get("private") or {})})


@pytest.mark.parametrize(("service", "event"), SUBSCRIPTIONS)
def test_a_consumer_accepts_an_event_whose_private_part_was_erased(service, event):
    model = payload_model(service, event)
    for example in CONTRACTS.examples(event.type):
        model.model_validate(example["data"])


@pytest.mark.parametrize(("service", "event"), SUBSCRIPTIONS)
def test_a_consumer_accepts_empty_private_fields(service, event):
    """Each private field may be null where the schema allows it, an empty list else."""
    model = payload_model(service, event)
    schema = CONTRACTS.schema(event.type)
    private = schema["properties"]["private"]["properties"]
    empty = {name: _empty(schema, node) for name, node in private.items()}
    for example in CONTRACTS.examples(event.type):
        CONTRACTS.validate_event(event.type, example["data"], empty)
        model.model_validate({**example["data"], **empty})


@pytest.mark.parametrize(("service", "event"), SUBSCRIPTIONS)
def test_a_consumer_ignores_fields_of_a_later_release(service, event):
    model = payload_model(service, event)
    for example in CONTRACTS.examples(event.type):
        model.model_validate({**example["data"], "a_field_of_tomorrow": {"nested": True}})


@pytest.mark.parametrize(("service", "event"), SUBSCRIPTIONS)
def test_a_consumer_accepts_codes_that_open_lists_may_gain(service, event):
    model = payload_model(service, event)
    schema = CONTRACTS.schema(event.type)
    open_codes = {
        name: CODE_OF_TOMORROW
        for name, node in schema["properties"]["data"]["properties"].items()
        if node.get("$ref") in {"#/$defs/code", "#/$defs/codeOrNull"}
    }
    for example in CONTRACTS.examples(event.type):
        model.model_validate({**example["data"], **open_codes})


@pytest.mark.parametrize("event", CONTRACTS.events.values(), ids=lambda event: event.type)
def test_a_producer_names_each_event_that_it_promises(event):
    """Its own tests check the payloads (the database refuses to emit what the contract doesn't describe)."""
    package = CONTRACTS.services[event.producer].package
    folder = CONTRACTS_DIR.parent / "services" / event.producer / package
    assert any(event.name in path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))


def _empty(schema: dict[str, Any], node: dict[str, Any]) -> Any:
    target = schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
    if None in target.get("enum", []) or "null" in target.get("type", []):
        return None
    return []
