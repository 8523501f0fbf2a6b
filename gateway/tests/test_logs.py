from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import structlog
from clinic_shared import telemetry

if TYPE_CHECKING:
    from .conftest import Bearer, Reply, StartClinic

CANARY = "Kanareykina"


@pytest.fixture
def logged() -> Iterator[io.BytesIO]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.BytesIO()
    telemetry.configure_logging("gateway", "DEBUG", stream=stream)
    yield stream
    root.handlers[:], _ = before
    root.setLevel(before[1])
    structlog.reset_defaults()


async def test_no_name_of_a_patient_gets_into_logs_metrics_or_errors(
    start_clinic: StartClinic, bearer: Bearer, reply: type[Reply], logged: io.BytesIO
) -> None:
    async with start_clinic("patients", down=("scheduling",), access_log=True) as clinic:
        headers = bearer() | {"x-request-id": CANARY, "traceparent": CANARY, "x-user-name": CANARY}
        path = f"/v1/patients/{CANARY}?name={CANARY}"
        clinic["patients"].replies = [
            reply(500, {"detail": CANARY}),
            reply(chunks=[CANARY.encode() * 100], break_off=True),
        ]
        await clinic.http.post(path, json={"name": CANARY}, headers=headers)
        with pytest.raises(Exception, match="peer closed"):
            await clinic.http.get(path, headers=headers)
        refused = [
            await clinic.http.post(f"/v1/appointments?q={CANARY}", json={"x": CANARY}, headers=headers),
            await clinic.http.get(f"/v1/patients?name={CANARY}"),
            await clinic.http.get(f"/{CANARY}?name={CANARY}"),
            await clinic.http.post(path, content=CANARY, headers=headers | {"content-type": "text/x"}),
            await clinic.http.get(f"/v1/patients/../{CANARY}", headers=headers),
        ]
        metrics = (await clinic.http.get("/metrics")).text
    assert [answer.status_code for answer in refused] == [503, 401, 404, 415, 404]
    assert not any(CANARY in answer.text + str(answer.headers) for answer in refused)
    assert CANARY not in metrics
    assert b'"event":"request"' in logged.getvalue()
    assert CANARY.encode() not in logged.getvalue()
