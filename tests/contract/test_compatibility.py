"""What was released stays readable: for yesterday's consumers, and for whoever replays the log."""

import copy
from typing import Any

import pytest
from clinic_shared.compatibility import UnjudgeableSchemaError, breaking_changes
from clinic_shared.contracts import load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

CONTRACTS = load()
OLD: dict[str, Any] = {
    "title": "ThingHappened",
    "type": "object",
    "additionalProperties": False,
    "required": ["data"],
    "properties": {
        "data": {
            "type": "object",
            "additionalProperties": False,
            "required": ["id", "status", "lines"],
            "properties": {
                "id": {"$ref": "#/$defs/id"},
                "status": {"enum": ["open", "closed"]},
                "note": {"type": "string", "maxLength": 10},
                "lines": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"amount_minor": {"type": "integer", "minimum": 0}},
                    },
                },
            },
        },
    },
    "$defs": {"id": {"type": "string", "format": "uuid"}},
}


def data_of(schema: dict[str, Any]) -> dict[str, Any]:
    return schema["properties"]["data"]


def changed(change) -> dict[str, Any]:
    new = copy.deepcopy(OLD)
    change(new, data_of(new))
    return new


def remove_note(_, data):
    del data["properties"]["note"]


def rename_note(_, data):
    data["properties"]["comment"] = data["properties"].pop("note")


def require_note(_, data):
    data["required"].append("note")


def add_required(_, data):
    data["properties"]["extra"] = {"type": "string"}
    data["required"].append("extra")


def drop_required(_, data):
    data["required"].remove("status")


def narrow_values(_, data):
    data["properties"]["status"]["enum"] = ["open"]


def widen_values(_, data):
    data["properties"]["status"]["enum"] = ["open", "closed", "lost"]


def allow_null(_, data):
    data["properties"]["note"]["type"] = ["string", "null"]


def shorten_note(_, data):
    data["properties"]["note"]["maxLength"] = 5


def raise_minimum(_, data):
    data["properties"]["lines"]["items"]["properties"]["amount_minor"]["minimum"] = 1


def change_nested_type(_, data):
    data["properties"]["lines"]["items"]["properties"]["amount_minor"]["type"] = "number"


def change_definition(schema, _):
    schema["$defs"]["id"] = {"type": "string"}


def add_pattern(_, data):
    data["properties"]["note"]["pattern"] = "^x"


def open_up(_, data):
    data["additionalProperties"] = True


def demand_unique(_, data):
    data["properties"]["lines"]["uniqueItems"] = True


def rename_event(schema, _):
    schema["title"] = "ThingOccurred"


BREAKING = [
    (remove_note, "/data/note: was removed or renamed"),
    (rename_note, "/data/note: was removed or renamed"),
    (require_note, "/data/note: became required, and recorded events lack it"),
    (add_required, "/data/extra: became required, and recorded events lack it"),
    (drop_required, "/data/status: became optional, and consumers rely on it"),
    (narrow_values, "/data/status: the allowed values changed"),
    (widen_values, "/data/status: the allowed values changed"),
    (allow_null, "/data/note: type changed"),
    (shorten_note, "/data/note: maxLength was lowered"),
    (raise_minimum, "/data/lines/*/amount_minor: minimum was raised"),
    (change_nested_type, "/data/lines/*/amount_minor: type changed"),
    (change_definition, "/data/id: format changed"),
    (add_pattern, "/data/note: pattern changed"),
    (open_up, "/data: additionalProperties changed"),
    (demand_unique, "/data/lines: items must be unique now"),
    (rename_event, ": title changed"),
]


@pytest.mark.parametrize(("change", "reason"), BREAKING, ids=[change.__name__ for change, _ in BREAKING])
def test_a_breaking_change_is_found_and_explained(change, reason):
    assert breaking_changes(OLD, changed(change)) == [reason]


def add_optional(_, data):
    data["properties"]["extra"] = {"type": "string"}


def widen_note(_, data):
    data["properties"]["note"]["maxLength"] = 100


def describe_note(_, data):
    data["properties"]["note"]["description"] = "What the reader should know"


def inline_definition(_, data):
    data["properties"]["id"] = {"type": "string", "format": "uuid"}


def reorder_values(_, data):
    data["properties"]["status"]["enum"] = ["closed", "open"]


@pytest.mark.parametrize(
    "change", [add_optional, widen_note, describe_note, inline_definition, reorder_values]
)
def test_a_change_that_both_readers_survive_is_allowed(change):
    assert breaking_changes(OLD, changed(change)) == []


def test_a_const_is_an_enum_of_one():
    assert breaking_changes({"const": "open"}, {"enum": ["open"]}) == []
    assert breaking_changes({"const": "open"}, {"const": "closed"}) == [": the allowed values changed"]


def test_a_constraint_beside_a_reference_is_refused():
    narrowed = changed(lambda _, data: data["properties"]["id"].update(maxLength=3))
    with pytest.raises(UnjudgeableSchemaError, match="maxLength"):
        breaking_changes(OLD, narrowed)


@pytest.mark.parametrize("keyword", ["anyOf", "patternProperties", "if"])
def test_a_keyword_that_cannot_be_judged_is_refused(keyword):
    with pytest.raises(UnjudgeableSchemaError, match=keyword):
        breaking_changes({"type": "object"}, {"type": "object", keyword: {}})


def test_current_schemas_are_compatible_with_the_released_ones():
    assert CONTRACTS.breaking_changes() == []


@pytest.mark.parametrize("event_type", CONTRACTS.events)
def test_every_schema_can_be_judged_and_equals_itself(event_type):
    schema = CONTRACTS.schema(event_type)
    assert breaking_changes(schema, schema) == []


MUTATIONS: dict[str, list[Any]] = {
    "type": ["integer", "string", "null", "array"],
    "format": ["date", "date-time", "email", "uuid"],
    "pattern": ["^$", "^z"],
    "minLength": [0, 1000],
    "maxLength": [0, 100000],
    "minimum": [-1, 10**9],
    "maximum": [-1, 10**12],
    "minItems": [0, 99],
    "maxItems": [0, 99],
    "const": ["never"],
    "enum": [["never"], ["booked", "never"]],
    "required": [[], ["never"]],
    "properties": [{}],
    "additionalProperties": [False],
}


@st.composite
def mutated_schemas(draw) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw a schema of ours and the same with one keyword changed somewhere."""
    schema = CONTRACTS.schema(draw(st.sampled_from(sorted(CONTRACTS.events))))
    mutant = copy.deepcopy(schema)
    node = draw(st.sampled_from(_subschemas(mutant)))
    keyword = draw(st.sampled_from(sorted(MUTATIONS)))
    node[keyword] = draw(st.sampled_from(MUTATIONS[keyword]))
    return schema, mutant


def _subschemas(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = [schema, *schema["$defs"].values()]
    for node in found:
        found += node.get("properties", {}).values()
        found += [node["items"]] if "items" in node else []
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated_schemas())
def test_whatever_invalidates_a_recorded_event_is_breaking(pair):
    schema, mutant = pair
    validator = Draft202012Validator(mutant, validate_formats=True)
    recorded_events_stay_valid = all(validator.is_valid(example) for example in schema["examples"])
    assert recorded_events_stay_valid or _is_refused(schema, mutant)


def _is_refused(schema: dict[str, Any], mutant: dict[str, Any]) -> bool:
    try:
        return bool(breaking_changes(schema, mutant))
    except UnjudgeableSchemaError:
        return True
