"""JSON Schemas and examples as tables that people read: for the API's and the events' reference pages."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Schema = Mapping[str, Any]
DEPTH = 4
"""Deeper structures are named; their own fields would bury the page."""
LIMITS = ("minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "pattern")


class References:
    """Follows `$ref` within one document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def resolve(self, schema: Schema) -> Schema:
        """Return the schema with its reference followed; what stands beside the reference stays."""
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        found: Any = self._document
        for step in reference[2:].split("/"):
            found = found.get(step, {}) if isinstance(found, Mapping) else {}
        beside = {name: value for name, value in schema.items() if name != "$ref"}
        return {**self.resolve(found), **beside}


def fields(schema: Schema, references: References) -> str:
    """Return a table of a schema's fields; empty for one without."""
    rows = "".join(_rows(schema, references, "", DEPTH))
    return f"<table><tr><th>field<th>type<th><th>meaning{rows}</table>" if rows else ""


def _rows(schema: Schema, references: References, prefix: str, depth: int) -> Iterator[str]:
    schema = references.resolve(schema)
    for part in (*schema.get("allOf", ()), *_alternatives(schema, references)):
        yield from _rows(part, references, prefix, depth)
    if "items" in schema:
        yield from _rows(schema["items"], references, f"{prefix}[]" if prefix else "[]", depth)
    required = schema.get("required", ())
    for name, property_ in schema.get("properties", {}).items():
        path = f"{prefix}.{name}" if prefix else name
        yield _row(path, references.resolve(property_), references, required=name in required)
        if depth > 1:
            yield from _rows(property_, references, path, depth - 1)


def _alternatives(schema: Schema, references: References) -> list[Schema]:
    """Return the one alternative beside null: `X | None` is described as X."""
    others = [one for one in schema.get("anyOf", ()) if references.resolve(one).get("type") != "null"]
    return others if len(others) == 1 else []


def _row(path: str, schema: Schema, references: References, *, required: bool) -> str:
    limits = ", ".join(f"{name} {schema[name]}" for name in LIMITS if name in schema)
    meaning = "; ".join(filter(None, (str(schema.get("description", "")), limits)))
    need = "required" if required else ""
    return (
        f"<tr><td><code>{escape(path)}</code><td>{escape(kind_of(schema, references))}<td>{need}"
        f"<td>{escape(meaning)}"
    )


def kind_of(schema: Schema, references: References) -> str:
    """Return a type in words: `uuid`, `integer or null`, `list of string`, `"open" or "closed"`."""
    schema = references.resolve(schema)
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    if "enum" in schema:
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind_of(one, references) for one in schema["anyOf"]))
    if "items" in schema:
        return f"list of {kind_of(schema['items'], references)}"
    names = schema.get("type", "anything")
    names = [names] if isinstance(names, str) else list(names)
    return " or ".join(schema.get("format", name) if name == "string" else name for name in names)


def example(value: object) -> str:
    return f"<pre><code>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</code></pre>"
