"""What was released stays readable: for yesterday's consumers, and for whoever replays the log."""

import copy
from typing import Any

import pytest
from clinic_shared.compatibility import Break, Direction, UnjudgeableSchemaError, breaking_changes
from clinic_shared.contracts import load
from hypothesis import HealthCheck, event, example, find, given, settings
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
    (remove_note, Break("/data/note", "was removed or renamed", Direction.FORWARD)),
    (rename_note, Break("/data/note", "was removed or renamed", Direction.FORWARD)),
    (require_note, Break("/data/note", "became required, and recorded events lack it", Direction.BACKWARD)),
    (add_required, Break("/data/extra", "became required, and recorded events lack it", Direction.BACKWARD)),
    (drop_required, Break("/data/status", "became optional, and consumers rely on it", Direction.FORWARD)),
    (narrow_values, Break("/data/status", "the allowed values changed", Direction.BACKWARD)),
    (widen_values, Break("/data/status", "the allowed values changed", Direction.FORWARD)),
    (allow_null, Break("/data/note", "type changed", Direction.BOTH)),
    (shorten_note, Break("/data/note", "maxLength was lowered", Direction.BACKWARD)),
    (raise_minimum, Break("/data/lines/*/amount_minor", "minimum was raised", Direction.BACKWARD)),
    (change_nested_type, Break("/data/lines/*/amount_minor", "type changed", Direction.BOTH)),
    (change_definition, Break("/data/id", "format changed", Direction.BOTH)),
    (add_pattern, Break("/data/note", "pattern changed", Direction.BOTH)),
    (open_up, Break("/data", "additionalProperties changed", Direction.BOTH)),
    (demand_unique, Break("/data/lines", "items must be unique now", Direction.BACKWARD)),
    (rename_event, Break("", "title changed", Direction.BOTH)),
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
    assert breaking_changes({"const": "open"}, {"const": "closed"}) == [
        Break("", "the allowed values changed", Direction.BOTH)
    ]


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


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


# -- the checker against a validator: all small schemas, all small events

SCALARS = [None, True, 0, 1, 2, 0.5, "", "a", "ab", "abc"]
UNIVERSE = [
    *SCALARS,
    *([one] for one in SCALARS),
    [0, 0],
    [0, 1],
    ["a", "a", "b"],
    {},
    *({"a": one} for one in SCALARS),
    *({"b": one} for one in SCALARS),
    *({"a": one, "b": other} for one in SCALARS for other in (None, 1, "a")),
    {"a": {"a": 1}},
    {"a": [1, 1]},
    {"a": 1, "c": 1},
]
"""Every schema below tells events apart by some of these."""


def scalar_schemas() -> st.SearchStrategy[dict[str, Any]]:
    limits = st.integers(0, 3)
    strings = st.fixed_dictionaries(
        {"type": st.just("string")}, optional={"minLength": limits, "maxLength": limits}
    )
    numbers = st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number", ["integer", "null"]])},
        optional={"minimum": limits, "maximum": limits},
    )
    values = st.builds(
        lambda few: {"enum": few}, st.lists(st.sampled_from(["a", "ab", 1]), min_size=1, unique=True)
    )
    return st.one_of(strings, numbers, values, st.just({"type": "boolean"}), st.just({}))


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    def wrap(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        lists = st.fixed_dictionaries(
            {"type": st.just("array"), "items": inner},
            optional={
                "minItems": st.integers(0, 2),
                "maxItems": st.integers(0, 2),
                "uniqueItems": st.booleans(),
            },
        )
        objects = st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
                "additionalProperties": st.booleans(),
            },
            optional={"required": st.lists(st.sampled_from("ab"), unique=True)},
        )
        return st.one_of(lists, objects)

    return st.one_of(scalar_schemas(), wrap(scalar_schemas()), wrap(wrap(scalar_schemas())))


def nodes_of(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = [schema]
    for node in found:
        found += list(node.get("properties", {}).values()) + ([node["items"]] if "items" in node else [])
    return found


@st.composite
def pairs(draw) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw a schema, and one that differs from it in a few places: or in nothing alike."""
    old = draw(schemas())
    if draw(st.booleans()):
        return old, draw(schemas())
    new = copy.deepcopy(old)
    for _ in range(draw(st.integers(1, 2))):
        node = draw(st.sampled_from(nodes_of(new)))
        other = draw(st.sampled_from(nodes_of(draw(schemas()))))
        for keyword in draw(st.lists(st.sampled_from(sorted({*node, *other}) or ["type"]), max_size=2)):
            node.pop(keyword, None)
            if keyword in other:
                node[keyword] = copy.deepcopy(other[keyword])
    return old, new


def opened(schema: dict[str, Any], *, drop: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the schema as a tolerant reader takes it: with more properties, and beyond limits if dropped."""
    tolerant = copy.deepcopy(schema)
    for node in nodes_of(tolerant):
        for keyword in ("additionalProperties", *drop):
            node.pop(keyword, None)
    return tolerant


LIMITS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs())
@example(({}, {"properties": {"a": {"type": "boolean"}}}))
def test_what_is_called_compatible_is_read_by_both_readers(pair):
    old, new = pair
    hurt = {one.direction for one in breaking_changes(old, new)}
    before, after = Draft202012Validator(old), Draft202012Validator(new)
    if not hurt & {Direction.BACKWARD, Direction.BOTH}:
        event("backward compatible")
        reader = Draft202012Validator(opened(new))
        assert [one for one in UNIVERSE if before.is_valid(one) and not reader.is_valid(one)] == []
    if not hurt & {Direction.FORWARD, Direction.BOTH}:
        event("forward compatible")
        reader = Draft202012Validator(opened(old, drop=LIMITS))
        assert [one for one in UNIVERSE if after.is_valid(one) and not reader.is_valid(one)] == []


@st.composite
def widened(draw) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw a schema and the same with what a version may gain: wider limits, properties that nobody knew."""
    old = draw(schemas())
    for node in nodes_of(old):
        if "properties" in node:
            node["additionalProperties"] = False
    new = copy.deepcopy(old)
    for node in nodes_of(new):
        for keyword in LIMITS[1:6:2]:
            if keyword in node:
                node[keyword] += draw(st.integers(0, 2))
        if "properties" in node and draw(st.booleans()):
            node["properties"]["new"] = draw(scalar_schemas())
    return old, new


@settings(max_examples=200, deadline=None)
@given(widened())
def test_what_a_version_may_gain_is_never_refused(pair):
    assert breaking_changes(*pair) == []


WITNESSED = [
    change for change, _ in BREAKING if change not in (remove_note, rename_note, rename_event, open_up)
]
"""Those left out hurt readers by their meaning, which no validator knows."""


def events() -> st.SearchStrategy[dict[str, Any]]:
    line = st.fixed_dictionaries({}, optional={"amount_minor": st.sampled_from([0, 1, 0.5])})
    data = st.fixed_dictionaries(
        {
            "id": st.sampled_from(["01900000-0000-7000-8000-a00000000001", "no uuid"]),
            "lines": st.lists(line, max_size=2),
        },
        optional={
            "status": st.sampled_from(["open", "closed", "lost"]),
            "note": st.sampled_from([None, "", "x", "y" * 8]),
        },
    )
    return st.fixed_dictionaries({"data": data})


@pytest.mark.parametrize("change", WITNESSED)
def test_for_each_break_there_is_an_event_that_shows_it(change):
    new = changed(change)
    hurt = breaking_changes(OLD, new)[0].direction

    def valid(schema: dict[str, Any], one: Any) -> bool:
        return Draft202012Validator(schema, validate_formats=True).is_valid(one)

    def shows(one: Any) -> bool:
        backward = valid(OLD, one) and not valid(new, one)
        forward = valid(new, one) and not valid(OLD, one)
        return (backward and hurt is not Direction.FORWARD) or (forward and hurt is not Direction.BACKWARD)

    assert find(events(), shows)
