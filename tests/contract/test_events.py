"""Each event schema is what contracts/README.md promises: self-contained, strict, and erasable."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from clinic_shared.contracts import PLATFORM, ContractViolationError, EventType, load
from jsonschema_rs import Draft202012Validator, meta

CONTRACTS = load()
EVENTS = [*CONTRACTS.events.values(), *CONTRACTS.platform.values()]
EXAMPLES = [
    pytest.param(event, example, id=f"{event.type}-{number}")
    for event in EVENTS
    for number, example in enumerate(CONTRACTS.examples(event.type))
]
CANARY = "Канарейкина"


def by_type(event: EventType) -> str:
    return event.type


@pytest.fixture(params=EVENTS, ids=by_type)
def event(request) -> EventType:
    return request.param


def test_every_subscription_has_a_schema_and_every_schema_stands_in_the_subscriptions():
    schemas = {
        path.relative_to(CONTRACTS.folder).as_posix() for path in CONTRACTS.folder.glob("events/**/*.json")
    }
    assert schemas == {event.schema_path for event in EVENTS}


def test_every_event_comes_from_a_service_and_goes_to_services(event):
    assert event.producer in {*CONTRACTS.services, PLATFORM}
    assert set(event.consumers) <= set(CONTRACTS.services)
    assert len(set(event.consumers)) == len(event.consumers)


def test_an_event_nobody_keeps_is_marked_as_broadcast(event):
    assert event.broadcast is (not event.consumers)


def test_a_service_does_not_consume_its_own_events(event):
    assert event.producer not in event.consumers


def test_schema_is_valid_json_schema_2020_12(event):
    schema = CONTRACTS.schema(event.type)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    meta.validate(schema)


def test_file_title_and_id_say_the_same_as_the_routing_key(event):
    schema = CONTRACTS.schema(event.type)
    assert schema["title"] == event.title
    assert schema["$id"] == f"https://contracts.polyclinic.example/{event.schema_path}"
    assert re.fullmatch(r"[a-z-]+\.[a-z]+(-[a-z]+)+\.v[1-9]\d*", event.type)
    assert schema["description"].endswith(".")


def test_body_is_data_and_an_erasable_private_part(event):
    schema = CONTRACTS.schema(event.type)
    assert schema["required"] == ["data"]
    assert set(schema["properties"]) == {"data", "private"}
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]["private"]["type"]) == {"object", "null"}


def test_every_private_field_may_be_missing(event):
    assert "required" not in CONTRACTS.schema(event.type)["properties"]["private"]


def test_every_data_field_of_a_first_version_is_required_or_was_added_later(event):
    data = CONTRACTS.schema(event.type)["properties"]["data"]
    released = CONTRACTS.released_path(event)
    if not released.exists():
        assert set(data["required"]) == set(data["properties"]), "required until a release freezes the schema"


def test_data_and_private_share_no_name_because_consumers_read_them_as_one(event):
    properties = CONTRACTS.schema(event.type)["properties"]
    assert not set(properties["data"]["properties"]) & set(properties["private"]["properties"])


def test_every_object_refuses_what_it_does_not_describe(event):
    loose = [
        pointer
        for pointer, node in _walk(CONTRACTS.schema(event.type))
        if "object" in _types(node) and node.get("additionalProperties") is not False
    ]
    assert loose == []


def test_schema_defines_all_that_it_refers_to_and_nothing_else(event):
    schema = CONTRACTS.schema(event.type)
    references = {node["$ref"] for _, node in _walk(schema) if "$ref" in node}
    assert references == {f"#/$defs/{name}" for name in schema["$defs"]}


def test_times_dates_ids_and_money_are_named_after_their_type(event):
    """`_at` is a UTC instant, `_on` a date, `_id` a UUID, `_minor` an integer: a reader needs no documentation."""
    schema = CONTRACTS.schema(event.type)
    suffixes = {"_at": ("format", "date-time"), "_on": ("format", "date"), "_id": ("format", "uuid")}
    wrong = []
    for name, node in _properties(schema):
        resolved = _resolve(schema, node)
        for suffix, (keyword, value) in suffixes.items():
            if name.endswith(suffix) and name not in {"client_id", "sub_id", "key_id"}:
                wrong += [name] if resolved.get(keyword) != value else []
        if name.endswith(("_minor", "_seconds", "_count")) and "integer" not in _types(resolved):
            wrong.append(name)
        if resolved.get("format") == "date-time" and "pattern" not in resolved:
            wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize(("event_type", "example"), EXAMPLES)
def test_examples_keep_the_contract(event_type, example):
    CONTRACTS.validate_event(event_type.type, example["data"], example.get("private"))


@pytest.mark.parametrize(("event_type", "example"), EXAMPLES)
def test_examples_keep_the_contract_after_an_erasure(event_type, example):
    validator = Draft202012Validator(CONTRACTS.schema(event_type.type), validate_formats=True)
    assert validator.is_valid({"data": example["data"]})
    assert validator.is_valid({"data": example["data"], "private": None})


@pytest.mark.parametrize(("event_type", "example"), EXAMPLES)
def test_examples_are_obviously_fictitious(event_type, example):
    for value in _strings(example):
        if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
            assert value.startswith("01900000-0000-7000-8000-")
        if re.fullmatch(r"\+\d+", value):
            assert value.startswith("+70000000")
        if "@" in value:
            assert value.endswith("@example.org")


def test_events_of_one_aggregate_agree_on_the_fields_they_share():
    """One payload model must serve all events of an aggregate: same name, same meaning, same type."""
    seen: dict[tuple[str, str], tuple[str, Any]] = {}
    for event in EVENTS:
        schema = CONTRACTS.schema(event.type)
        data = schema["properties"]["data"]
        aggregate = next(name for name in data["required"] if name.endswith("_id"))
        for name, node in data["properties"].items():
            if name == "status":
                continue
            shape = {k: v for k, v in _resolve(schema, node).items() if k != "description"}
            first, known = seen.setdefault((aggregate, name), (event.type, shape))
            if (aggregate, name) != (aggregate, "version") and aggregate != "patient_id":
                assert shape == known, f"{name} of {event.type} differs from {first}"


def test_a_violation_names_pointer_and_keyword_but_no_value():
    example = CONTRACTS.examples("patients.patient-registered.v1")[0]
    data = {**example["data"], "status": CANARY, "surprise": CANARY}
    del data["version"]
    with pytest.raises(ContractViolationError) as caught:
        CONTRACTS.validate_event("patients.patient-registered.v1", data, {"phones": [CANARY]})
    assert caught.value.problems == [
        "/data/status (enum)",
        "/data/surprise (additionalProperties)",
        "/data/version (required)",
        "/private/phones/0 (pattern)",
    ]
    assert CANARY not in str(caught.value)


def _walk(node: Any, pointer: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every subschema; examples are data, not schema."""
    if isinstance(node, dict):
        yield pointer, node
        for key, child in node.items():
            if key != "examples":
                yield from _walk(child, f"{pointer}/{key}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _walk(child, f"{pointer}/{number}")


def _properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for _, node in _walk(schema):
        if "properties" in node and isinstance(node.get("type"), (str, list)):
            yield from node["properties"].items()


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    return {**_resolve(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[1]]), **node}


def _types(node: dict[str, Any]) -> set[str]:
    types = node.get("type", [])
    return {types} if isinstance(types, str) else set(types) if isinstance(types, list) else set()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _strings(child)
    elif isinstance(value, list):
        for child in value:
            yield from _strings(child)
