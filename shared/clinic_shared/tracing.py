"""OpenTelemetry traces: one from the gateway through events and queues to what their consumers do.

Off unless an OTLP endpoint is configured; every hook then costs one look at a variable. A message
takes its creation context along and whoever handles it links to that; while the event is live it is
the parent too, so that all of it is one trace. What may be told of a span: `trace_scrubbing.py`.
"""

import os
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

from opentelemetry import context as current_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from clinic_shared.envelope import PREFIX, Envelope
from clinic_shared.errors import DomainError
from clinic_shared.telemetry import class_name, describe_error
from clinic_shared.topology import event_exchange, event_queue

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from clinic_shared.broker import OutgoingMessage
    from clinic_shared.intake_store import Item

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
DISABLED = "OTEL_SDK_DISABLED"

# W3C Trace Context, 3.2: version 00; all-zero ids are invalid.
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
_LIVE = "live"
_OPERATION_TYPES = {"create": "create", "publish": "send", "process": "process"}
_ROOT = Context()
_SUPPRESSED = "suppress_instrumentation"  # as opentelemetry.instrumentation.utils reads it


class Span:
    """What the platform's code sees of a span. Without tracing it is this, and nothing happens."""

    def __init__(self, traceparent: str = "") -> None:
        self.traceparent = traceparent
        """To be sent along."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        return

    def answered(self, method: str, route: str | None, status: int) -> None:
        """Tell of an HTTP answer. `route` is a template, never a path."""

    def failed(self, error: Exception) -> None:
        """Tell of an error that doesn't leave the span: its class and places, never its message."""

    def tell(self, key: str, value: str | int) -> None:
        """Tell what the allow-list of `trace_scrubbing.py` lets out."""


OFF = Span()


class _Recorded(Span):
    def __init__(self, span: trace.Span, *, is_current: bool = True, fails_from: int = _SERVER_ERROR) -> None:
        super().__init__(_traceparent_of(span.get_span_context()))
        self._span = span
        self._is_current = is_current
        self._fails_from = fails_from
        self._token: Token[Context] | None = None

    def __enter__(self) -> Self:
        if self._is_current:
            context = trace.set_span_in_context(self._span)
            if not self._span.is_recording():
                # Instrumentations make a span for each statement even when none of them is kept.
                context = current_context.set_value(_SUPPRESSED, True, context)
            self._token = current_context.attach(context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._token is not None:
            current_context.detach(self._token)
        if isinstance(error, Exception):
            self.failed(error)
        self._span.end()

    def failed(self, error: Exception) -> None:
        if not self._span.is_recording():
            return
        self.tell("error.type", class_name(error))
        if isinstance(error, DomainError) and error.status < _SERVER_ERROR:
            return  # a refusal is an answer
        places = "\n".join(describe_error(error)["error_frames"])
        told = {"exception.type": class_name(error), "exception.stacktrace": places}
        self._span.add_event("exception", told)
        self._span.set_status(Status(StatusCode.ERROR))

    def answered(self, method: str, route: str | None, status: int) -> None:
        self._span.update_name(f"{method} {route}" if route else method)
        self.tell("http.request.method", method)
        self.tell("http.response.status_code", status)
        if route:
            self.tell("http.route", route)
        if status >= self._fails_from and self._span.is_recording():
            self.tell("error.type", str(status))
            self._span.set_status(Status(StatusCode.ERROR))

    def tell(self, key: str, value: str | int) -> None:
        self._span.set_attribute(key, value)


class _Switch:
    tracer: trace.Tracer | None = None
    ratio = 1.0


_switch = _Switch()
root_id: ContextVar[int | None] = ContextVar("clinic_root_trace_id", default=None)
"""The id of a trace that begins now."""


def switch(tracer: trace.Tracer | None, ratio: float = 1.0) -> None:
    """Switch tracing on, or off with None. Only for `trace_setup.py`."""
    _switch.tracer, _switch.ratio = tracer, ratio


def exporting(service: str) -> "AbstractContextManager[None]":
    """Trace this process if an endpoint is configured. On leaving, what is left is sent within seconds.

    To be entered after a fork: spans leave on a thread.
    """
    if not any(os.environ.get(name) for name in ENDPOINTS) or os.environ.get(DISABLED, "").lower() == "true":
        return nullcontext()
    from clinic_shared import trace_setup  # noqa: PLC0415  # the SDK is loaded where it is used

    return trace_setup.exporting(service)


def serving(traceparent: str | None, *, trace_id: UUID, ids: Mapping[str, str], trusted: bool = True) -> Span:
    """A request that came in. Without the caller's `traceparent` a trace begins, with `trace_id`.

    A caller who isn't `trusted` is followed in the trace, but doesn't decide that it is recorded.
    """
    if (tracer := _switch.tracer) is None:
        return Span(_continued(traceparent, trace_id))
    parent = _context_from(traceparent)
    if parent is not None and not trusted:
        flags = TraceFlags(TraceFlags.SAMPLED if is_kept(parent.trace_id) else TraceFlags.DEFAULT)
        parent = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
    with _beginning(trace_id):
        return _Recorded(tracer.start_span("request", _below(parent), SpanKind.SERVER, dict(ids)))


def calling(service: str) -> Span:
    """A request that goes out to one of our services."""
    if (tracer := _switch.tracer) is None:
        return OFF
    span = tracer.start_span("call", kind=SpanKind.CLIENT, attributes={"server.address": service})
    return _Recorded(span, is_current=False, fails_from=_CLIENT_ERROR)


def transaction() -> Span:
    """A transaction, if it belongs to something: a worker's idle look for work doesn't."""
    tracer = _switch.tracer
    if tracer is None or not trace.get_current_span().is_recording():
        return OFF
    return _Recorded(tracer.start_span("transaction"))


def created(event_type: str, *, event_id: UUID, correlation_id: UUID, traceparent: str | None) -> str | None:
    """Note that an event came to be; return its creation context, to be kept and sent with it."""
    if (tracer := _switch.tracer) is None:
        return traceparent
    current = trace.get_current_span().get_span_context()
    parent = current if current.is_valid else _context_from(traceparent)
    message = _message("create", event_type, event_id, correlation_id)
    with _beginning(correlation_id):
        span = tracer.start_span(f"create {event_type}", _below(parent), SpanKind.PRODUCER, message)
    span.end()
    return _traceparent_of(span.get_span_context())


def here() -> str | None:
    """Return what links to the current span, to be kept with what it leaves for later."""
    if _switch.tracer is None:
        return None
    current = trace.get_current_span().get_span_context()
    return _traceparent_of(current) if current.is_valid else None


def sending(message: "OutgoingMessage") -> Span:
    """An event on its way to the broker."""
    if (tracer := _switch.tracer) is None:
        return OFF
    told = {
        name: message.headers.get(PREFIX + name) for name in ("id", "correlationid", "origin", "traceparent")
    }
    destination = f"{message.exchange}:{message.routing_key}"
    # Not a PRODUCER: that is who made the creation context, which travels on unchanged.
    return _handling(
        tracer,
        SpanKind.CLIENT,
        _message("publish", destination, told["id"], told["correlationid"]),
        traceparent=told["traceparent"],
        is_live=told["origin"] == _LIVE,
        is_current=False,
    )


def processing(envelope: Envelope, *, consumer: str) -> Span:
    """An event at its consumer, from the first statement to the commit."""
    if (tracer := _switch.tracer) is None:
        return OFF
    queue = event_queue(consumer, envelope.source)
    destination = f"{event_exchange(envelope.source)}:{envelope.type}:{queue}"
    return _handling(
        tracer,
        SpanKind.CONSUMER,
        _message("process", destination, envelope.id, envelope.correlation_id),
        traceparent=envelope.traceparent,
        is_live=envelope.origin == _LIVE,
    )


def taking_up(item: "Item") -> Span:
    """What was accepted from outside and has waited in a table, being worked off."""
    if (tracer := _switch.tracer) is None:
        return OFF
    message = _message("process", f"intake:{item.interface}", item.id, item.correlation_id)
    message["messaging.system"] = "postgresql"
    return _handling(tracer, SpanKind.CONSUMER, message, traceparent=item.traceparent, is_live=True)


def firing(kind: str, *, traceparent: str | None) -> Span:
    """A timer. It begins a trace of its own: a reminder would keep that of its booking open for days."""
    if (tracer := _switch.tracer) is None:
        return OFF
    origin = _context_from(traceparent)
    links = [Link(origin)] if origin else []
    told = {"clinic.timer": kind}
    return _Recorded(tracer.start_span(f"timer {kind}", _ROOT, attributes=told, links=links))


def _handling(
    tracer: trace.Tracer,
    kind: SpanKind,
    message: dict[str, str],
    *,
    traceparent: str | None,
    is_live: bool,
    is_current: bool = True,
) -> Span:
    """Handle what was created elsewhere: linked to its creation, and below it while it is live."""
    creation = _context_from(traceparent)
    span = tracer.start_span(
        f"{message['messaging.operation.name']} {message['messaging.destination.name']}",
        _below(creation if is_live else None),
        kind,
        message,
        links=[Link(creation)] if creation else [],
    )
    return _Recorded(span, is_current=is_current)


def _message(operation: str, destination: str, message_id: object, conversation_id: object) -> dict[str, str]:
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": operation,
        "messaging.operation.type": _OPERATION_TYPES[operation],
        "messaging.destination.name": destination,
        "messaging.message.id": str(message_id),
        "messaging.message.conversation_id": str(conversation_id),
    }


@contextmanager
def _beginning(trace_id: UUID) -> Iterator[None]:
    token = root_id.set(trace_id.int)
    try:
        yield
    finally:
        root_id.reset(token)


def _below(parent: SpanContext | None) -> Context:
    return _ROOT if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), _ROOT)


def _context_from(traceparent: str | None) -> SpanContext | None:
    parts = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if parts is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in parts.groups())
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))


def _continued(traceparent: str | None, trace_id: UUID) -> str:
    """Hand a trace on without taking part in it; or name one, so that its events can be found by it."""
    if traceparent and _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    return f"00-{trace_id.hex}-{secrets.token_hex(8)}-00"


def _traceparent_of(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & TraceFlags.SAMPLED:02x}"


def is_kept(trace_id: int) -> bool:
    """Decide by the trace's id alone, so that all who ask about one trace decide alike.

    Hashed first: ids that are UUIDv7s share their bits with the neighbours in time.
    """
    return zlib.crc32(trace_id.to_bytes(16, "big")) < _switch.ratio * (1 << 32)
