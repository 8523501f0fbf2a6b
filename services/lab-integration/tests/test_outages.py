"""Messages while the database, the broker, or both are away: kept and answered, or refused for now."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from clinic_lab_integration.app import processing, service
from clinic_shared.auth import TokenSigner
from clinic_shared.intake import Intake
from clinic_shared.intake_worker import IntakeWorker
from clinic_shared.service import Service
from clinic_shared.testing import FixedClock, Servers, harness
from clinic_shared.topology import declare_all
from psycopg import sql

from .conftest import Laboratory, msa

NOWHERE = "amqp://guest:guest@127.0.0.1:9/"


@pytest.fixture
def database_url(database_of: Callable[[Service], str]) -> str:
    return database_of(service)


@pytest.fixture
async def with_broker(
    vhost: Servers, database_url: str, signer: TokenSigner, clock: FixedClock
) -> AsyncIterator[Laboratory]:
    await declare_all(vhost.amqp_url, vhost.management_url, ())
    async with harness(
        service, database_url=database_url, amqp_url=vhost.amqp_url, signer=signer, clock=clock
    ) as made:
        lab = Laboratory(made)
        await lab.register()
        await lab.open_department()
        yield lab


@pytest.fixture
async def without_broker(
    database_url: str, signer: TokenSigner, clock: FixedClock
) -> AsyncIterator[Laboratory]:
    async with harness(
        service, database_url=database_url, amqp_url=NOWHERE, signer=signer, clock=clock
    ) as made:
        lab = Laboratory(made)
        await lab.register()
        await lab.open_department()
        yield lab


@contextmanager
def no_database(servers: Servers, database_url: str) -> Iterator[None]:
    """Cut every connection to the service's database, and let none in."""
    name = sql.Identifier(urlsplit(database_url).path.lstrip("/"))
    with psycopg.connect(servers.postgres_admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            (urlsplit(database_url).path.lstrip("/"),),
        )
        try:
            yield
        finally:
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))


def find_the_database_again(lab: Laboratory) -> None:
    """Don't wait for the seconds in which the intake leaves the database alone."""
    Intake.of(lab.lab.runtime)._avoid_database_until = 0.0


async def drain(lab: Laboratory) -> None:
    worker = IntakeWorker(lab.lab.runtime, {"hl7": processing(lab.lab.runtime)})
    while await worker.drain_batch():
        continue
    await lab.process()


async def test_with_the_broker_down_messages_are_taken_and_their_events_wait(
    without_broker: Laboratory, sample
) -> None:
    patient_id = await without_broker.add_patient()
    await without_broker.send(sample("panel"))
    assert await without_broker.result_events() == [("received", 1, "final")]
    assert len(await without_broker.results(patient_id)) == 1


async def test_with_the_database_down_messages_wait_on_the_queue_and_take_effect_once(
    with_broker: Laboratory, servers: Servers, database_url: str, sample
) -> None:
    lab = with_broker
    await lab.add_patient()
    with no_database(servers, database_url):
        answers = [await lab.post(sample("panel")) for _ in range(3)]
        assert [(a.status_code, msa(a)[1]) for a in answers] == [(200, "AA")] * 3
    await drain(lab)
    assert await lab.result_events() == [("received", 1, "final")]
    await lab.chart_files()
    assert await lab.dispositions() == {"answered": 3, "applied": 1, "duplicate": 2}
    [kept] = (await lab.get("/v1/lab/messages"))["items"]
    assert (kept["via"], kept["copies"]) == ("queue", 2)


async def test_what_waited_on_the_queue_is_known_when_it_comes_again(
    with_broker: Laboratory, servers: Servers, database_url: str, sample
) -> None:
    lab = with_broker
    await lab.add_patient()
    with no_database(servers, database_url):
        first = await lab.post(sample("panel"))
    await drain(lab)
    find_the_database_again(lab)
    lab.lab.clock.advance(minutes=5)
    again = await lab.post(sample("panel"))
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]


async def test_with_both_down_the_laboratory_is_told_to_send_again_and_nothing_is_kept(
    without_broker: Laboratory, servers: Servers, database_url: str, sample
) -> None:
    lab = without_broker
    with no_database(servers, database_url):
        answer = await lab.post(sample("panel"))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert msa(answer)[:3] == ["MSA", "AE", "PANEL-0001"]
        assert "|207^" in answer.text
    assert await lab.dispositions() == {}
    find_the_database_again(lab)
    assert (await lab.post(sample("panel"))).status_code == 200


async def test_with_both_down_a_stranger_learns_nothing(
    without_broker: Laboratory, servers: Servers, database_url: str, sample
) -> None:
    lab = without_broker
    with no_database(servers, database_url):
        stranger = Laboratory(lab.lab, client_id="nobody", secret="x")
        assert (await stranger.post(sample("panel"))).status_code == 503
