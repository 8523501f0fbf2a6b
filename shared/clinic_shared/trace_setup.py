"""Switching tracing on for a process: sampler, resource, and the way to the collector.

Configured by OpenTelemetry's own variables, which every collector's manual names. A collector that is
away costs spans, never a request.
"""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
)
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from clinic_shared import tracing
from clinic_shared.trace_scrubbing import ScrubbingExporter

log = structlog.get_logger()

RATIO = "OTEL_TRACES_SAMPLER_ARG"
FLUSH_SECONDS = 3.0

# They tell of every batch that fails, and of every span that finds the queue full.
_TALKATIVE = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")


@contextmanager
def exporting(service: str) -> Iterator[None]:
    """Trace this process as the environment says."""
    try:
        ratio = _ratio(os.environ.get(RATIO, "1"))
        exporter = _otlp_exporter()
    except ValueError as error:
        # Traces are for whoever looks into the system: without them it still has to run.
        log.error("tracing_misconfigured", exc_info=error)  # noqa: TRY400  # its message may hold a secret
        yield
        return
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    processor = BatchSpanProcessor(ScrubbingExporter(exporter))
    with tracing_through(processor, service=service, ratio=ratio):
        yield


@contextmanager
def tracing_through(processor: SpanProcessor, *, service: str, ratio: float) -> Iterator[None]:
    """Trace this process; spans that end go to the processor."""
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor  # noqa: PLC0415  # only when on

    provider = TracerProvider(
        sampler=_KeepOrDropWhole(),
        resource=_resource(service),
        id_generator=_GivenTraceIds(),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(processor)
    statements = PsycopgInstrumentor()
    statements.instrument(tracer_provider=provider, skip_dep_check=True)
    tracing.switch(provider.get_tracer("clinic"), ratio)
    try:
        yield
    finally:
        tracing.switch(None)
        statements.uninstrument()
        _shut_down(provider)


def _shut_down(provider: TracerProvider) -> None:
    """Send what is left. On a thread, since no step of it keeps to a deadline by itself."""
    ending = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
    ending.start()
    ending.join(FLUSH_SECONDS)
    if ending.is_alive():
        log.warning("traces_left_behind")


def _ratio(text: str) -> float:
    ratio = float(text)
    if not 0 <= ratio <= 1:
        raise ValueError(f"{RATIO} must lie between 0 and 1")
    return ratio


def _otlp_exporter() -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # only when on

    return OTLPSpanExporter()


def _resource(service: str) -> Resource:
    # Not `Resource.create`: its detectors add the command line.
    own = {
        "service.name": service,
        "service.namespace": "polyclinic",
        "service.version": version("clinic-shared"),
        "service.instance.id": f"{os.uname().nodename}:{os.getpid()}",
    }
    return OTELResourceDetector().detect().merge(Resource(own))


class _GivenTraceIds(RandomIdGenerator):
    """A trace that begins with a request has the request's id, so that people look for one id."""

    def generate_trace_id(self) -> int:
        return tracing.root_id.get() or super().generate_trace_id()


class _KeepOrDropWhole(Sampler):
    """Whoever begins a trace decides by its id; all others do as their parent or link did."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,  # noqa: ARG002
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,  # noqa: ARG002
    ) -> SamplingResult:
        parent = trace.get_current_span(parent_context).get_span_context()
        if parent.is_valid:
            keep = parent.trace_flags.sampled
        elif links:
            keep = links[0].context.trace_flags.sampled
        else:
            # A statement that belongs to nothing is a worker's look for work.
            keep = kind is not SpanKind.CLIENT and tracing.is_kept(trace_id)
        return SamplingResult(Decision.RECORD_AND_SAMPLE if keep else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "KeepOrDropWhole"
