"""The last gate of a trace: what isn't on the list here doesn't leave the process.

Spans are copied, not filtered where they are made: an instrumentation that notes more than it should
(a path, a statement's values, an exception's message) can't get round a list of what may go.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status
from prometheus_client import Counter

from clinic_shared.metrics import REGISTRY

log = structlog.get_logger()

SPANS = Counter("clinic_trace_spans_total", "Spans handed to the collector", ["outcome"], registry=REGISTRY)

Form = Callable[[Any], Any]
"""Returns the value as it may be shown, or None when it isn't what its key says it is."""

_STRING_LITERAL = re.compile(r"'(?:[^']|'')*'")
_MAX_STATEMENT = 2000


def _text(pattern: str) -> Form:
    whole = re.compile(pattern)
    return lambda value: value if isinstance(value, str) and whole.fullmatch(value) else None


def _number(value: Any) -> int | None:
    return value if type(value) is int else None


def _statement(value: Any) -> str | None:
    """Values are bound, never part of a statement; a literal that somebody wrote into one is taken out."""
    return _STRING_LITERAL.sub("'?'", value)[:_MAX_STATEMENT] if isinstance(value, str) else None


_code = _text(r"[A-Za-z0-9_.:-]{1,160}")
_uuid = _text(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_template = _text(r"(?:/(?:[a-z0-9A-Z._-]*[a-zA-Z_-][a-z0-9A-Z._-]*|\{\w+\}|\*)?){1,12}")
_frames = _text(r"(?:[\w.<>-]+:[\w<>]+:\d+\n?){1,32}")
_name = _text(r"[A-Za-z][A-Za-z0-9_.:/{}* -]{0,200}")

_MESSAGING: Mapping[str, Form] = {
    "messaging.system": _code,
    "messaging.operation.name": _code,
    "messaging.operation.type": _code,
    "messaging.destination.name": _code,
    "messaging.rabbitmq.destination.routing_key": _code,
    "messaging.message.id": _uuid,
    "messaging.message.conversation_id": _uuid,
    "error.type": _code,
    "clinic.disposition": _code,
    "clinic.interface": _code,
    "clinic.outcome": _code,
}

ALLOWED: Mapping[SpanKind, Mapping[str, Form]] = {
    SpanKind.SERVER: {
        "http.request.method": _code,
        "http.route": _template,
        "http.response.status_code": _number,
        "error.type": _code,
        "clinic.request_id": _uuid,
        "clinic.correlation_id": _uuid,
    },
    SpanKind.CLIENT: {
        "http.request.method": _code,
        "http.response.status_code": _number,
        "server.address": _code,
        "db.system": _code,
        "db.name": _code,
        "db.statement": _statement,
        **_MESSAGING,
    },
    SpanKind.PRODUCER: _MESSAGING,
    SpanKind.CONSUMER: _MESSAGING,
    SpanKind.INTERNAL: {
        "error.type": _code,
        "clinic.timer": _code,
        "clinic.outcome": _code,
        "clinic.events": _number,
    },
}
"""What each kind of span may tell, and in which form. No key may hold an address or a name of a person,
an id of a patient or text that somebody typed.
"""

_ALLOWED_OF_EXCEPTIONS: Mapping[str, Form] = {"exception.type": _code, "exception.stacktrace": _frames}


def scrubbed(span: ReadableSpan) -> ReadableSpan:
    """Return a copy with nothing in it but what may leave."""
    return ReadableSpan(
        name=_name(span.name) or span.kind.name.lower(),
        context=_bare(span.context),
        parent=_bare(span.parent),
        resource=span.resource,
        attributes=_kept(span.attributes, ALLOWED[span.kind]),
        events=[_event(event) for event in span.events if event.name == "exception"],
        links=[Link(context) for link in span.links if (context := _bare(link.context))],
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _event(event: Event) -> Event:
    return Event(event.name, _kept(event.attributes, _ALLOWED_OF_EXCEPTIONS), event.timestamp)


def _kept(attributes: Mapping[str, Any] | None, allowed: Mapping[str, Form]) -> dict[str, Any]:
    shown = {key: allowed[key](value) for key, value in (attributes or {}).items() if key in allowed}
    return {key: value for key, value in shown.items() if value is not None}


def _bare(context: SpanContext | None) -> SpanContext | None:
    """The ids without the trace state: that is free text of whoever called."""
    if context is None:
        return None
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


class ScrubbingExporter(SpanExporter):
    """Hands clean copies to the exporter proper; says once that it can't, and once that it can again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export([scrubbed(span) for span in spans])
        exported = result is SpanExportResult.SUCCESS
        SPANS.labels("exported" if exported else "failed").inc(len(spans))
        if exported and self._failed:
            log.info("traces_exported_again", missing=self._failed)
            self._failed = 0
        elif not exported:
            if not self._failed:
                log.warning("traces_not_exported", reason="the collector doesn't take them")
            self._failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
