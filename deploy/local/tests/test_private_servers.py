"""Private servers start anywhere, listen on the loopback only, and never outlive who started them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from clinic_local import loopback
from clinic_local.paths import state_path
from clinic_local.servers import Postgres, TestServers, start_test_servers

pytestmark = pytest.mark.servers

STARTER = """
import json, sys, time
from pathlib import Path
from clinic_local.paths import state_path
from clinic_local.servers import start_test_servers
servers = start_test_servers(Path(sys.argv[1]))
pids = [p for s in (servers.postgres, servers.rabbitmq) for p in (s.process.guardian_pid, *s.process.pids.values())]
print(json.dumps(pids), flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids, *, within_seconds: float = 20) -> None:
    deadline = time.monotonic() + within_seconds
    while alive := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.05)


def listening_addresses(pids) -> set[str]:
    """Return the addresses (hex, as the kernel writes them) on which these processes listen."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = str(descriptor.readlink()) if descriptor.is_symlink() else ""
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].partition(":")[0])
    return found


def pids_of(servers: TestServers) -> list[int]:
    processes = (servers.postgres.process, servers.rabbitmq.process)
    return [pid for process in processes if process is not None for pid in process.pids.values()]


@pytest.fixture
def root(tmp_path):
    """A checkout of the test's own, removed with what lies outside of it."""
    yield tmp_path
    shutil.rmtree(state_path(tmp_path), ignore_errors=True)


@pytest.fixture(scope="module")
def awkward(tmp_path_factory):
    """Servers of a checkout whose path has a space and Cyrillic letters."""
    root = tmp_path_factory.mktemp("a clone") / "Поликлиника № 1"
    root.mkdir()
    servers = start_test_servers(root)
    yield servers
    pids = pids_of(servers)
    servers.stop()
    wait_until_gone(pids, within_seconds=60)
    assert not list(root.glob(".run/test/*"))
    assert not state_path(root).exists()


def test_servers_answer_from_a_path_with_spaces_and_cyrillic_letters(awkward):
    with psycopg.connect(awkward.postgres_admin_url) as connection:
        row = connection.execute("SELECT lower('ИВАНОВ'), current_setting('server_encoding')").fetchone()
    assert row == ("иванов", "UTF8")
    assert loopback.get_json(f"{awkward.management_url}/api/overview")["node"] == "clinic@localhost"


def test_servers_listen_on_the_loopback_only(awkward):
    pids = pids_of(awkward)
    loopbacks = {"0100007F", "00000000000000000000000001000000"}
    assert listening_addresses(pids) <= loopbacks
    assert "0100007F" in listening_addresses(pids)


def test_a_wrong_password_is_refused(awkward):
    url = awkward.postgres.url_of("postgres", user="clinic_admin", password="wrong")
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(url)


@pytest.mark.skipif(os.getuid() != 0, reason="only root has to give up its rights")
def test_as_root_postgresql_runs_as_somebody_else(awkward):
    pid = awkward.postgres.pid
    assert Path(f"/proc/{pid}").stat().st_uid != 0


def test_a_killed_starter_leaves_no_process(root):
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(root)], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    with starter.stdout:
        pids = [int(word) for word in starter.stdout.readline().strip("[]\n").split(",")]
    assert all(is_alive(pid) for pid in pids)
    starter.kill()
    starter.wait()
    wait_until_gone(pids)


def test_a_killed_guardian_takes_its_server_along(root):
    server = Postgres(root, environ={}).start(root / ".run" / "postgres", durable=False)
    assert server.process is not None
    pids = list(server.process.pids.values())
    os.kill(server.process.guardian_pid, signal.SIGKILL)
    wait_until_gone(pids)
    server.stop()


def test_what_was_committed_outlives_a_restart(root):
    finder = Postgres(root, environ={})
    for _ in range(2):
        server = finder.start(root / ".run" / "postgres", durable=True)
        with psycopg.connect(server.admin_url, autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS visit (id int)")
            connection.execute("INSERT INTO visit VALUES (1)")
            count = connection.execute("SELECT count(*) FROM visit").fetchone()
        server.stop()
    assert count == (2,)


@pytest.mark.parametrize("source", ["system", "wheel"])
def test_both_sources_of_postgresql_have_what_the_services_need(root, source):
    finder = Postgres(root, environ={"CLINIC_POSTGRES_SOURCE": source})
    if source == "system" and not any(b.source == "system" for b in _available()):
        pytest.skip("this machine has no PostgreSQL of its own")
    server = finder.start(root / ".run" / "postgres", durable=False)
    try:
        with psycopg.connect(server.admin_url, autocommit=True) as connection:
            for extension in ("btree_gist", "pg_trgm"):
                connection.execute(f"CREATE EXTENSION {extension}")
            assert connection.execute("SELECT similarity('Иванов', 'иванов')").fetchone() == (1.0,)
    finally:
        server.stop()


def _available():
    from clinic_local import postgres

    return postgres.available()
