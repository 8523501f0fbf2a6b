"""One OpenAPI document for the whole platform, joined from those of the installed services.

The generated files in `contracts/openapi` come first; a service without one is asked itself.
"""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from clinic_shared.errors import DomainError

from clinic_gateway import stream
from clinic_gateway.operations import is_operations_path
from clinic_gateway.operations_description import describe_joined_pages, through_gateway
from clinic_gateway.routes import Credentials, RouteTable
from clinic_gateway.upstream import Upstreams

Document = dict[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")
FETCH_SECONDS = 3
SCHEMAS = "#/components/schemas/"
BEARER = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}


class ApiDescription:
    """Joined once everything installed has described itself; until then made anew for each reader."""

    def __init__(self, upstreams: Upstreams, contracts_dir: Path, table: RouteTable, url: str) -> None:
        self._upstreams = upstreams
        self._folder = contracts_dir / "openapi"
        self._table = table
        self._url = url
        self._complete: Document | None = None

    async def document(self) -> Document:
        if self._complete is not None:
            return self._complete
        names = sorted(self._upstreams.urls)
        found = dict(zip(names, await asyncio.gather(*map(self._description_of, names)), strict=True))
        joined = join({name: part for name, part in found.items() if part}, self._table, self._url)
        joined["tags"].append({"name": "gateway"})
        joined["paths"][stream.PATH] = {"get": stream.OPERATION}
        if all(found.values()):
            self._complete = joined
        return joined

    async def _description_of(self, service: str) -> Document | None:
        file = self._folder / f"{service}.json"
        if file.is_file():
            return as_document(file.read_bytes())
        try:
            async with self._upstreams.request(
                service, "GET", "/openapi.json", timeout_seconds=FETCH_SECONDS
            ) as answer:
                return as_document(await answer.read()) if answer.ok else None
        except DomainError:
            return None


def as_document(content: bytes) -> Document | None:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def join(parts: Mapping[str, Document], table: RouteTable, url: str) -> Document:
    joined: Document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Polyclinic",
            "version": "1",
            "description": "All services behind one address. Errors are problem documents (RFC 9457).",
        },
        "servers": [{"url": url or "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": service} for service in parts],
        "paths": {},
        "components": {"schemas": {}, "securitySchemes": BEARER},
    }
    for service, part in parts.items():
        _add(joined, service, part, table, sorted(parts))
    describe_joined_pages(joined)
    return joined


def _add(joined: Document, service: str, part: Document, table: RouteTable, services: list[str]) -> None:
    schemas: Document = part.get("components", {}).get("schemas", {})
    taken = joined["components"]["schemas"]
    renamed = _renamed(service, schemas, taken)
    for name, schema in schemas.items():
        own_name = renamed.get(name, name)
        # Generators of clients name classes by the title.
        title = {"title": own_name} if name in renamed else {}
        taken[own_name] = with_new_references(schema, renamed) | title
    for path, item in _public_paths(service, part, table, services):
        operations = {
            method: _operation(service, path, operation, table) for method, operation in item.items()
        }
        joined["paths"].setdefault(path, with_new_references(operations, renamed))


def _renamed(service: str, schemas: Document, taken: Document) -> dict[str, str]:
    """Name anew what another service's schema of the same name isn't, and whatever refers to that."""
    other = {name for name, schema in schemas.items() if taken.get(name, schema) != schema}
    shared = schemas.keys() & taken.keys()
    while more := {name for name in shared - other if other & set(_references(schemas[name]))}:
        other |= more
    prefix = service.title().replace("-", "")
    return {name: f"{prefix}{name}" for name in other}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, str) and node.startswith(SCHEMAS):
        yield node.removeprefix(SCHEMAS)
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _references(child)


def _public_paths(
    service: str, part: Document, table: RouteTable, services: list[str]
) -> Iterator[tuple[str, dict[str, Document]]]:
    for path, item in part.get("paths", {}).items():
        route = table.match(path)
        operations = {method: item[method] for method in METHODS if method in item}
        if route is not None and route.service == service:
            yield path, operations
        elif route is None and is_operations_path(path):
            yield from through_gateway(path, operations, services)


def _operation(service: str, path: str, operation: Document, table: RouteTable) -> Document:
    route = table.match(path)
    tag = service if route is not None else "operations"
    public = route is not None and route.credentials is Credentials.PUBLIC
    rest = {name: value for name, value in operation.items() if name not in ("tags", "security")}
    return {"tags": [tag], **({"security": []} if public else {}), **rest}


def with_new_references(node: Any, renamed: Mapping[str, str]) -> Any:
    """Copy a piece of the document with its references to renamed schemas changed."""
    if not renamed:
        return node
    if isinstance(node, dict):
        return {name: with_new_references(value, renamed) for name, value in node.items()}
    if isinstance(node, list):
        return [with_new_references(value, renamed) for value in node]
    if isinstance(node, str) and node.startswith(SCHEMAS):
        name = node.removeprefix(SCHEMAS)
        return SCHEMAS + renamed.get(name, name)
    return node
