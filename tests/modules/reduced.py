"""What must hold of a system whatever was left out of it: who is there works, and nothing waits for the rest."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from clinic_local import loopback
from clinic_local.api_client import ApiError, Caller
from clinic_local.demo_network import Network
from clinic_local.paths import CHECKOUT
from clinic_local.testing import System
from clinic_shared import contracts

SETTLED_SECONDS = 120
ANSWER_SECONDS = 60
PATHS = {
    "patients": "/v1/patients",
    "scheduling": "/v1/appointments",
    "referrals": "/v1/referrals",
    "notifications": "/v1/messages",
    "lab-integration": "/v1/lab/results",
    "billing": "/v1/invoices",
    "reporting": "/v1/reports/departments",
}
"""One of each service that can be left out."""


def installed(left_out: tuple[str, ...]) -> set[str]:
    return set(contracts.load().services) - set(left_out)


def network_of(system: System) -> Network:
    network = Network.read(system.root)
    assert network is not None, "make up makes the demo network of what is there"
    return network


def as_person(system: System, person: str) -> Caller:
    network = network_of(system)
    return Caller(system.url, network.login_of(person), network.password)


def register(registrar: Caller, network: Network) -> str:
    registered = registrar.post(
        "/v1/patients",
        {
            "centre_id": network.centre_id,
            "name": {"family": "Тестова", "given": "Анна"},
            "birth_on": "1990-01-02",
            "sex": "female",
            "phones": ["+70000000199"],
            "language": "ru",
        },
    )
    return str(registered["patient_id"])


def book(registrar: Caller, network: Network, patient_id: str) -> dict[str, Any]:
    # Not the very next: it may begin while it is being booked.
    earliest = datetime.now(UTC) + timedelta(hours=1)
    place = {"centre_id": network.centre_id, "department_id": network.departments["dermatology"]}
    service_id = network.services["dermatology"]
    week = {
        "starts_at": earliest.isoformat(),
        "ends_at": (earliest + timedelta(days=7)).isoformat(),
        "limit": 1,
    }
    slot = registrar.get("/v1/slots", **place, service_id=service_id, **week)[0]
    where = {name: slot[name] for name in ("starts_at", "practitioner_id", "room_id")}
    booked = registrar.post(
        "/v1/appointments", {**place, **where, "patient_id": patient_id, "service_id": service_id}
    )
    return dict(booked)


def answers_not_installed(caller: Caller, service: str) -> bool:
    try:
        caller.get(PATHS[service])
    except ApiError as error:
        return (error.status, error.slug) == (404, "not-installed")
    return False


def described_by(services: set[str]) -> set[str]:
    """Return the paths of these services: who has read a patient's record is audit's to say."""
    files = (CHECKOUT / "contracts" / "openapi" / f"{service}.json" for service in services)
    return {path for file in files for path in json.loads(file.read_text(encoding="utf-8"))["paths"]}


def wait_until_up(system: System, services: set[str]) -> None:
    """Wait until the gateway finds exactly these, and nothing amiss: on a busy machine one may answer late."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while True:
        readiness = loopback.get_json(f"{system.url}/readyz", timeout_seconds=ANSWER_SECONDS)
        if readiness["services"] == dict.fromkeys(services, "up") and readiness["reasons"] == []:
            return
        assert time.monotonic() < deadline, readiness
        time.sleep(0.1)


def wait_until_delivered(system: System, services: set[str]) -> None:
    """Wait until every event has left its outbox and taken effect with all who are there."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while True:
        rows = {row.name: row for row in system.status() if row.name in services}
        waiting = {
            name: (row.state, row.queued, row.outbox_pending, row.held, row.parked)
            for name, row in rows.items()
            if (row.state, row.queued, row.outbox_pending, row.held, row.parked) != ("running", 0, 0, 0, 0)
        }
        if rows.keys() == services and not waiting:
            return
        assert time.monotonic() < deadline, f"state, queued, outbox, held, parked: {waiting}"
        time.sleep(0.1)


def check(system: System, left_out: tuple[str, ...]) -> None:
    """Everything that can be said of a system without knowing what was left out."""
    here = installed(left_out)
    names = {row.name for row in system.status()}
    assert here <= names
    assert not names & set(left_out)
    wait_until_up(system, here)
    with as_person(system, "registrar") as registrar:
        assert all(answers_not_installed(registrar, service) for service in left_out)
        network = network_of(system)
        patient_id = register(registrar, network) if "patients" in here else None
        if patient_id is not None and "scheduling" in here:
            assert book(registrar, network, patient_id)["status"] == "booked"
    wait_until_delivered(system, here)
    paths = loopback.get_json(f"{system.url}/openapi.json", timeout_seconds=ANSWER_SECONDS)["paths"]
    theirs = [path for path in paths if any(path.startswith(PATHS[service]) for service in left_out)]
    assert set(theirs) <= described_by(here)
    ledger = system.clinic("ledger", "--json")
    assert ledger.returncode == 0, ledger.stderr
    assert "didn't answer" not in ledger.stderr
    verified = system.clinic("topology", "verify")
    assert verified.returncode == 0, verified.stdout
