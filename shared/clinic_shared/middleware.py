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

from clinic_shared import deadlines, tracing
from clinic_shared.ids import uuid7
from clinic_shared.metrics import HTTP_REQUEST_SECONDS, HTTP_REQUESTS, REFUSALS, UNEXPECTED_ERRORS
from clinic_shared.problems import PROBLEM, REQUEST_ID, unexpected_problem
from clinic_shared.telemetry import class_name

log = structlog.get_logger()

_CORRELATION = "clinic.correlation"
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
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


def _uuid_from(header: bytes | None) -> UUID | None:
    # Only UUIDs are taken over: free text would carry anything into logs and answers.
    return UUID(header.decode()) if header is not None and _UUID.fullmatch(header) else None


class _Exchange:
    """What is known of one request and its answer so far."""

    def __init__(self, scope: Scope, send: Send) -> None:
        headers = dict(scope["headers"])
        self.request_id = _uuid_from(headers.get(b"x-request-id")) or uuid7()
        # A caller who names no journey gets one id for all: it finds log lines, events and the trace.
        self.correlation_id = _uuid_from(headers.get(b"x-correlation-id")) or self.request_id
        deadlines.read(scope)
        self.scope = scope
        self.status = 0
        self._send = send
        self.span = self._begin_span(headers.get(b"traceparent"))
        scope[REQUEST_ID] = self.request_id
        scope[_CORRELATION] = (self.correlation_id, self.span.traceparent)

    def _begin_span(self, given: bytes | None) -> tracing.Span:
        if self.scope["path"] in PROBES:
            return tracing.Span()
        ids = {"clinic.request_id": str(self.request_id), "clinic.correlation_id": str(self.correlation_id)}
        traceparent = given.decode("latin-1") if given else None
        return tracing.serving(traceparent, trace_id=self.correlation_id, ids=ids)

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
    def method(self) -> str:
        method: str = self.scope["method"]
        return method if method in _METHODS else "OTHER"  # what strangers invent would be labels without end

    @property
    def template(self) -> str | None:
        route = self.scope.get("route")
        return route.path_format if isinstance(route, APIRoute) else None

    @property
    def route(self) -> str:
        path: str = self.scope["path"]
        return self.template or (path if path in PROBES else "unmatched")


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
            with exchange.span:
                await self._run(exchange, receive)
                exchange.span.answered(exchange.method, exchange.template, exchange.status)
            self._tell(exchange, time.perf_counter() - started_at)

    async def _run(self, exchange: _Exchange, receive: Receive) -> None:
        try:
            await self.app(exchange.scope, receive, exchange.send)
        except ClientDisconnect:
            exchange.status = _CLIENT_CLOSED_REQUEST
        except Exception as error:  # noqa: BLE001  # the last stop: logged, counted, answered
            exchange.span.failed(error)
            if exchange.status:
                UNEXPECTED_ERRORS.labels(class_name(error)).inc()
                raise AnswerAbortedError from None
            response: Response = unexpected_problem(exchange.scope, error)
            await response(exchange.scope, receive, exchange.send)

    def _tell(self, exchange: _Exchange, seconds: float) -> None:
        route, method = exchange.route, exchange.method
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
