"""A component stays away for a while: what is acknowledged meanwhile takes effect once it is back."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from clinic_local.demo_journey import apart_from_its_time
from clinic_local.testing import System

from .books import Books
from .harm import dying
from .paying import Till
from .people import Desk, Lab, Patient, acknowledgement_code
from .server_harm import database_closed

LAB = "lab-integration"
AT_ONCE_SECONDS = 60
"""How long a caller waits at most while something is away; alone on a machine it is well below a second.

Whoever waited for what is away would wait for as long as it is kept away, and that is for longer.
"""


@pytest.fixture
def patient(desk: Desk, books: Books) -> Patient:
    """Somebody whom every service has heard of, in a system at rest."""
    patient = desk.register()
    verdict = books.settle()
    assert verdict.sound, f"\n{verdict}"
    return patient


@contextmanager
def broker_stopped(system: System) -> Iterator[None]:
    """Worse than a dead broker: it takes connections and says nothing."""
    system.kill("rabbitmq", signal.SIGSTOP)
    try:
        yield
    finally:
        system.kill("rabbitmq", signal.SIGCONT)


def test_without_the_broker_bookings_lab_messages_and_payments_are_accepted_and_flow_on_later(
    system: System, books: Books, desk: Desk, lab: Lab, till: Till, patient: Patient
) -> None:
    invoice = till.visit()
    with broker_stopped(system):
        begun = time.monotonic()
        appointment = desk.book(patient)
        result = lab.send(patient)
        payment = till.pay(invoice)
        assert time.monotonic() - begun < 3 * AT_ONCE_SECONDS
        for service in ("scheduling", LAB, "billing"):
            _has_something_to_tell(books, service)
    verdict = books.settle()
    assert verdict.sound, f"\n{verdict}"
    effects = books.read().effects
    assert appointment["reason"] in effects["booking"]["timeline"]
    assert result in effects["lab result"]["chart"]
    assert payment in effects["payment"]["timeline"]


def test_without_its_database_lab_messages_are_acknowledged_and_take_effect_once(
    system: System, books: Books, lab: Lab, patient: Patient
) -> None:
    before = _taken_from_the_queue(books)
    with database_closed(system, LAB):
        key, message = lab.write(patient)
        acknowledgement = lab.insist(key, message)
        assert apart_from_its_time(lab.insist(key, message)) == apart_from_its_time(acknowledgement)
        for _ in range(4):
            lab.send(patient)
    verdict = books.settle()
    assert verdict.sound, f"\n{verdict}"
    assert _taken_from_the_queue(books) - before == 5


def test_a_worker_that_dies_while_it_empties_the_buffer_takes_nothing_twice(
    system: System, books: Books, lab: Lab, patient: Patient
) -> None:
    with dying(system, LAB, "intake.drain.after"), database_closed(system, LAB):
        for _ in range(3):
            lab.send(patient)
    verdict = books.settle()
    assert verdict.sound, f"\n{verdict}"


def test_with_neither_database_nor_broker_a_lab_message_is_refused_for_now_and_kept_once_later(
    system: System, books: Books, lab: Lab, patient: Patient
) -> None:
    key, message = lab.write(patient)
    with database_closed(system, LAB), broker_stopped(system):
        refusal = lab.post(message)
        assert refusal.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert int(refusal.headers["Retry-After"]) > 0
        assert acknowledgement_code(refusal.content) in {"AE", "CE"}
    lab.insist(key, message)
    verdict = books.settle()
    assert verdict.sound, f"\n{verdict}"


@pytest.mark.parametrize("service", ["patients", "scheduling"])
def test_a_service_that_comes_back_to_a_full_queue_applies_it_all(
    system: System, books: Books, desk: Desk, lab: Lab, patient: Patient, service: str
) -> None:
    """Its worker is stopped in the middle of whatever it does; the others go on."""
    worker = f"{service}-worker"
    system.kill(worker, signal.SIGSTOP)
    try:
        for _ in range(3):
            desk.book(patient)
            lab.send(patient)
    finally:
        system.kill(worker, signal.SIGCONT)
    verdict = books.settle()
    assert verdict.sound, f"\n{verdict}"


def _has_something_to_tell(books: Books, service: str) -> None:
    """Wait until events stand in the outbox: what was accepted has been worked off, and can't leave.

    Longer than rows wait for a broker that is away, and for a process that died a moment before (`intake_roll`).
    """
    deadline = time.monotonic() + 3 * AT_ONCE_SECONDS
    while not books.query(service, "SELECT 1 FROM outbox LIMIT 1"):
        assert time.monotonic() < deadline, f"{service} has nothing to tell"
        time.sleep(0.05)


def _taken_from_the_queue(books: Books) -> int:
    return int(books.query(LAB, "SELECT count(*) FROM intake WHERE via = 'queue'")[0][0])
