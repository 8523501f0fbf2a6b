"""kill -9 under traffic, of every process that there is: nothing acknowledged is lost, doubled or invented."""

import signal
import socket
import time
from urllib.parse import urlsplit

import pytest
from clinic_local.testing import System
from clinic_shared import contracts

from .books import Books
from .harm import RECOVERY_SECONDS, kill_all, pids_of, wait_until_running
from .traffic import BOOKINGS, LAB_MESSAGES, Traffic

# Idle it takes 1 to 3; far more where a few hundred events wait and the broker shares the cores it starts on.
RESUME_SECONDS = 120
GATEWAY = "gateway"


@pytest.mark.parametrize("victim", [*contracts.load().services, GATEWAY])
def test_a_killed_service_costs_nothing_that_was_acknowledged(
    system: System, traffic: Traffic, victim: str
) -> None:
    with traffic.flowing() as flow:
        flow.wait_for_more(kinds=[BOOKINGS])
        before = kill_all(system, victim)
        wait_until_running(system, before)
        flow.wait_for_more()


def test_a_killed_broker_costs_nothing_and_publishing_resumes_soon(
    system: System, books: Books, traffic: Traffic
) -> None:
    with traffic.flowing() as flow:
        flow.wait_for_more()
        before = pids_of(system, "rabbitmq")
        system.kill("rabbitmq")
        waiting = _wait_for_pending(books)
        flow.wait_for_more(2, kinds=[BOOKINGS, LAB_MESSAGES])
        back = _listens_again(system.addresses["CLINIC_PRIVATE_AMQP_URL"])
        for service, oldest in waiting.items():
            _published(books, service, oldest, deadline=back + RESUME_SECONDS)
        print(f"{len(waiting)} services publish {time.monotonic() - back:.1f} s after the broker was back")
        wait_until_running(system, before)
        flow.wait_for_more()


def test_an_immediate_stop_of_the_database_costs_nothing_that_was_acknowledged(
    system: System, traffic: Traffic
) -> None:
    with traffic.flowing() as flow:
        flow.wait_for_more()
        before = pids_of(system, "postgres")
        system.kill("postgres", signal.SIGQUIT)
        wait_until_running(system, before)
        flow.wait_for_more()


def _listens_again(url: str) -> float:
    parts = urlsplit(url)
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        try:
            socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "the broker didn't come back"
            time.sleep(0.05)
        else:
            return time.monotonic()


def _wait_for_pending(books: Books) -> dict[str, int]:
    """Return, by service, the oldest of what can't leave while there is no broker."""
    deadline = time.monotonic() + RESUME_SECONDS
    while not (
        waiting := {
            service: oldest for service in books.services if (oldest := _oldest_pending(books, service))
        }
    ):
        assert time.monotonic() < deadline, "nothing waits for the broker"
        time.sleep(0.05)
    return waiting


def _oldest_pending(books: Books, service: str) -> int | None:
    found = books.query(service, "SELECT min(id) FROM outbox")[0][0]
    return None if found is None else int(found)


def _published(books: Books, service: str, row_id: int, *, deadline: float) -> None:
    while books.query(service, "SELECT 1 FROM outbox WHERE id = %s", row_id):
        assert time.monotonic() < deadline, f"{service} doesn't publish again"
        time.sleep(0.05)
