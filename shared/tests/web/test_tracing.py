"""A request's spans: one trace with its statements and events, and nothing of a patient in any of them."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from clinic_shared import tracing
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.testing import ServiceHarness
from clinic_shared.testing_spans import Spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from sqlalchemy import text

CANARY = "Канарейкина"
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = CALLER[:-2] + "00"


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


async def test_a_request_is_one_trace_with_its_transaction_and_statements(
    probe: ServiceHarness, writer: Principal, spans: Spans
) -> None:
    headers = probe.headers(writer) | {"traceparent": CALLER}
    answer = await probe.http.post("/v1/notes", json={"text": "a note"}, headers=headers)
    assert answer.status_code == 201
    server = spans.one("POST /v1/notes")
    transaction = spans.one("transaction")
    assert f"{parent_of(server):016x}" == CALLER[36:52]
    assert parent_of(transaction) == server.context.span_id
    statements = spans.named("INSERT")
    assert {parent_of(span) for span in statements} == {transaction.context.span_id}
    assert {f"{span.context.trace_id:032x}" for span in spans.all} == {CALLER[3:35]}
    assert dict(server.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/notes",
        "http.response.status_code": 201,
        "clinic.request_id": answer.headers["x-request-id"],
        "clinic.correlation_id": answer.headers["x-correlation-id"],
    }


async def test_without_a_caller_the_trace_has_the_requests_id(
    probe: ServiceHarness, reader: Principal, spans: Spans
) -> None:
    answer = await probe.http.get("/v1/me", headers=probe.headers(reader))
    server = spans.one("GET /v1/me")
    assert server.parent is None
    assert UUID(int=server.context.trace_id) == UUID(answer.headers["x-request-id"])
    assert answer.headers["x-correlation-id"] == answer.headers["x-request-id"]
    assert answer.json()["traceparent"] == (
        f"00-{server.context.trace_id:032x}-{server.context.span_id:016x}-01"
    )


async def test_probes_leave_no_spans(probe: ServiceHarness, spans: Spans) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/version"):
        await probe.http.get(path)
    assert spans.all == ()


async def test_a_workers_look_for_work_leaves_no_spans(probe: ServiceHarness, spans: Spans) -> None:
    await probe.fire_timers()
    assert spans.all == ()


async def test_nothing_of_a_patient_is_in_any_span(
    probe: ServiceHarness, writer: Principal, reader: Principal, spans: Spans
) -> None:
    patient_id, note_id = uuid4(), uuid4()
    extra: dict[str, Any] = {
        "user-agent": CANARY.encode(),
        "tracestate": "vendor=signalina",
        "baggage": "name=signalina",
    }
    for path, body in (
        ("/v1/notes", {"text": CANARY}),
        ("/v1/notes/broken", {"text": CANARY, "patient_id": str(patient_id)}),
        ("/v1/notes/full", {"text": CANARY}),
        (f"/v1/notes?q={CANARY}", {"text": CANARY, CANARY: CANARY}),
        (f"/v1/{CANARY}/{patient_id}", {}),
    ):
        await probe.http.post(
            path, json=body, headers={**probe.headers(writer), **extra, "idempotency-key": str(uuid7())}
        )
    await probe.http.get(f"/v1/notes/{note_id}?q={CANARY}", headers=probe.headers(reader))
    await probe.http.get(f"/v1/patients/{patient_id}", headers=probe.headers(reader))
    await probe.http.request(CANARY, "/v1/me", headers=probe.headers(reader))
    assert {"POST /v1/notes/broken", "GET /v1/notes/{note_id}", "GET /v1/patients/{patient_id}"} <= {
        span.name for span in spans.all
    }
    told = spans.text()
    for canary in (CANARY, "signalina", str(patient_id), str(note_id), patient_id.hex):
        assert canary not in told


async def test_an_error_is_told_by_its_class_and_places(
    probe: ServiceHarness, writer: Principal, spans: Spans
) -> None:
    await probe.http.post("/v1/notes/broken", json={"text": CANARY}, headers=probe.headers(writer))
    server = spans.one("POST /v1/notes/broken")
    assert server.status.status_code is StatusCode.ERROR
    assert server.status.description is None
    (event,) = server.events
    assert set(event.attributes or {}) == {"exception.type", "exception.stacktrace"}
    assert (event.attributes or {})["exception.type"] == "RuntimeError"
    assert "conftest:break_note:" in str((event.attributes or {})["exception.stacktrace"])


async def test_a_failing_statement_keeps_its_values_to_itself(probe: ServiceHarness, spans: Spans) -> None:
    span = tracing.serving(None, trace_id=uuid7(), ids={})
    with pytest.raises(Exception, match="duplicate"), span:  # noqa: PT012
        async with probe.runtime.database.transaction() as tx:
            for _ in range(2):
                await tx.execute(
                    text("INSERT INTO note (note_id, text) VALUES (:id, :text) -- 'signalina'"),
                    {"id": UUID(int=0xCAFE), "text": CANARY},
                )
    failed = spans.named("INSERT")[1]
    assert failed.status.status_code is StatusCode.ERROR
    assert [dict(event.attributes or {}) for event in failed.events] == [
        {"exception.type": "psycopg.errors.UniqueViolation"}
    ]
    told = spans.text()
    assert not [canary for canary in (CANARY, "signalina", "cafe", "already exists") if canary in told]


@pytest.mark.parametrize(("given", "recorded"), [(CALLER, True), (UNSAMPLED, False)])
@pytest.mark.parametrize("spans", [0.0, 1.0], indirect=True)
async def test_a_service_records_what_the_gateway_decided(
    probe: ServiceHarness, reader: Principal, spans: Spans, given: str, *, recorded: bool
) -> None:
    answer = await probe.http.get("/v1/me", headers=probe.headers(reader) | {"traceparent": given})
    assert bool(spans.all) is recorded
    assert answer.json()["traceparent"][:36] + answer.json()["traceparent"][52:] == given[:36] + given[52:]
