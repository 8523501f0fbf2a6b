"""Logs and metrics: nothing of a patient gets in, even by accident."""

import io
import json
import logging
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import structlog
from clinic_shared import metrics, telemetry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

CANARY = "Kanareikina"


@pytest.fixture
def lines():
    """Configure logging as a service does; return a function that returns what was written since."""
    stream, root = io.BytesIO(), logging.getLogger()
    before = (structlog.get_config(), root.handlers[:], root.level)
    telemetry.configure_logging("probe", "INFO", stream=stream)

    def written():
        content = stream.getvalue().splitlines()
        stream.seek(0)
        stream.truncate()
        return [json.loads(line) for line in content]

    yield written
    structlog.configure(**before[0])
    root.handlers[:], root.level = before[1], before[2]


log = structlog.get_logger()


def dropped_keys():
    return metrics.REGISTRY.get_sample_value("clinic_log_dropped_keys_total")


def test_a_line_is_one_json_object_with_service_time_and_level(lines):
    log.info("relay_started", queue="scheduling.patients", attempt=2)
    [line] = lines()
    assert (line["event"], line["level"], line["service"]) == ("relay_started", "info", "probe")
    assert (line["queue"], line["attempt"]) == ("scheduling.patients", 2)
    assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None


def test_a_key_that_is_not_listed_is_dropped_and_counted(lines):
    before = dropped_keys()
    log.info("patient_registered", last_name=CANARY, phone="+70000000001", birth_on="2000-01-01")
    [line] = lines()
    assert line.keys() == {"event", "level", "service", "timestamp"}
    assert dropped_keys() == before + 3


def test_ids_times_and_amounts_are_told_whatever_they_are_called(lines):
    ids = {"appointment_id": uuid4(), "starts_at": datetime(2026, 1, 1, tzinfo=UTC), "wait_seconds": 1.5}
    log.info("booked", **ids, patient_id=CANARY, note_id="text is no id")
    [line] = lines()
    assert line["appointment_id"] == str(ids["appointment_id"])
    assert line["wait_seconds"] == 1.5
    assert "patient_id" not in line
    assert "note_id" not in line


@pytest.mark.parametrize("event", [f"registered {CANARY}", f"{CANARY}", "Registered", "", "x" * 81, 7])
def test_an_event_is_named_by_a_constant(lines, event):
    log.info(event)
    [line] = lines()
    assert line["event"] == "unnamed_event"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(max_size=12).map(lambda name: f"x{name}"),
        st.sampled_from([CANARY, [CANARY], {CANARY: CANARY}, CANARY.encode(), ValueError(CANARY)]),
        max_size=5,
    )
)
def test_no_invented_key_carries_anything_out(lines, fields):
    log.info("something_happened", **fields)
    assert CANARY not in json.dumps(lines())


def _raise_chain():
    try:
        int(CANARY)
    except ValueError as error:
        raise LookupError(f"no {CANARY}") from error


def test_an_exception_is_told_by_class_and_place(lines):
    try:
        _raise_chain()
    except LookupError:
        log.exception("step_failed")
    [line] = lines()
    assert line["error_class"] == "LookupError < ValueError"
    assert any(frame.startswith("test_telemetry:_raise_chain:") for frame in line["error_frames"])
    assert CANARY not in json.dumps(line)


async def test_a_database_error_is_told_by_sqlstate_and_constraint(lines, probe):
    twice = text("INSERT INTO note (note_id, text) VALUES (:id, :text), (:id, :text)")
    async with probe.runtime.database.engine.connect() as connection:
        with pytest.raises(IntegrityError) as caught:
            await connection.execute(twice, {"id": uuid4(), "text": CANARY})
    log.error("write_failed", **telemetry.describe_error(caught.value))
    [line] = lines()
    assert (line["sqlstate"], line["constraint"]) == ("23505", "note_pkey")
    assert CANARY not in json.dumps(line)


def test_a_library_is_quoted_without_its_values(lines):
    library = logging.getLogger("some.library")
    library.warning("cannot parse %s of %s", CANARY, 7)
    library.warning(f"formatted before: {CANARY}")  # what libraries do
    try:
        _raise_chain()
    except LookupError:
        library.exception("failed for %r", CANARY)
    library.info("chatter")
    first, second, third = lines()
    assert (first["event"], first["logger"]) == ("library_log", "some.library")
    assert first["template"] == "cannot parse %s of %s"
    assert "template" not in second
    assert third["error_class"] == "LookupError < ValueError"
    assert CANARY not in json.dumps([first, second, third])


def test_the_level_is_respected(lines):
    log.debug("detail")
    assert lines() == []


def test_values_that_json_does_not_know_are_written_as_text(lines):
    log.info("configured", settings={"contracts_dir": object, 1: uuid4()})
    assert len(lines()) == 1


async def test_a_request_is_one_line_without_its_path_or_query(lines, probe, writer):
    note_id = uuid4()
    answer = await probe.http.get(f"/v1/notes/{note_id}?q={CANARY}", headers=probe.headers(writer))
    [line] = lines()
    assert line["event"] == "http_request"
    assert (line["method"], line["route"], line["status"]) == ("GET", "/v1/notes/{note_id}", 404)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["correlation_id"] == answer.headers["x-correlation-id"]
    assert not {CANARY, str(note_id)} & set(json.dumps(line).replace("/", '"').split('"'))


async def test_probes_are_counted_but_not_logged(lines, probe):
    await probe.http.get("/healthz")
    assert lines() == []
    assert 'route="/healthz"' in (await probe.http.get("/metrics")).text


async def test_requests_are_counted_by_route_never_by_path(probe, writer):
    labels = {"service": "probe", "route": "/v1/notes/{note_id}", "method": "GET", "status": "404"}
    before = metrics.REGISTRY.get_sample_value("clinic_http_requests_total", labels) or 0
    await probe.http.get(f"/v1/notes/{uuid4()}", headers=probe.headers(writer))
    await probe.http.request(CANARY.upper(), f"/{CANARY}")
    exposed = (await probe.http.get("/metrics")).text
    assert metrics.REGISTRY.get_sample_value("clinic_http_requests_total", labels) == before + 1
    assert CANARY.lower() not in exposed.lower()
    assert 'route="unmatched",method="OTHER"' in exposed or 'method="OTHER",route="unmatched"' in exposed
