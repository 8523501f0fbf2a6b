"""May an event's schema change from this to that without a new version?

Two readers must survive: yesterday's consumers reading today's events, and today's consumers reading the
log of years. So only optional properties may be added and limits widened. The checker knows the subset of
JSON Schema that `contracts/events` uses and refuses keywords it can't judge.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_ANNOTATIONS = frozenset({"$schema", "$defs", "$comment", "description", "examples"})
_FIXED = ("$id", "title", "type", "format", "pattern", "additionalProperties")
_LOWER_BOUNDS = ("minimum", "minLength", "minItems")
_UPPER_BOUNDS = ("maximum", "maxLength", "maxItems")
_STRUCTURE = frozenset({"properties", "required", "items", "enum", "const", "uniqueItems"})
_KNOWN = _ANNOTATIONS | _STRUCTURE | {*_FIXED, *_LOWER_BOUNDS, *_UPPER_BOUNDS}


class UnjudgeableSchemaError(ValueError):
    """A schema uses a keyword that this checker doesn't know."""


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """Return what makes `new` a new version, as `<JSON pointer>: <reason>`; empty if it may replace `old`."""
    return list(_compare("", _Node(old, old), _Node(new, new)))


class _Node:
    """A schema with its reference followed. Beside a `$ref` only annotations may stand: other keywords
    there would narrow the referenced schema in ways that are easy to misread.
    """

    def __init__(self, root: Schema, schema: Schema) -> None:
        self.root = root
        self.schema = _resolved(root, schema)
        unknown = set(self.schema) - _KNOWN
        if unknown:
            raise UnjudgeableSchemaError(f"can't judge the keywords {sorted(unknown)}")

    def get(self, keyword: str, default: Any = None) -> Any:
        return self.schema.get(keyword, default)

    def properties(self) -> dict[str, Schema]:
        return dict(self.get("properties", {}))

    def required(self) -> set[str]:
        return set(self.get("required", ()))

    def values(self) -> list[Any] | None:
        """Return the values that `enum` and `const` leave, in an order that doesn't depend on the file."""
        allowed = self.get("enum")
        if "const" in self.schema:
            const = self.schema["const"]
            return [const] if allowed is None or const in allowed else []
        return sorted(allowed, key=repr) if allowed is not None else None

    def child(self, schema: Schema) -> "_Node":
        return _Node(self.root, schema)


def _resolved(root: Schema, schema: Schema) -> dict[str, Any]:
    if "$ref" not in schema:
        return dict(schema)
    prefix, _, name = str(schema["$ref"]).rpartition("/")
    beside = set(schema) - _ANNOTATIONS - {"$ref"}
    if prefix != "#/$defs" or beside:
        raise UnjudgeableSchemaError(f"can't judge {schema['$ref']} beside {sorted(beside)}")
    return _resolved(root, root["$defs"][name])


def _compare(pointer: str, old: _Node, new: _Node) -> Iterator[str]:
    yield from _compare_fixed(pointer, old, new)
    yield from _compare_bounds(pointer, old, new)
    yield from _compare_properties(pointer, old, new)
    if ("items" in old.schema) != ("items" in new.schema):
        yield f"{pointer}: items appeared or disappeared"
    elif "items" in old.schema:
        yield from _compare(f"{pointer}/*", old.child(old.get("items")), new.child(new.get("items")))


def _compare_fixed(pointer: str, old: _Node, new: _Node) -> Iterator[str]:
    for keyword in _FIXED:
        if _normal(old.get(keyword)) != _normal(new.get(keyword)):
            yield f"{pointer}: {keyword} changed"
    if old.values() != new.values():
        yield f"{pointer}: the allowed values changed"
    if new.get("uniqueItems", False) and not old.get("uniqueItems", False):
        yield f"{pointer}: items must be unique now"


def _normal(value: Any) -> Any:
    """Let `["string", "null"]` equal `["null", "string"]`."""
    return sorted(value) if isinstance(value, list) else value


def _compare_bounds(pointer: str, old: _Node, new: _Node) -> Iterator[str]:
    for keyword in _LOWER_BOUNDS:
        if new.get(keyword, float("-inf")) > old.get(keyword, float("-inf")):
            yield f"{pointer}: {keyword} was raised"
    for keyword in _UPPER_BOUNDS:
        if new.get(keyword, float("inf")) < old.get(keyword, float("inf")):
            yield f"{pointer}: {keyword} was lowered"


def _compare_properties(pointer: str, old: _Node, new: _Node) -> Iterator[str]:
    for name in sorted(new.required() - old.required()):
        yield f"{pointer}/{name}: became required, and recorded events lack it"
    for name in sorted(old.required() - new.required()):
        yield f"{pointer}/{name}: became optional, and consumers rely on it"
    after = new.properties()
    for name, schema in old.properties().items():
        if name not in after:
            yield f"{pointer}/{name}: was removed or renamed"
        else:
            yield from _compare(f"{pointer}/{name}", old.child(schema), new.child(after[name]))
