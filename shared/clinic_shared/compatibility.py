"""May an event's schema change from this to that without a new version?

Two readers must survive: today's consumers reading the log of years (backward), and yesterday's consumers reading
today's events (forward). Consumers are tolerant: they ignore properties that they don't know, and take a value
beyond a limit. So only optional properties may be added and limits widened. The checker knows the subset of JSON
Schema that `contracts/events` uses and refuses keywords that it can't judge.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
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


class Direction(StrEnum):
    """Which reader a change would hurt."""

    BACKWARD = "backward"
    """Today's consumer, by an event of the log."""
    FORWARD = "forward"
    """Yesterday's consumer, by an event of today."""
    BOTH = "backward and forward"


@dataclass(frozen=True)
class Break:
    """Why a change needs a new version, and where: `pointer` is a JSON pointer into the event's body."""

    pointer: str
    reason: str
    direction: Direction

    def __str__(self) -> str:
        return f"{self.pointer}: {self.reason} ({self.direction})"


def breaking_changes(old: Schema, new: Schema) -> list[Break]:
    """Return what makes `new` a new version; empty if it may replace `old`. Raises UnjudgeableSchemaError."""
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


def _compare(pointer: str, old: _Node, new: _Node) -> Iterator[Break]:
    yield from _compare_fixed(pointer, old, new)
    yield from _compare_values(pointer, old, new)
    yield from _compare_bounds(pointer, old, new)
    yield from _compare_properties(pointer, old, new)
    if ("items" in old.schema) != ("items" in new.schema):
        yield Break(pointer, "items appeared or disappeared", Direction.BOTH)
    elif "items" in old.schema:
        yield from _compare(f"{pointer}/*", old.child(old.get("items")), new.child(new.get("items")))


def _compare_fixed(pointer: str, old: _Node, new: _Node) -> Iterator[Break]:
    # Whether one pattern or format is part of another can't be decided in general: any change counts.
    for keyword in _FIXED:
        if _normal(old.get(keyword)) != _normal(new.get(keyword)):
            yield Break(pointer, f"{keyword} changed", Direction.BOTH)


def _normal(value: Any) -> Any:
    """Let `["string", "null"]` equal `["null", "string"]`."""
    return sorted(value) if isinstance(value, list) else value


def _compare_values(pointer: str, old: _Node, new: _Node) -> Iterator[Break]:
    before, after = old.values(), new.values()
    if before != after:
        # A status is closed: a value more is one that yesterday's consumer has no branch for.
        lost = before is None or (after is not None and any(value not in after for value in before))
        gained = after is None or (before is not None and any(value not in before for value in after))
        hurt = Direction.BOTH if lost and gained else Direction.BACKWARD if lost else Direction.FORWARD
        yield Break(pointer, "the allowed values changed", hurt)
    if new.get("uniqueItems", False) and not old.get("uniqueItems", False):
        yield Break(pointer, "items must be unique now", Direction.BACKWARD)


def _compare_bounds(pointer: str, old: _Node, new: _Node) -> Iterator[Break]:
    for keyword in _LOWER_BOUNDS:
        if new.get(keyword, float("-inf")) > old.get(keyword, float("-inf")):
            yield Break(pointer, f"{keyword} was raised", Direction.BACKWARD)
    for keyword in _UPPER_BOUNDS:
        if new.get(keyword, float("inf")) < old.get(keyword, float("inf")):
            yield Break(pointer, f"{keyword} was lowered", Direction.BACKWARD)


def _compare_properties(pointer: str, old: _Node, new: _Node) -> Iterator[Break]:
    for name in sorted(new.required() - old.required()):
        yield Break(f"{pointer}/{name}", "became required, and recorded events lack it", Direction.BACKWARD)
    for name in sorted(old.required() - new.required()):
        yield Break(f"{pointer}/{name}", "became optional, and consumers rely on it", Direction.FORWARD)
    after = new.properties()
    for name, schema in old.properties().items():
        if name not in after:
            yield Break(f"{pointer}/{name}", "was removed or renamed", Direction.FORWARD)
        else:
            yield from _compare(f"{pointer}/{name}", old.child(schema), new.child(after[name]))
    before = old.properties()
    for name in sorted(set(after) - set(before)):
        # Where unknown properties were allowed, recorded events may hold anything under this name.
        if old.get("additionalProperties", True) is not False and _may_be_an_object(old):
            yield Break(
                f"{pointer}/{name}", "may stand in recorded events with another meaning", Direction.BACKWARD
            )


def _may_be_an_object(node: _Node) -> bool:
    types = node.get("type", "object")
    return "object" in ([types] if isinstance(types, str) else types)
