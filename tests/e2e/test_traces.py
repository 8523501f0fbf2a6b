"""One booking is one trace through all services, and no span of any service knows a patient."""

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
from clinic_local.api_client import Caller
from clinic_local.demo_network import Network
from clinic_local.testing import System
from clinic_shared import contracts
from clinic_shared.testing_spans import Collector
from clinic_shared.trace_scrubbing import ALLOWED
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.trace import SpanKind

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900)]

FAMILY, GIVEN, NOTE = "Следопытова", "Трассина", "Запись о следопыте"
BOOKED, QUEUED = "scheduling.appointment-booked.v1", "notifications.message-queued.v1"
SERVICES = {"gateway", "identity", "lab-integration", "notifications", "patients", "reporting", "scheduling"}
HL7 = (
    "MSH|^~\\&|TESTLAB|TEST|CLINIC|TEST|20260302080000||ORU^R01|SLEDOPYT1|P|2.5.1|||||||UNICODE UTF-8\r"
    "PID|1||{patient}^^^CLINIC^MR||{family}^{given}||19870605|F\r"
    "OBR|1|SLEDOPYT-O|SLEDOPYT-F|58410-2^CBC^LN|||20260302075000|||||||||||||||20260302080000||LAB|F\r"
    "OBX|1|ST|718-7^Hemoglobin^LN||{note}||||||F\r"
)


@dataclass
class Booking:
    patient_id: str
    appointment_id: str
    phone: str
    request_id: str

    @property
    def trace_id(self) -> str:
        return UUID(self.request_id).hex


def wait_for(check: Callable[[], Any], what: str, *, within_seconds: float = 120) -> Any:
    deadline = time.monotonic() + within_seconds
    while not (found := check()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def booking(network: Network, as_person: Callable[[str], Caller]) -> Booking:
    """Register a patient whose data are unmistakable, and book a free slot for her."""
    phone = f"+7000{random.randrange(10**7):07d}"
    registrar = as_person("registrar")
    patient = registrar.post(
        "/v1/patients",
        {
            "centre_id": network.centre_id,
            "name": {"family": FAMILY, "given": GIVEN},
            "birth_on": "1987-06-05",
            "phones": [phone],
            "emails": ["sledopytova@example.org"],
            "language": "ru",
        },
    )
    # Not the very next: it may begin while it is being booked.
    earliest = datetime.now(UTC) + timedelta(hours=1)
    what = {
        "centre_id": network.centre_id,
        "department_id": network.departments["dietetics"],
        "service_id": network.services["dietetics"],
    }
    (slot, *_) = registrar.get(
        "/v1/slots",
        **what,
        starts_at=earliest.isoformat(),
        ends_at=(earliest + timedelta(days=7)).isoformat(),
    )
    wanted = {name: slot[name] for name in ("starts_at", "practitioner_id", "room_id")}
    answer = registrar.send(
        "POST", "/v1/appointments", json={**what, **wanted, "patient_id": patient["patient_id"]}
    )
    return Booking(
        patient["patient_id"], answer.json()["appointment_id"], phone, answer.headers["x-request-id"]
    )


@pytest.fixture(scope="module")
def trace(collector: Collector, booking: Booking) -> list[tuple[str, Span]]:
    """All spans of the booking, when its consumers and those of what they caused have told theirs."""
    expected = {
        (consumer, f"process {event.producer}.events:{event.type}:{consumer}.{event.producer}")
        for event in map(contracts.load().event, (BOOKED, QUEUED))
        for consumer in event.consumers
    } | {("scheduling", f"publish scheduling.events:{BOOKED}")}

    def whole() -> list[tuple[str, Span]] | None:
        found = collector.of_trace(booking.trace_id)
        ids = {span.span_id for _, span in found} | {b""}
        is_connected = all(span.parent_span_id in ids for _, span in found)
        return (
            found if is_connected and expected <= {(service, span.name) for service, span in found} else None
        )

    found: list[tuple[str, Span]] = wait_for(whole, "the trace isn't whole")
    return found


def test_one_booking_is_one_trace(trace: list[tuple[str, Span]]) -> None:
    by_id = {span.span_id: (service, span) for service, span in trace}
    (root,) = [(service, span) for service, span in trace if not span.parent_span_id]
    assert (root[0], root[1].name) == ("gateway", "POST /v1/appointments")
    (creation,) = [span for service, span in trace if span.name == f"create {BOOKED}"]
    path = [(service, span.kind, span.name) for service, span in _up(creation, by_id)]
    assert path == [
        ("scheduling", Span.SPAN_KIND_PRODUCER, f"create {BOOKED}"),
        ("scheduling", Span.SPAN_KIND_INTERNAL, "transaction"),
        ("scheduling", Span.SPAN_KIND_SERVER, "POST /v1/appointments"),
        ("gateway", Span.SPAN_KIND_CLIENT, "POST"),
        ("gateway", Span.SPAN_KIND_SERVER, "POST /v1/appointments"),
    ]
    handled = defaultdict(set)
    for service, span in trace:
        if span.parent_span_id == creation.span_id:
            assert [link.span_id for link in span.links] == [creation.span_id]
            handled[span.name.partition(" ")[0]].add(service)
    assert handled["publish"] == {"scheduling"}
    assert {"notifications", "patients", "reporting"} <= handled["process"]


def _up(span: Span, by_id: dict[bytes, tuple[str, Span]]) -> Iterator[tuple[str, Span]]:
    while True:
        service, span = by_id[span.span_id]
        yield service, span
        if not span.parent_span_id:
            return
        _, span = by_id[span.parent_span_id]


def test_what_a_consumer_causes_is_in_the_trace_of_its_cause(trace: list[tuple[str, Span]]) -> None:
    by_id = {span.span_id: (service, span) for service, span in trace}
    (queued,) = [span for _, span in trace if span.name == f"create {QUEUED}"]
    above = [span.name for _, span in _up(queued, by_id)]
    assert f"process scheduling.events:{BOOKED}:notifications.scheduling" in above
    assert "POST /v1/appointments" in above
    below = [(service, span.name) for service, span in trace if span.parent_span_id == queued.span_id]
    assert ("reporting", f"process notifications.events:{QUEUED}:reporting.notifications") in below


def test_statements_have_no_values(trace: list[tuple[str, Span]], booking: Booking) -> None:
    statements = [
        attribute.value.string_value
        for _, span in trace
        for attribute in span.attributes
        if attribute.key == "db.statement"
    ]
    assert any("INSERT INTO appointment" in statement for statement in statements)
    assert not [text for text in statements if booking.patient_id in text or FAMILY in text]


def test_the_chain_of_the_booking_can_be_shown(system: System, booking: Booking) -> None:
    def shown() -> Any:
        asked = system.clinic("trace", booking.appointment_id, "--json")
        if asked.returncode != 0:
            return None
        (booked,) = json.loads(asked.stdout)["chain"]
        queued = [one for one in booked["consequences"] if one["type"] == QUEUED]
        sent = [later for one in queued for later in one["consequences"]]
        return booked if sent and not booked["not_yet_applied_by"] else None

    booked = wait_for(shown, "the message wasn't sent")
    assert booked["trace_id"] == booking.trace_id
    assert {effect["disposition"] for effect in booked["effects"]} == {"applied"}
    for known_by in (booking.request_id, booking.patient_id):
        asked = system.clinic("trace", known_by)
        assert f"event {booked['event_id']}" in asked.stdout, asked.stderr
        assert FAMILY not in asked.stdout


def test_no_span_of_any_service_knows_a_patient(
    system: System,
    network: Network,
    booking: Booking,
    collector: Collector,
    as_person: Callable[[str], Caller],
) -> None:
    last = _do_everything_wrong(system, network, booking, as_person)
    wait_for(lambda: collector.of_trace(UUID(last).hex), "the last request's spans didn't come")
    canaries = [
        FAMILY,
        GIVEN,
        NOTE,
        booking.phone,
        booking.phone[1:],
        "sledopytova",
        "SLEDOPYT",
        "1987-06-05",
    ]
    ids = [booking.patient_id, booking.appointment_id]
    written = [
        form
        for canary in canaries
        for form in (canary, quote(canary), canary.encode("unicode_escape").decode())
    ]
    sent = b"".join(list(collector.bodies))
    assert {service for service, _ in collector.spans} >= SERVICES
    assert not [text for text in written + ids if text.encode() in sent]
    for _, span in collector.spans:
        keys = {attribute.key for attribute in span.attributes}
        assert keys <= ALLOWED[SpanKind(span.kind - 1)].keys(), span.name
        assert not span.status.message


def _do_everything_wrong(
    system: System, network: Network, booking: Booking, as_person: Callable[[str], Caller]
) -> str:
    """Send canaries everywhere that a client can; return the id of the last request."""
    doctor, registrar = as_person("dietitian"), as_person("registrar")
    chart = f"/v1/patients/{booking.patient_id}"
    doctor.post(
        f"{chart}/encounters",
        {
            "department_id": network.departments["dietetics"],
            "appointment_id": booking.appointment_id,
            "started_at": "2026-03-02T08:00:00Z",
            "summary": NOTE,
            "diagnoses": [{"code": "E66.9", "rank": "primary"}],
        },
    )
    registrar.post("/v1/patients/search", {"name": FAMILY, "phone": booking.phone})
    headers = {
        **registrar.authorization(),
        "user-agent": "SLEDOPYT",
        "tracestate": "sledopytova=SLEDOPYT",
        "baggage": "name=SLEDOPYT",
    }
    with httpx.Client(base_url=system.url, headers=headers, timeout=60, trust_env=False) as http:
        http.get(chart)
        http.get(f"{chart}/timeline", params={"name": FAMILY})
        http.get(f"/v1/patients/{FAMILY}/{booking.patient_id}")
        http.get(f"/{booking.patient_id}", params={"q": NOTE})
        http.post(f"{chart}/encounters?note={NOTE}", json={"summary": NOTE, FAMILY: booking.phone})
        http.post("/v1/appointments", json={"patient_id": booking.patient_id, "starts_at": NOTE})
        http.request("SLEDOPYT", chart)
        lab = (network.lab_client_id, network.lab_client_secret)
        for patient in (booking.patient_id, FAMILY):
            message = HL7.format(patient=patient, family=FAMILY, given=GIVEN, note=NOTE)
            http.post(
                "/v1/lab/messages",
                content=message.encode(),
                auth=lab,
                headers={"content-type": "application/hl7-v2; charset=utf-8"},
            )
        last: str = http.get(chart).headers["x-request-id"]
    return last
