"""For tests of traces: what would have left the process, scrubbed as ever; and a collector to send it to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ExportedSpan
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from clinic_shared.trace_scrubbing import ScrubbingExporter
from clinic_shared.trace_setup import tracing_through


class Spans:
    """The spans that ended, in that order."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def named(self, start: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name.startswith(start)]

    def one(self, start: str) -> ReadableSpan:
        found = self.named(start)
        assert len(found) == 1, [span.name for span in self.all]  # noqa: S101  # an assertion of tests
        return found[0]

    def text(self) -> str:
        """Everything in them as one text, escapes undone."""
        whole = "\n".join(span.to_json() for span in self.all)
        return whole.encode().decode("unicode_escape")


@contextmanager
def recorded(*, ratio: float = 1.0) -> Iterator[Spans]:
    """Trace what happens within, in this process."""
    exporter = InMemorySpanExporter()
    with tracing_through(SimpleSpanProcessor(ScrubbingExporter(exporter)), service="test", ratio=ratio):
        yield Spans(exporter)


@dataclass
class Collector:
    """What arrived at an OTLP collector, by the services' names. It answers only while `is_open`."""

    url: str = ""
    spans: list[tuple[str, ExportedSpan]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    is_open: threading.Event = field(default_factory=threading.Event)

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            name = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            self.spans += [(name, span) for scope in resource.scope_spans for span in scope.spans]

    def of_trace(self, trace_id: str) -> list[tuple[str, ExportedSpan]]:
        return [(service, span) for service, span in self.spans if span.trace_id.hex() == trace_id]


@contextmanager
def collecting(*, answers: bool = True) -> Iterator[Collector]:
    """Listen as a collector does; without `answers` it takes requests and lets them wait."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.is_open.wait()
            collector.take(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep standard error for the tests."""

    if answers:
        collector.is_open.set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collector.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield collector
        collector.is_open.set()
        server.shutdown()
