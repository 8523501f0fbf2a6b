"""Messages as brokers really deliver them: repeated, in another order, unreadable, or into no queue at all."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import LiteralString
from uuid import UUID

import pytest
from clinic_local.api_client import Caller
from clinic_local.testing import System
from clinic_shared import contracts
from clinic_shared.ids import uuid7

from .accounting import Finding, Violation
from .books import SETTLE_SECONDS, Books
from .history import History
from .people import Desk, Lab, Patient
from .planting import BOOKED, CANCELLED, discard_all, forged, published_about
from .server_harm import Broker

SEVERAL_POLLS_SECONDS = 2.5
"""An idle relay looks into its outbox at least once a second."""


@pytest.fixture(scope="module")
def broker(system: System) -> Iterator[Broker]:
    broker = Broker(system)
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
        *published_about(books, "scheduling", patient),
        *published_about(books, "lab-integration", patient),
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
    events = [
        forged(BOOKED, history, patient, version=1, appointment_id=appointment),
        forged(CANCELLED, history, patient, version=2, appointment_id=appointment, status="cancelled"),
    ]
    for envelope, body in [events[1], events[0], events[1], events[1]]:
        broker.publish(envelope.type, envelope.headers(), body)
    _wait_until_applied(books, "patients", [envelope.id for envelope, _ in events])
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
        discard_all(operator, consumer)


def test_a_deleted_queue_loses_no_event_and_its_subscriber_catches_up(
    system: System, broker: Broker, books: Books, desk: Desk, patient: Patient
) -> None:
    resting = books.settle()
    assert resting.sound, f"\n{resting}"
    with queue_missing(broker, "patients.scheduling"):
        booked = {desk.book(patient)["appointment_id"] for _ in range(3)}
        looked_until = time.monotonic() + SEVERAL_POLLS_SECONDS
        while time.monotonic() < looked_until:
            pending = books.query("scheduling", "SELECT subject FROM outbox JOIN event USING (event_id)")
            assert {str(subject) for (subject,) in pending} == booked
            time.sleep(0.1)
    verdict = books.settle()
    assert verdict.sound, f"\n{verdict}"


@contextmanager
def queue_missing(broker: Broker, name: str) -> Iterator[None]:
    """Somebody deletes a subscriber's queue by mistake, and the operator declares it again."""
    broker.delete_queue(name)
    try:
        yield
    finally:
        broker.declare_topology()


def _wait_until_applied(books: Books, service: str, event_ids: Sequence[UUID]) -> None:
    """No producer knows of them, so that the books don't miss them while they are on their way."""
    deadline = time.monotonic() + SETTLE_SECONDS
    statement: LiteralString = "SELECT count(*) FROM inbox WHERE event_id = ANY(%s)"
    while books.query(service, statement, list(event_ids))[0][0] < len(event_ids):
        assert time.monotonic() < deadline, f"{service} hasn't applied what was published"
        time.sleep(0.05)


def _filed(books: Books) -> int:
    """Return how often the chart told a laboratory that its result is filed."""
    statement = "SELECT count(*) FROM event WHERE type = 'patients.lab-result-filed.v1'"
    return int(books.query("patients", statement)[0][0])
