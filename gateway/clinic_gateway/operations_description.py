"""How the operations pages of all services look through the gateway, made from what each service says of its own.

`/v1/ops/{page}` joins the services' answers (`operations.merge`); `/v1/ops/{page}/{service}` is one's own.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from clinic_gateway.event_flow import EventFlowMap
from clinic_gateway.operations import EVENT_FLOW
from clinic_gateway.routes import OPERATIONS_PREFIX

Document = dict[str, Any]
_JSON = "application/json"
_NAMED = "OfService"
_SILENT = "UnreachableService"
_SCHEMAS: Document = {
    _NAMED: {"type": "object", "required": ["service"], "properties": {"service": {"type": "string"}}},
    _SILENT: {
        "type": "object",
        "required": ["service", "reason"],
        "properties": {"service": {"type": "string"}, "reason": {"type": "string"}},
    },
}


def through_gateway(
    path: str, operations: dict[str, Document], services: Sequence[str]
) -> Iterator[tuple[str, dict[str, Document]]]:
    """Yield a service's operations page under the paths that it has here."""
    page, *rest = path.removeprefix(OPERATIONS_PREFIX).strip("/").split("/")
    of_one = "/".join((OPERATIONS_PREFIX, page, "{service}", *rest))
    if not rest and "get" in operations:
        yield path, {"get": operations["get"]}
        named = {"operationId": f"{operations['get']['operationId']}_of_service"}
        operations = operations | {"get": operations["get"] | named}
    yield of_one, {method: _of_one(operation, services) for method, operation in operations.items()}


def _of_one(operation: Document, services: Sequence[str]) -> Document:
    service = {
        "name": "service",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": sorted(services)},
    }
    return operation | {"parameters": [service, *operation.get("parameters", [])]}


def describe_joined_pages(joined: Document) -> None:
    """Put in what `/v1/ops/{page}` answers where the services' own answers are joined."""
    schemas = joined["components"]["schemas"]
    for path, item in joined["paths"].items():
        page = path.removeprefix(f"{OPERATIONS_PREFIX}/")
        if page == path or "/" in page:
            continue
        own = item["get"]["responses"]["200"]["content"][_JSON]["schema"]
        schema = _map_of_all(schemas) if path == EVENT_FLOW else _joined_page(own, schemas)
        answer = {"description": "Of all services", "content": {_JSON: {"schema": schema}}}
        item["get"] = item["get"] | {"responses": item["get"]["responses"] | {"200": answer}}
        schemas |= _SCHEMAS


def _map_of_all(schemas: Document) -> Document:
    schema = EventFlowMap.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
    schemas |= schema.pop("$defs") | {EventFlowMap.__name__: schema}
    return _reference(EventFlowMap.__name__)


def _joined_page(own: Document, schemas: Document) -> Document:
    """Lists are joined, each member with its service; what else a service says stands below its name."""
    members = _resolved(own, schemas).get("properties", {})
    lists = {name: schema for name, schema in members.items() if schema.get("type") == "array"}
    rest = {name: schema for name, schema in members.items() if name not in lists}
    return {
        "type": "object",
        "required": ["services", "unreachable"],
        "properties": {
            **{name: _of_services(schema["items"]) for name, schema in lists.items()},
            "services": {
                "type": "object",
                "additionalProperties": {"type": "object", "properties": rest},
            },
            "unreachable": {"type": "array", "items": _reference(_SILENT)},
        },
    }


def _of_services(item: Document) -> Document:
    return {"type": "array", "items": {"allOf": [item, _reference(_NAMED)]}}


def _resolved(schema: Document, schemas: Document) -> Document:
    return schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _reference(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}
