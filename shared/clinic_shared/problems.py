"""Errors as the caller sees them: RFC 9457 `application/problem+json`, mapped here and nowhere else; below
`/fhir/` the same as an OperationOutcome.

A problem never repeats what the caller sent, since that may be about a patient: validation errors name
the place and the rule; unexpected errors say nothing at all.
"""

import http
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic_core import to_json
from sqlalchemy import exc as sqlalchemy_errors
from starlette.exceptions import HTTPException
from starlette.types import Scope

from clinic_shared.errors import DomainError, RuleError
from clinic_shared.metrics import UNEXPECTED_ERRORS
from clinic_shared.problem_pages import PROBLEMS, ProblemPage, problem_pages
from clinic_shared.telemetry import class_name, describe_error

__all__ = [
    "MEDIA_TYPE",
    "OUTAGE_HEADER",
    "PROBLEM",
    "PROBLEMS",
    "REQUEST_ID",
    "Problem",
    "ProblemPage",
    "constraint_of",
    "domain_problem",
    "install",
    "problem_pages",
    "problem_response",
    "unexpected_problem",
]

log = structlog.get_logger()

REQUEST_ID = "clinic.request_id"
"""Where the ASGI scope holds the request's id; set by `middleware.py`."""

PROBLEM = "clinic.problem"
"""Where the ASGI scope holds the slug of the problem that it was answered with."""

MEDIA_TYPE = "application/problem+json"
FHIR_PREFIX, FHIR_MEDIA_TYPE = "/fhir/", "application/fhir+json"
_FHIR_ISSUE_CODES = {
    401: "login",
    403: "forbidden",
    404: "not-found",
    408: "timeout",
    413: "too-long",
    429: "throttled",
    503: "transient",
    504: "timeout",
}
OUTAGE_RETRY_SECONDS = 2
OUTAGE_HEADER = "X-Clinic-Unavailable"
"""Tells the gateway that this 503 is about the whole service and not about one operation."""


class Problem(BaseModel):
    """The schema of every error answer (RFC 9457), for the API description."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str


def problem_response(
    scope: Scope,
    slug: str,
    *,
    title: str = "",
    status: int = 0,
    detail: str = "",
    extensions: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Make an answer; what isn't given comes from PROBLEMS."""
    scope[PROBLEM] = slug
    page = PROBLEMS.get(slug)
    title = title or (page.title if page else slug)
    status = status or (page.status if page else http.HTTPStatus.INTERNAL_SERVER_ERROR)
    if scope.get("path", "").startswith(FHIR_PREFIX):
        outcome = to_json(operation_outcome(status, title, detail or title))
        return Response(outcome, status_code=status, media_type=FHIR_MEDIA_TYPE, headers=dict(headers or {}))
    request_id = str(scope.get(REQUEST_ID, ""))
    members = {
        **(extensions or {}),
        "type": f"/problems/{slug}",
        "title": title,
        "status": status,
        "detail": detail or title,
        "instance": f"urn:uuid:{request_id}",
        "request_id": request_id,
    }
    return Response(to_json(members), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def operation_outcome(status: int, title: str, detail: str) -> dict[str, object]:
    """Say the same in FHIR R4's terms (http://hl7.org/fhir/R4/operationoutcome.html)."""
    issue = {
        "severity": "error",
        "code": _FHIR_ISSUE_CODES.get(status, "processing"),
        "details": {"text": title},
        "diagnostics": detail,
    }
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def install(app: FastAPI) -> None:
    """Map every error of this application. The unexpected is caught further out, in `middleware.py`."""
    app.add_exception_handler(DomainError, _domain_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    for outage in (
        sqlalchemy_errors.OperationalError,
        sqlalchemy_errors.InterfaceError,
        sqlalchemy_errors.TimeoutError,
        psycopg.OperationalError,
        psycopg.InterfaceError,
    ):
        app.add_exception_handler(outage, _outage)


async def _domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError)  # noqa: S101  # registered for this class alone
    return domain_problem(request.scope, error)


def domain_problem(scope: Scope, error: DomainError) -> Response:
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if error.status == http.HTTPStatus.UNAUTHORIZED:
        # RFC 6750, 3.1: without credentials the challenge names no error.
        had_credentials = any(name == b"authorization" for name, _ in scope.get("headers", ()))
        told = 'Bearer error="invalid_token"' if had_credentials else "Bearer"
        headers["WWW-Authenticate"] = getattr(error, "challenge", None) or told
    return problem_response(
        scope,
        error.slug,
        title=error.title,
        status=error.status,
        detail=error.detail,
        extensions=error.extensions,
        headers=headers,
    )


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for this class alone
    slug = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "invalid-request")
    # The status line's own words: the exception's detail may quote the request.
    title = http.HTTPStatus(error.status_code).phrase if slug == "invalid-request" else ""
    return problem_response(request.scope, slug, title=title, status=error.status_code, headers=error.headers)


async def _outage(request: Request, error: Exception) -> Response:
    log.warning("database_unavailable", **describe_error(error))
    return problem_response(
        request.scope,
        "temporarily-unavailable",
        detail="The database can't be reached or is too busy. Repeat a write with the same Idempotency-Key.",
        headers={"Retry-After": str(OUTAGE_RETRY_SECONDS)}
        | ({OUTAGE_HEADER: "database"} if _concerns_everybody(error) else {}),
    )


def _concerns_everybody(error: Exception) -> bool:
    """Tell an unreachable, full or stopping database from one statement that took too long or lost a race."""
    sqlstate = getattr(getattr(error, "orig", error), "sqlstate", None)
    return sqlstate is None or sqlstate.startswith(("08", "53", "57P"))


def unexpected_problem(scope: Scope, error: Exception) -> Response:
    """Log and count an error that nobody mapped, and answer without a word about it."""
    UNEXPECTED_ERRORS.labels(class_name(error)).inc()
    log.error("unexpected_error", **describe_error(error))
    return problem_response(scope, "unexpected")


def constraint_of(error: sqlalchemy_errors.IntegrityError) -> str | None:
    """Return the name of the violated constraint, to be translated into a domain error."""
    diagnosis = getattr(error.orig, "diag", None)
    name = getattr(diagnosis, "constraint_name", None)
    return name if isinstance(name, str) else None


_SCHEMA_ONLY = """
missing extra_forbidden string_type string_too_short string_too_long string_pattern_mismatch int_type
int_parsing int_from_float float_type float_parsing bool_type bool_parsing greater_than
greater_than_equal less_than less_than_equal multiple_of finite_number literal_error enum list_type
set_type tuple_type dict_type model_type model_attributes_type date_type datetime_type time_type
timezone_aware timezone_naive uuid_type decimal_type decimal_max_digits decimal_max_places
decimal_whole_digits none_required frozen_field union_tag_not_found
"""
_SAFE_MESSAGES = frozenset(_SCHEMA_ONLY.split())
"""Pydantic's error types whose message is made of the schema alone; others may quote the input."""

_OWN_MESSAGES = {
    "uuid_parsing": "Input should be a UUID",
    "datetime_parsing": "Input should be an RFC 3339 date and time with an offset",
    "datetime_from_date_parsing": "Input should be an RFC 3339 date and time with an offset",
    "date_parsing": "Input should be a date, YYYY-MM-DD",
    "date_from_datetime_parsing": "Input should be a date, YYYY-MM-DD",
    "time_parsing": "Input should be a time, HH:MM",
    "decimal_parsing": "Input should be a decimal number",
    "too_short": "There are too few members",
    "too_long": "There are too many members",
    "union_tag_invalid": "The tag isn't one of the expected ones",
}


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for this class alone
    route = request.scope.get("route")
    names = _declared_names(route) if isinstance(route, APIRoute) else frozenset()
    return problem_response(
        request.scope,
        "invalid-request",
        extensions={"errors": [_violation(one, names) for one in error.errors()]},
    )


def _violation(error: Mapping[str, Any], names: frozenset[str]) -> dict[str, str]:
    part, *path = error["loc"]
    code = error["type"]
    return {"in": str(part), "pointer": _pointer(path, names), "code": code, "message": _message(code, error)}


def _message(code: str, error: Mapping[str, Any]) -> str:
    if code in _SAFE_MESSAGES:
        return str(error["msg"])
    rule = error.get("ctx", {}).get("error")
    if isinstance(rule, RuleError):
        return str(rule)
    return _OWN_MESSAGES.get(code, "This value isn't valid")


def _pointer(path: list[str | int], names: frozenset[str]) -> str:
    """Return a JSON pointer in which names that the API doesn't define, so the caller's, are `*`."""
    return "".join(f"/{step}" if isinstance(step, int) or step in names else "/*" for step in path)


def _declared_names(route: APIRoute) -> frozenset[str]:
    """Return the names of a route's parameters and of all members that its body may have."""
    known = _names_by_endpoint.get(route.endpoint)
    if known is None:
        known = _names_by_endpoint[route.endpoint] = frozenset(_names(route))
    return known


_names_by_endpoint: dict[Callable[..., Any], frozenset[str]] = {}


def _names(route: APIRoute) -> Iterator[str]:
    pending = [route.dependant]
    while pending:
        dependant = pending.pop()
        pending.extend(dependant.dependencies)
        for parameters in (dependant.path_params, dependant.query_params, dependant.header_params):
            yield from (parameter.alias for parameter in parameters)
    if route.body_field is not None:
        body: Any = route.body_field.field_info.annotation
        yield from _members(TypeAdapter(body).json_schema())


def _members(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from properties
        for child in schema.values():
            yield from _members(child)
    elif isinstance(schema, list):
        for child in schema:
            yield from _members(child)
