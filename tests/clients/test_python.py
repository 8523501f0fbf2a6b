"""The API description gives a typed Python client that works, and that notices what breaks its user."""

import importlib
import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from clinic_scheduling.app import service
from clinic_shared.ids import uuid7
from clinic_shared.testing import service_fixture

SAMPLE = Path(__file__).with_name("python_sample.py")
PACKAGE = "polyclinic_client"
SECONDS = 240
# Laboratories post HL7 from their interface engines; the generator knows no body of that kind.
LEFT_OUT = {
    "POST /v1/lab/messages",
    "GET /v1/lab/messages/{message_id}/acknowledgement",
    "POST /v1/lab/messages/validate",
    # PDF
    "GET /v1/invoices/{invoice_id}/act",
    "GET /v1/invoices/{invoice_id}/pdf",
    "GET /v1/lab/orders/{lab_order_id}/requisition",
    "GET /v1/lab/results/{result_id}/documents/{document_id}",
    "GET /v1/patients/{patient_id}/exports/{export_id}/document",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * SECONDS)]
scheduling = service_fixture(service)


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def generate(document: dict[str, Any], folder: Path) -> str:
    """Write the package into the folder; return what the generator says."""
    (folder / "api.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps({"post_hooks": []}), encoding="utf-8")
    settings = ("--path", "api.json", "--config", "settings.json", "--meta", "none", "--output-path", PACKAGE)
    made = run("openapi_python_client", "generate", *settings, cwd=folder)
    assert made.returncode == 0, made.stdout + made.stderr
    (folder / SAMPLE.name).write_bytes(SAMPLE.read_bytes())
    return made.stdout + made.stderr


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    cache = tmp_path_factory.mktemp("mypy")

    def check(folder: Path) -> str:
        # Without the project's settings: a module that isn't generated any more is an error here.
        options = ("--config-file=", "--strict", "--cache-dir", str(cache))
        checked = run("mypy", *options, PACKAGE, SAMPLE.name, cwd=folder)
        return "" if checked.returncode == 0 else checked.stdout + checked.stderr

    return check


@pytest.fixture(scope="module")
def generated(description, tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    return folder, generate(description, folder)


def test_the_generator_leaves_nothing_out_but_hl7_and_pdf(generated):
    _, said = generated
    assert set(re.findall(r"WARNING parsing (\S+ \S+) within", said)) == LEFT_OUT
    assert "Unable to" not in said


def test_client_and_program_are_strictly_typed(generated, mypy):
    folder, _ = generated
    assert mypy(folder) == ""


def test_a_renamed_field_stops_the_program_from_type_checking(tmp_path, with_renamed_field, mypy):
    generate(with_renamed_field("Page_ResultResponse_", "next_cursor", "next_page"), tmp_path)
    said = mypy(tmp_path)
    assert SAMPLE.name in said
    assert '"PageResultResponse" has no attribute "next_cursor"' in said


@pytest.fixture
async def booking(scheduling):
    """What a booking names, known to the service."""
    named = {name: uuid7() for name in ("centre_id", "department_id", "patient_id")}
    for event, *names in (
        ("identity.centre-opened.v1", "centre_id"),
        ("identity.department-opened.v1", "department_id", "centre_id"),
        ("patients.patient-registered.v1", "patient_id"),
    ):
        await scheduling.deliver_example(event, **{name: str(named[name]) for name in names})
    offered = {"code": "phone-call", "name": "Test call", "duration_seconds": 900, "needs": []}
    offered["department_ids"] = [str(named["department_id"])]
    headers = scheduling.headers(scheduling.principal("system-administrator"))
    answer = await scheduling.http.post("/v1/services", json=offered, headers=headers)
    assert answer.status_code == 201, answer.text
    starts_at = scheduling.clock.now() + timedelta(days=1)
    return named | {"service_id": UUID(answer.json()["service_id"]), "starts_at": starts_at}


@pytest.mark.servers
async def test_the_program_books_and_understands_a_refusal(generated, scheduling, booking, monkeypatch):
    folder, _ = generated
    monkeypatch.syspath_prepend(str(folder))
    sample = importlib.import_module(SAMPLE.stem)
    request = importlib.import_module(f"{PACKAGE}.models").BookRequest
    client = importlib.import_module(PACKAGE).AuthenticatedClient("http://test", "unused")
    client.set_async_httpx_client(scheduling.client(scheduling.principal("registrar")))

    booked = await sample.book(client, request(**booking))
    assert (booked.patient_id, booked.starts_at) == (booking["patient_id"], booking["starts_at"])
    with pytest.raises(sample.RefusedError) as refused:
        await sample.book(client, request(**booking | {"patient_id": uuid7()}))
    assert refused.value.slug == "reference-not-yet-known"
