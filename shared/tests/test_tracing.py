"""Switching tracing on: what is kept of it, what may leave, and what happens when nobody takes it."""

import logging
import socket
import time
from uuid import uuid4

import pytest
from clinic_shared import trace_setup, tracing
from clinic_shared.ids import uuid7
from clinic_shared.testing_spans import Spans, collecting
from clinic_shared.trace_scrubbing import ALLOWED, scrubbed
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = CALLER[:-2] + "00"


@pytest.mark.parametrize("spans", [0.25], indirect=True)
def test_a_part_of_the_traces_is_kept_whole_whatever_the_caller_wants(spans: Spans) -> None:
    for given in (CALLER, UNSAMPLED, None):
        for _ in range(400):
            trace_id = uuid4()
            mine = given and given.replace(given[3:35], trace_id.hex)
            with tracing.serving(mine, trace_id=trace_id, ids={}, trusted=False) as front:
                tracing.serving(front.traceparent, trace_id=uuid4(), ids={}).__exit__(None, None, None)
    by_trace: dict[int, int] = {}
    for span in spans.all:
        by_trace[span.context.trace_id] = by_trace.get(span.context.trace_id, 0) + 1
    assert set(by_trace.values()) == {2}
    assert 200 < len(by_trace) < 400


def test_ids_made_of_time_are_sampled_as_any(spans: Spans) -> None:
    tracing.switch(tracing._switch.tracer, 0.25)
    kept = sum(tracing.is_kept(uuid7().int) for _ in range(4000))
    assert 600 < kept < 1400


@pytest.mark.parametrize("kind", SpanKind)
def test_whatever_an_instrumentation_notes_only_the_list_leaves(kind: SpanKind) -> None:
    context = SpanContext(
        1, 2, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState([("v", "anna")])
    )
    noted = dict.fromkeys(
        (
            *ALLOWED[kind],
            "url.full",
            "url.path",
            "url.query",
            "db.statement.parameters",
            "db.user",
            "enduser.id",
        ),
        "Anna Testova, /v1/patients/0190cafe-0000-7000-8000-000000000000",
    )
    exception = {
        "exception.message": "anna",
        "exception.stacktrace": 'File "anna"',
        "exception.type": "Anna T",
    }
    noisy = ReadableSpan(
        name="GET /v1/patients?q=Anna",
        context=context,
        parent=context,
        kind=kind,
        resource=Resource({"service.name": "probe"}),
        attributes=noted,
        events=[SpanEvent("exception", exception), SpanEvent("anna", {"name": "anna"})],
        links=[Link(context, {"name": "anna"})],
        status=Status(StatusCode.ERROR, "anna"),
    )
    left = scrubbed(noisy)
    told = left.to_json().lower()
    if kind is SpanKind.CLIENT:
        # A statement is SQL: what it may hold is looked at where it comes from.
        told = told.replace(str(noted["db.statement"]).lower(), "")
    assert "anna" not in told
    assert "cafe" not in told
    assert left.status.status_code is StatusCode.ERROR


@pytest.fixture
def dead_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def trace_something(url: str, monkeypatch: pytest.MonkeyPatch, count: int = 5000) -> tuple[float, float]:
    """Return how long the spans took, and how long the end of the process."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setattr(trace_setup, "FLUSH_SECONDS", 0.5)
    with tracing.exporting("probe"):
        started_at = time.monotonic()
        for _ in range(count):
            with tracing.serving(None, trace_id=uuid7(), ids={}):
                pass
        traced_at = time.monotonic()
    return traced_at - started_at, time.monotonic() - traced_at


def test_a_collector_that_is_away_holds_up_nobody_and_is_logged_once(
    dead_port: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.DEBUG):
        took, ending = trace_something(dead_port, monkeypatch)
    assert took < 30
    assert ending < 9
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert capfd.readouterr().out.count("traces_not_exported") <= 1


def test_a_collector_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting(answers=False) as collector:
        took, ending = trace_something(collector.url, monkeypatch)
    assert took < 30
    assert ending < 9


def test_what_is_left_at_the_end_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        trace_something(collector.url, monkeypatch, count=700)
    assert [service for service, _ in collector.spans] == ["probe"] * 700


@pytest.mark.parametrize("ratio", ["2", "-1", "all", ""])
def test_a_wrong_ratio_means_no_traces_and_a_line_in_the_log(
    ratio: str, dead_port: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", dead_port)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    with tracing.exporting("probe"):
        assert tracing.transaction() is tracing.OFF
        assert tracing.here() is None
    assert "tracing_misconfigured" in capfd.readouterr().out


@pytest.mark.parametrize("variable", ["", "OTEL_SDK_DISABLED"])
def test_it_is_off_unless_an_endpoint_is_given(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        monkeypatch.setenv(variable, "true")
    with tracing.exporting("probe"):
        assert tracing.calling("patients") is tracing.OFF
        assert tracing.created("x.y.v1", event_id=uuid7(), correlation_id=uuid7(), traceparent=None) is None
