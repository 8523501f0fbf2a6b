"""A service's API description: what FastAPI knows, and what every operation here has in common.

Security, idempotency and problem answers are put in from the routes' own declarations.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from clinic_shared import problems
from clinic_shared.idempotency import Idempotency
from clinic_shared.problem_pages import problem_pages
from clinic_shared.routing import PUBLIC, ClinicRoute

_PROBLEM_CONTENT = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}

_OUTCOME_CONTENT = _PROBLEM_CONTENT | {
    "application/fhir+json": {
        "schema": {
            "type": "object",
            "required": ["resourceType", "issue"],
            "properties": {"resourceType": {"const": "OperationOutcome"}},
        }
    }
}


def describe(app: FastAPI, *, package: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document. `x-problems` lists what the package's own errors mean."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    for route in app.routes:
        if isinstance(route, ClinicRoute) and route.include_in_schema:
            for method in route.methods or ():
                _complete(document["paths"][route.path_format][method.lower()], route)
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT (RFC 9068)"}
    }
    schemas = components.setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["Problem"] = TypeAdapter(problems.Problem).json_schema()
    document["x-problems"] = {
        slug: {"title": page.title, "status": page.status, "cause": page.cause, "fix": page.fix}
        for slug, page in problem_pages("clinic_shared", package).items()
    }
    return document


def _complete(operation: dict[str, Any], route: ClinicRoute) -> None:
    operation["security"] = [] if route.permission is PUBLIC else [{"bearer": []}]
    if route.idempotency_mode is not Idempotency.NONE:
        operation.setdefault("parameters", []).append(_idempotency_parameter(route.idempotency_mode))
    responses = operation["responses"]
    responses.pop("422", None)
    told = _OUTCOME_CONTENT if route.path_format.startswith("/fhir/") else _PROBLEM_CONTENT
    # Merged, as the answers of what people open in a browser are pages, which the route itself describes.
    pages = responses.get("default", {}).get("content", {})
    responses["default"] = {"description": "A problem (RFC 9457)", "content": told | pages}


def _idempotency_parameter(mode: Idempotency) -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": mode is Idempotency.REQUIRED,
        "description": "The same key and body within 24 hours: the same answer, one effect.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "examples": ["a fresh UUID"]},
    }
