"""The running system as its users meet it: how long an event takes to have its effect, how many results get filed."""

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, LiteralString
from zoneinfo import ZoneInfo

import httpx
import psycopg
from clinic_local.api_client import Caller
from clinic_local.demo_network import Network
from clinic_local.paths import CHECKOUT
from clinic_local.testing import System

from .figures import Figure, needs_system

PANEL = CHECKOUT / "contracts" / "hl7" / "panel.hl7"
PATIENTS = 16
MESSAGES = 400
SENDERS = 8
BOOKINGS = 60
PAUSE_SECONDS = 0.15
POLL_SECONDS = 0.002
PATIENCE_SECONDS = 120
_SLOTS_A_DAY = 24
_numbers = count(1)

_APPLIED: LiteralString = "SELECT count(*) FROM lab_unit WHERE disposition = 'applied'"
_RECORDED: LiteralString = "SELECT recorded_at FROM event WHERE subject = %s ORDER BY event_id LIMIT 1"


@contextmanager
def database(system: System, service: str) -> Iterator[psycopg.Connection[Any]]:
    url = system.addresses[f"CLINIC_{service.upper().replace('-', '_')}_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def network_of(system: System) -> Network:
    network = Network.read(system.root)
    assert network is not None, "the demo network wasn't seeded"
    return network


@contextmanager
def registrar(system: System) -> Iterator[Caller]:
    network = network_of(system)
    with Caller(system.url, network.login_of("registrar"), network.password) as caller:
        yield caller


def register(caller: Caller, network: Network) -> dict[str, Any]:
    patient = {
        "centre_id": network.centre_id,
        "name": {"family": "Тестова", "given": "Анна"},
        "birth_on": "1990-01-02",
        "sex": "female",
        "phones": [f"+7000{next(_numbers):07d}"],
        "language": "ru",
    }
    return dict(caller.post("/v1/patients", patient))


def book(caller: Caller, network: Network, patient_id: str) -> str:
    """Book the next half hour that nobody has asked for yet; returns the appointment's id."""
    day, place = divmod(next(_numbers), _SLOTS_A_DAY)
    opening = datetime.now(ZoneInfo("Europe/Moscow")).replace(hour=8, minute=0, second=0, microsecond=0)
    starts_at = (opening + timedelta(days=2 + day, minutes=30 * place)).astimezone(UTC)
    booking = {
        "patient_id": patient_id,
        "service_id": network.services["dermatology"],
        "centre_id": network.centre_id,
        "department_id": network.departments["dermatology"],
        "practitioner_id": network.staff["dermatologist"],
        "room_id": network.rooms["dermatology"],
        "starts_at": starts_at.isoformat(),
    }
    return str(caller.post("/v1/appointments", booking)["appointment_id"])


def is_reported(reporting: psycopg.Connection[Any], appointment_id: str) -> bool:
    """Whether reporting's own table has an appointment, that is: whether its event has had its effect."""
    query = "SELECT 1 FROM appointment_fact WHERE appointment_id = %s"
    return reporting.execute(query, (appointment_id,)).fetchone() is not None


def wait_until(
    check: Callable[[], Any], *, every: float = POLL_SECONDS, within_seconds: float = PATIENCE_SECONDS
) -> Any:
    deadline = time.monotonic() + within_seconds
    while not (found := check()):
        if time.monotonic() > deadline:
            raise TimeoutError(check.__name__)
        time.sleep(every)
    return found


@needs_system
def event_latency(system: System) -> list[Figure]:
    """From the moment an event is written until another service's own table shows it, one at a time."""
    network = network_of(system)
    waits = []
    with (
        registrar(system) as caller,
        database(system, "scheduling") as producer,
        database(system, "reporting") as consumer,
    ):
        patient_id = register(caller, network)["patient_id"]
        for _ in range(BOOKINGS):
            time.sleep(PAUSE_SECONDS)  # idle is what is measured
            appointment = book(caller, network, patient_id)
            wait_until(partial(is_reported, consumer, appointment))
            seen_at = time.time()
            row = producer.execute(_RECORDED, (appointment,)).fetchone()
            assert row is not None
            waits.append(1000 * (seen_at - row[0].timestamp()))
    parts = statistics.quantiles(waits, n=100, method="inclusive")
    name = "event written to its effect visible in another service, idle"
    return [
        Figure.ceiling(f"{name}, median", parts[49], "ms", target=20),
        Figure.ceiling(f"{name}, 99th percentile", parts[98], "ms", target=100),
    ]


@needs_system
def lab_pipeline(system: System) -> list[Figure]:
    """Messages with ten results each, posted at the gateway, until the chart has confirmed the last one."""
    network, numbers = network_of(system), known_patients(system)
    messages = [panel_of(numbers[n % PATIENTS], f"BENCH-{time.time_ns():x}-{n}") for n in range(MESSAGES)]
    with database(system, "lab-integration") as lab:
        before, begun = applied(lab), time.monotonic()
        with ThreadPoolExecutor(SENDERS) as senders:
            list(senders.map(lambda some: post_all(system, network, some), split(messages, SENDERS)))
        wait_until(lambda: applied(lab) - before >= MESSAGES, every=0.05)
        rate = MESSAGES / (time.monotonic() - begun)
    return [Figure.floor("messages with ten results, from the gateway into the chart", rate, "/s", target=60)]


def known_patients(system: System) -> list[str]:
    """Register some and return their record numbers, once lab-integration knows them: it would ask a person else."""
    network = network_of(system)
    with registrar(system) as caller:
        patients = [register(caller, network) for _ in range(PATIENTS)]
    known = "SELECT count(*) FROM patient WHERE patient_id = ANY(%s::uuid[])"
    patient_ids = [patient["patient_id"] for patient in patients]
    with database(system, "lab-integration") as lab:
        wait_until(lambda: (lab.execute(known, (patient_ids,)).fetchone() or (0,))[0] >= PATIENTS)
    return [next(i["value"] for i in patient["identifiers"] if i["type"] == "MR") for patient in patients]


def panel_of(record_number: str, key: str) -> bytes:
    header, _, rest = PANEL.read_bytes().partition(b"\r")
    fields = header.split(b"|")
    fields[9] = key.encode()
    return (
        b"\r".join((b"|".join(fields), rest))
        .replace(b"PATIENT-NUMBER", record_number.encode())
        .replace(b"ORDER-NUMBER^POLYCLINIC", b"")
        .replace(b"FILLER-0001", key.encode())
    )


def split(messages: list[bytes], parts: int) -> list[list[bytes]]:
    return [messages[n::parts] for n in range(parts)]


def post_all(system: System, network: Network, messages: list[bytes]) -> None:
    credentials = (network.lab_client_id, network.lab_client_secret)
    headers = {"Content-Type": "application/hl7-v2"}
    with httpx.Client(
        base_url=system.url, auth=credentials, headers=headers, timeout=30, trust_env=False
    ) as lab:
        for message in messages:
            answer = lab.post("/v1/lab/messages", content=message)
            assert b"MSA|AA|" in answer.content, answer.text


def applied(lab: psycopg.Connection[Any]) -> int:
    row = lab.execute(_APPLIED).fetchone()
    assert row is not None
    return int(row[0])
