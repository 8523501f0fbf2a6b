"""The fault proxy itself: what it lets through, holds back, cuts, and whom it takes a connection to be of."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import psycopg
import pytest
from clinic_shared.testing import Servers, eventually
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .proxy import BOTH, COMMITTED, FaultProxy, Way

pytestmark = pytest.mark.servers
Connect = Callable[[], psycopg.Connection[tuple[object, ...]]]
A_MOMENT_SECONDS = 0.3


@pytest.fixture
def proxy(servers: Servers) -> Iterator[FaultProxy]:
    port = int(str(conninfo_to_dict(servers.postgres_admin_url)["port"]))
    with FaultProxy(lambda: port) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: FaultProxy, servers: Servers) -> Connect:
    url = make_conninfo(servers.postgres_admin_url, host="127.0.0.1", port=proxy.port, connect_timeout=60)
    return lambda: psycopg.connect(url)


def test_what_isnt_tampered_with_passes(connect: Connect) -> None:
    with connect() as connection:
        assert connection.execute("SELECT repeat('x', 200000)").fetchone() == ("x" * 200_000,)


def test_a_commit_whose_answer_is_cut_off_has_been_made(proxy: FaultProxy, connect: Connect) -> None:
    with connect() as other:
        other.autocommit = True
        with proxy.trap(COMMITTED) as trap, pytest.raises(psycopg.OperationalError), connect() as connection:
            (transaction,) = connection.execute("SELECT pg_current_xact_id()::text").fetchone() or ("",)
        assert trap.sprung.is_set()
        status = other.execute("SELECT pg_xact_status(%s::xid8)", (transaction,)).fetchone()
    assert status == ("committed",)


@pytest.mark.parametrize("ways", [BOTH, {Way.TO_SERVER}, {Way.TO_CLIENT}])
def test_what_is_held_back_arrives_when_the_link_heals(
    proxy: FaultProxy, connect: Connect, ways: frozenset[Way]
) -> None:
    answers: list[object] = []
    with connect() as connection:
        connection.execute("SELECT 1")
        ask = threading.Thread(target=lambda: answers.append(connection.execute("SELECT 2").fetchone()))
        with proxy.holding(frozenset(ways)):
            ask.start()
            ask.join(A_MOMENT_SECONDS)
            assert not answers
        ask.join()
    assert answers == [(2,)]


def test_whoever_is_refused_hears_it_at_once_and_is_let_in_later(proxy: FaultProxy, connect: Connect) -> None:
    with proxy.refusing(), pytest.raises(psycopg.OperationalError):
        connect()
    connect().close()


async def test_connections_are_cut_by_the_service_that_made_them() -> None:
    startup = b"\0\3\0\0user\0clinic_patients\0database\0clinic_lab_integration\0\0"
    sayings = (
        (len(startup) + 4).to_bytes(4, "big") + startup,
        b"\x0fconnection_nameS\0\0\0\x17clinic-patients publish",
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        FaultProxy(lambda: int(listener.getsockname()[1])) as proxy,
        ExitStack() as clients,
    ):
        for words in sayings:
            client = clients.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=60))
            client.sendall(words)
        for service in ("patients", "lab-integration"):
            await eventually(partial(_was_cut, proxy, service))
            assert proxy.cut(service) == 0


def _was_cut(proxy: FaultProxy, service: str) -> bool:
    return proxy.cut(service) == 1
