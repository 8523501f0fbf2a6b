"""No patient data where it doesn't belong: logs, metrics, problem documents, names at the broker."""

import random
import time
import warnings
from collections.abc import Callable

import httpx
import pytest
from clinic_local.api_client import ApiError, Caller
from clinic_local.demo_network import Network
from clinic_local.paths import run_dir
from clinic_local.testing import System

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900)]

FAMILY = "Канарейкина"
GIVEN = "Сигналина"
DIAGNOSIS_NOTE = "Канареечная запись врача"


@pytest.fixture(scope="module")
def canary(network: Network, as_person: Callable[[str], Caller]) -> dict[str, str]:
    """A patient whose data are unmistakable, led through registration, search, an error and the chart."""
    phone = f"+7000{random.randrange(10**7):07d}"
    registrar, doctor = as_person("registrar"), as_person("dermatologist")
    body = {
        "centre_id": network.centre_id,
        "name": {"family": FAMILY, "given": GIVEN},
        "birth_on": "1987-06-05",
        "phones": [phone],
        "emails": ["canary.signalina@example.org"],
        "language": "ru",
    }
    patient = registrar.post("/v1/patients", body)
    registrar.post("/v1/patients/search", {"name": FAMILY, "phone": phone})
    for broken in ({**body, "birth_on": FAMILY}, {**body, FAMILY: phone}):
        with pytest.raises(ApiError) as refusal:
            registrar.post("/v1/patients", broken)
        assert FAMILY not in str(refusal.value.problem.get("detail"))
    emergency = {"reason_code": "emergency", "reason": "Fictitious emergency"}
    doctor.post(f"/v1/patients/{patient['patient_id']}/break-glass", emergency)
    doctor.post(
        f"/v1/patients/{patient['patient_id']}/encounters",
        {
            "department_id": network.departments["dermatology"],
            "started_at": "2026-03-02T08:00:00Z",
            "summary": DIAGNOSIS_NOTE,
            "diagnoses": [{"code": "L20.9", "rank": "primary"}],
        },
    )
    return {
        "family": FAMILY,
        "given": GIVEN,
        "phone": phone,
        "mail": "canary.signalina",
        "note": "Канареечная",
    }


def test_no_log_has_a_word_of_it(system: System, canary: dict[str, str]) -> None:
    logs = list((run_dir(system.root) / "log").glob("*.log"))
    assert len(logs) > 10
    for log in logs:
        text = log.read_text(encoding="utf-8", errors="replace")
        escaped = unescaped(text)
        for name, value in canary.items():
            assert value not in text, f"{name} in {log.name}"
            assert value not in escaped, f"{name} in {log.name}, escaped"


def unescaped(text: str) -> str:
    with warnings.catch_warnings():
        # A log may hold a backslash that escapes nothing.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", SyntaxWarning)
        return text.encode().decode("unicode_escape", errors="replace")


def test_no_metric_has_a_word_of_it(system: System, canary: dict[str, str]) -> None:
    services = [
        url
        for name, url in system.addresses.items()
        if name.endswith("_URL") and url.startswith("http://127")
    ]
    seen = 0
    for url in services:
        answer = httpx.get(f"{url}/metrics", timeout=60, trust_env=False)
        if answer.status_code == 200:
            seen += 1
            assert not [value for value in canary.values() if value in answer.text]
    assert seen >= 10


def test_no_name_at_the_broker_has_a_word_of_it(system: System, canary: dict[str, str]) -> None:
    url = system.addresses["CLINIC_PRIVATE_AMQP_MANAGEMENT_URL"]
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as management:

        def is_quiet() -> bool:
            queues = management.get("/api/queues").json()
            waiting = [queue["name"] for queue in queues if queue.get("messages", 0)]
            return all(name.startswith("unrouted") for name in waiting)

        deadline = time.monotonic() + 120
        while not is_quiet():
            assert time.monotonic() < deadline, "messages stay in the queues"
            time.sleep(0.5)
        for kind in ("queues", "exchanges", "bindings"):
            text = management.get(f"/api/{kind}").text
            assert not [value for value in canary.values() if value in text]
