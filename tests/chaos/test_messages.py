"""Messages as brokers really deliver them: repeated, in another order, unreadable, or into no queue at all."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
from clinic_local.api_client import Caller
from clinic_local.testing import System
from clinic_shared import contracts
from clinic_shared.envelope import Envelope
from clinic_shared.events import Origin
from clinic_shared.ids import uuid7

from .accounting import Finding, History, Violation
from .books import Books
from .people import Desk, Lab, Patient

BOOKED, CANCELLED = "scheduling.appointment-booked.v1", "scheduling.appointment-cancelled.v1"
RESULT = "lab-integration.lab-result-received.v1"
SEVERAL_POLLS_SECONDS = 2.5
"""An idle relay looks into its outbox at least once a second."""


class Broker:
    """The broker as somebody with its management API sees it."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=10)

    def publish(self, event_type: str, headers: dict[str, Any], body: bytes) -> None:
        """Publish to a producer's exchange as its relay does. Fails when nobody is bound."""
        exchange = f"{event_type.partition('.')[0]}.events"
        properties = {
            "headers": headers,
            "delivery_mode": 2,
            "content_type": "application/json",
            "message_id": headers.get("cloudEvents_id", str(uuid7())),
        }
        document = {
            "properties": properties,
            "routing_key": event_type,
            "payload": base64.b64encode(body).decode(),
            "payload_encoding": "base64",
        }
        answer = self._http.post(f"/api/exchanges/%2F/{exchange}/publish", json=document).raise_for_status()
        assert answer.json()["routed"]

    def delete_queue(self, name: str) -> None:
        self._http.delete(f"/api/queues/%2F/{quote(name)}").raise_for_status()

    def close(self) -> None:
        self._http.close()


@pytest.fixture(scope="module")
def broker(system: System) -> Iterator[Broker]:
    broker = Broker(system.addresses["CLINIC_PRIVATE_AMQP_MANAGEMENT_URL"])
    yield broker
    broker.close()


@pytest.fixture(scope="module")
def patient(desk: Desk) -> Patient:
    return desk.register()


def test_what_was_delivered_before_comes_again_in_another_order_and_changes_nothing(
    broker: Broker, books: Books, desk: Desk, lab: Lab, patient: Patient
) -> None:
    desk.book(patient)
    for _ in range(3):
        lab.send(patient)
    resting = books.settle()
    assert resting.sound, f"\n{resting}"
    before = _filed(books)
    sent = [
        *_published_about(books, "scheduling", patient),
        *_published_about(books, "lab-integration", patient),
    ]
    assert len(sent) >= 4
    for envelope, body in [*reversed(sent), *sent]:
        broker.publish(envelope.type, envelope.headers(), body)
    verdict = books.settle()
    assert verdict.sound, f"\n{verdict}"
    assert _filed(books) == before


def test_a_newer_state_that_overtakes_an_older_one_stays_in_force(
    broker: Broker, books: Books, history: History, patient: Patient
) -> None:
    appointment = uuid7()
    forged = [
        _forged(BOOKED, history, patient, version=1, appointment_id=appointment),
        _forged(CANCELLED, history, patient, version=2, appointment_id=appointment, status="cancelled"),
    ]
    for envelope, body in [forged[1], forged[0], forged[1], forged[1]]:
        broker.publish(envelope.type, envelope.headers(), body)
    verdict = books.settle()
    assert verdict.sound, f"\n{verdict}"
    found = books.query(
        "patients", "SELECT version, status FROM timeline_entry WHERE source_id = %s", appointment
    )
    assert found == [(2, "cancelled")]


def test_a_poisoned_message_is_parked_for_a_person_and_the_others_flow(
    broker: Broker, books: Books, desk: Desk, history: History, operator: Caller, patient: Patient
) -> None:
    poisons = {str(uuid7()): b"\x00 not JSON", str(uuid7()): b"{}"}
    for event_id, body in poisons.items():
        history.foreign.add(UUID(event_id))
        broker.publish(BOOKED, {"cloudEvents_id": event_id}, body)
    desk.book(patient)
    consumers = contracts.load().event(BOOKED).consumers
    expected = tuple(
        Finding(
            Violation.LEFT_OVER, f"dead letters of {consumer}", tuple(sorted(f"{p} parked" for p in poisons))
        )
        for consumer in books.services
        if consumer in consumers
    )
    verdict = books.until(lambda verdict: verdict.findings == expected)
    assert verdict.findings == expected, f"\n{verdict}"
    for consumer in consumers:
        _discard_all(operator, consumer)


def test_a_deleted_queue_loses_no_event_and_its_subscriber_catches_up(
    system: System, broker: Broker, books: Books, desk: Desk, patient: Patient
) -> None:
    resting = books.settle()
    assert resting.sound, f"\n{resting}"
    with queue_missing(system, broker, "patients.scheduling"):
        booked = {desk.book(patient)["appointment_id"] for _ in range(3)}
        looked_until = time.monotonic() + SEVERAL_POLLS_SECONDS
        while time.monotonic() < looked_until:
            pending = books.query("scheduling", "SELECT subject FROM outbox JOIN event USING (event_id)")
            assert {str(subject) for (subject,) in pending} == booked
            time.sleep(0.1)
    verdict = books.settle()
    assert verdict.sound, f"\n{verdict}"


@contextmanager
def queue_missing(system: System, broker: Broker, name: str) -> Iterator[None]:
    """Somebody deletes a subscriber's queue by mistake, and the operator declares it again."""
    broker.delete_queue(name)
    try:
        yield
    finally:
        declared = system.clinic("topology", "declare", "--services", ",".join(contracts.load().services))
        assert declared.returncode == 0, declared.stdout + declared.stderr


def _published_about(books: Books, producer: str, patient: Patient) -> list[tuple[Envelope, bytes]]:
    """Return what a producer's log has about a patient, as it stood on the wire, oldest first."""
    rows = books.query(
        producer,
        "SELECT event_id, type, subject, aggregate_version, partition_key, occurred_at, recorded_at, "
        "origin, correlation_id, causation_id, traceparent, seal, data::text, private::text "
        "FROM event WHERE patient_id = %s ORDER BY event_id",
        patient.patient_id,
    )
    return [_on_the_wire(producer, *row) for row in rows]


def _on_the_wire(producer: str, *row: Any) -> tuple[Envelope, bytes]:
    names = (
        *("id", "type", "subject", "aggregate_version", "partition_key", "time", "recorded_at"),
        *("origin", "correlation_id", "causation_id", "traceparent", "seal"),
    )
    *values, data, private = row
    attributes = dict(zip(names, values, strict=True))
    envelope = Envelope(source=producer, **attributes | {"origin": Origin(attributes["origin"])})
    body = f'{{"data":{data}' + (f',"private":{private}' if private else "") + "}"
    return envelope, body.encode()


def _forged(
    event_type: str, history: History, patient: Patient, *, version: int, **changes: Any
) -> tuple[Envelope, bytes]:
    """Make an event that no producer knows, of a contract's example."""
    example = contracts.examples(event_type)[0]
    subject = changes["appointment_id"]
    data = example["data"] | {"patient_id": patient.patient_id, "version": version, **changes}
    now = datetime.now(UTC)
    envelope = Envelope(
        id=uuid7(),
        source=event_type.partition(".")[0],
        type=event_type,
        subject=subject,
        time=now,
        recorded_at=now,
        aggregate_version=version,
        partition_key=UUID(patient.patient_id),
        correlation_id=uuid7(),
    )
    history.foreign.add(envelope.id)
    return envelope, json.dumps({"data": data, "private": example.get("private")}, default=str).encode()


def _filed(books: Books) -> int:
    """Return how often the chart told a laboratory that its result is filed."""
    statement = "SELECT count(*) FROM event WHERE type = 'patients.lab-result-filed.v1'"
    return int(books.query("patients", statement)[0][0])


def _discard_all(operator: Caller, service: str) -> None:
    """Let a person decide."""
    path = f"/v1/ops/dead-letters/{service}"
    for letter in operator.items(path, state="parked"):
        operator.post(f"{path}/{letter['id']}/discard", {"reason": "planted by a test"})
