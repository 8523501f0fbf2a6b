"""The outermost layer of a service's HTTP: ids in, headers out, metrics, one log line, the unexpected.

Nothing of a request gets into a log line or a metric but its method and its route's template.
"""

import re
import time
from uuid import UUID

import structlog
from fastapi import Response
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clinic_shared import deadlines
from clinic_shared.ids import uuid7
from clinic_shared.metrics import HTTP_REQUEST_SECONDS, HTTP_REQUESTS, REFUSALS, UNEXPECTED_ERRORS
from clinic_shared.problems import PROBLEM, REQUEST_ID, unexpected_problem
from clinic_shared.telemetry import class_name

log = structlog.get_logger()

_CORRELATION = "clinic.correlation"
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# W3C Trace Context, 3.2: a trace id or parent id of zeros is invalid.
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
PROBES = frozenset({"/healthz", "/readyz", "/metrics", "/version", "/openapi.json"})
"""Asked by machines every few seconds: counted, but not logged."""
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_CLIENT_CLOSED_REQUEST = 499


class AnswerAbortedError(Exception):
    """The answer broke off after its first bytes; the server closes the connection."""


def correlation_of(scope: Scope) -> tuple[UUID, str]:
    """Return the request's correlation id and traceparent."""
    correlation: tuple[UUID, str] = scope[_CORRELATION]
    return correlation


def _uuid_from(header: bytes | None) -> UUID:
    # Only UUIDs are taken over: free text would carry anything into logs and answers.
    return UUID(header.decode()) if header is not None and _UUID.fullmatch(header) else uuid7()


def _traceparent_from(header: bytes | None, correlation_id: UUID) -> str:
    if header is not None and _TRACEPARENT.fullmatch(header):
        return header.decode()
    return f"00-{correlation_id.hex}-{uuid7().hex[16:]}-00"


class _Exchange:
    """What is known of one request and its answer so far."""

    def __init__(self, scope: Scope, send: Send) -> None:
        headers = dict(scope["headers"])
        self.request_id = _uuid_from(headers.get(b"x-request-id"))
        self.correlation_id = _uuid_from(headers.get(b"x-correlation-id"))
        deadlines.read(scope)
        self.scope = scope
        self.status = 0
        self._send = send
        scope[REQUEST_ID] = self.request_id
        scope[_CORRELATION] = (
            self.correlation_id,
            _traceparent_from(headers.get(b"traceparent"), self.correlation_id),
        )

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = str(self.request_id)
            headers["X-Correlation-Id"] = str(self.correlation_id)
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    @property
    def route(self) -> str:
        route = self.scope.get("route")
        if isinstance(route, APIRoute):
            return route.path_format
        path: str = self.scope["path"]
        return path if path in PROBES else "unmatched"


class EdgeMiddleware:
    """Wraps the whole application. No exception leaves it, so no server logs one with its message."""

    def __init__(self, app: ASGIApp, service: str) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_at = time.perf_counter()
        exchange = _Exchange(scope, send)
        with structlog.contextvars.bound_contextvars(
            request_id=exchange.request_id, correlation_id=exchange.correlation_id
        ):
            await self._run(exchange, receive)
            self._tell(exchange, time.perf_counter() - started_at)

    async def _run(self, exchange: _Exchange, receive: Receive) -> None:
        try:
            await self.app(exchange.scope, receive, exchange.send)
        except ClientDisconnect:
            exchange.status = _CLIENT_CLOSED_REQUEST
        except Exception as error:  # noqa: BLE001  # the last stop: logged, counted, answered
            if exchange.status:
                UNEXPECTED_ERRORS.labels(class_name(error)).inc()
                raise AnswerAbortedError from None
            response: Response = unexpected_problem(exchange.scope, error)
            await response(exchange.scope, receive, exchange.send)

    def _tell(self, exchange: _Exchange, seconds: float) -> None:
        route, method = exchange.route, exchange.scope["method"]
        if method not in _METHODS:
            method = "OTHER"  # what strangers invent would be labels without end
        HTTP_REQUESTS.labels(self.service, route, method, str(exchange.status)).inc()
        HTTP_REQUEST_SECONDS.labels(self.service, route, method).observe(seconds)
        if problem := exchange.scope.get(PROBLEM):
            REFUSALS.labels(self.service, route, method, problem).inc()
        if route in PROBES:
            return
        log.info(
            "http_request",
            method=method,
            route=route,
            status=exchange.status,
            duration_ms=round(seconds * 1000, 2),
        )
