"""Who may call what; and that nothing about a person gets out another way."""

import io
import re
from collections.abc import Iterator

import pytest
import structlog
from clinic_patients.app import service
from clinic_shared import contracts, telemetry
from clinic_shared.ids import uuid7

from .conftest import Clinic

ROUTES = [
    (min(route.methods or ()), route.path_format, route.permission_name)
    for router in service.routers
    for route in router.routes
]


def anything(path: str) -> dict[str, str]:
    """Return an id of nothing for each place in a path."""
    return {name: str(uuid7()) for name in re.findall(r"{(\w+)}", path)}


async def test_without_a_token_there_is_no_answer(clinic: Clinic) -> None:
    for method, path, _ in ROUTES:
        answer = await clinic.patients.http.request(method, path.format(**anything(path)))
        assert answer.status_code == 401, path
        kind = "application/fhir+json" if path.startswith("/fhir/") else "application/problem+json"
        assert answer.headers["content-type"] == kind


async def test_without_its_scope_nobody_gets_in_and_the_refusal_is_audited(clinic: Clinic) -> None:
    roles = contracts.scopes_by_role()
    for method, path, permission in ROUTES:
        role = next(name for name, scopes in roles.items() if permission not in scopes)
        answer = await clinic.call(method, path.format(**anything(path)), role, body={})
        assert answer.status_code == 403, path
        assert (await clinic.audited())[-1]["outcome"] == "4"


async def test_an_id_that_is_none_is_refused(clinic: Clinic) -> None:
    roles = contracts.scopes_by_role()
    for method, path, permission in ROUTES:
        if "{patient_id}" in path:
            role = next(name for name, scopes in roles.items() if permission in scopes)
            sent = path.format(**anything(path) | {"patient_id": "anna"})
            answer = await clinic.call(method, sent, role, body={}, If_Match='"1"')
            assert answer.status_code == 422, path


CANARIES = ("Канарейкина", "0009998877", "kanareikina@example.org", "КАНАРЕЙКА-1", "канареечный")


@pytest.fixture
def log_lines() -> Iterator[io.BytesIO]:
    lines = io.BytesIO()
    telemetry.configure_logging("patients", "DEBUG", stream=lines)
    yield lines
    structlog.reset_defaults()


async def test_nothing_about_a_person_is_in_logs_metrics_problems_audit_or_routing(
    clinic: Clinic, log_lines: io.BytesIO
) -> None:
    family, phone, email, identifier, complaint = CANARIES
    person = clinic.person(
        name={"family": family},
        phones=[f"+7{phone}"],
        emails=[email],
        identifiers=[{"authority": "TEST", "value": identifier}],
    )
    patient = (await clinic.call("POST", "/v1/patients", body=person)).json()["patient_id"]
    refused = [
        await clinic.call("POST", "/v1/patients", body=person),
        await clinic.call("POST", "/v1/patients", body={**person, "birth_on": family}),
        await clinic.call("POST", "/v1/patients", body={**person, "phones": [f"{phone}{phone}"]}),
        await clinic.call("POST", "/v1/patients", body={**person, family: email}),
        await clinic.call("GET", f"/v1/patients?name={family}&identifier={identifier}"),
        await clinic.call("GET", f"/v1/patients/{family}"),
    ]
    assert [answer.status_code for answer in refused] == [409, 422, 422, 422, 422, 422]
    await clinic.find(name=family, phone=phone)
    note = {
        "department_id": str(clinic.department_id),
        "started_at": "2026-03-02T07:00:00Z",
        "summary": complaint,
    }
    await clinic.call("POST", f"/v1/patients/{patient}/encounters", "doctor", note)
    await clinic.lab_result("received", patient_id=str(uuid7()), notes=[complaint])
    structlog.get_logger().warning("canary_probe", name=family)
    metrics = (await clinic.patients.http.get("/metrics")).text
    events = await clinic.patients.events()
    seen = {
        "logs": log_lines.getvalue().decode(),
        "metrics": metrics,
        "problems": "".join(answer.text for answer in refused),
        "audit": str(await clinic.audited()),
        "routing": "".join(f"{event.type} {event.data}" for event in events),
    }
    assert "canary_probe" in seen["logs"]
    assert "result_for_unregistered_patient" in seen["logs"]
    assert any(family in str(event.private) for event in events)
    found = [(place, canary) for place, text in seen.items() for canary in CANARIES if canary in text]
    assert found == []
