"""Ports, folders and servers are found as the machine has them; what can't be used is refused with advice."""

import os
import socket
from pathlib import Path

import pytest
from clinic_local import accounts, download, paths, postgres, rabbitmq, rabbitmq_packages
from clinic_local.accounts import ServerUser
from clinic_local.children import pause_before_restart
from clinic_local.environment import Environments, Secrets
from clinic_local.errors import SetupError
from clinic_local.ports import PortBook, is_free, reserve
from clinic_local.postgres import PostgresServer
from clinic_local.rabbitmq import RabbitServer

NOBODY = ServerUser("nobody", 65534, 65534)


def test_a_remembered_port_is_taken_again(tmp_path):
    book = tmp_path / "ports.json"
    assert PortBook(book).take("postgres") == PortBook(book).take("postgres")


def test_a_remembered_port_that_somebody_took_is_given_up(tmp_path):
    book = PortBook(tmp_path / "ports.json")
    port = book.take("postgres")
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", port))
        somebody.listen()
        assert not is_free(port)
        assert book.take("postgres") != port


def test_a_preferred_port_is_taken_when_free_and_avoided_when_busy(tmp_path):
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        busy = somebody.getsockname()[1]
        somebody.listen()
        assert PortBook().take("gateway", preferred=busy) != busy
    assert PortBook().take("gateway", preferred=busy) == busy


def test_a_reserved_port_is_not_free_for_others():
    port = PortBook().take("gateway")
    reservation = reserve(port)
    assert reservation is not None
    with reservation:
        assert not is_free(port)
    assert is_free(port)


def test_two_names_never_get_the_same_port():
    book = PortBook()
    first = book.take("one")
    assert book.take("two", preferred=first) != first


def test_a_folder_under_a_private_home_cannot_be_entered_by_another_user(tmp_path):
    private = tmp_path / "root"
    inside = private / "clone"
    inside.mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o001)
    private.chmod(0o755)
    assert accounts.can_enter(inside, NOBODY)
    private.chmod(0o700)
    assert not accounts.can_enter(inside, NOBODY)
    assert accounts.can_enter(inside, None)


@pytest.mark.parametrize("name", ["with space", "Клиника", "quo'te"])
def test_a_path_that_shell_scripts_break_on_is_not_given_to_rabbitmq(tmp_path, name):
    root = tmp_path / name
    preferred = paths.run_dir(root) / "rabbitmq"
    chosen = paths.server_dir(root, preferred, None, shell_safe=True)
    assert paths.is_shell_safe(chosen)
    assert chosen.parent == paths.state_path(root)
    chosen.parent.rmdir()


def test_a_state_folder_that_others_can_write_is_refused(tmp_path):
    folder = paths.state_path(tmp_path)
    folder.mkdir()
    try:
        folder.chmod(0o777)
        with pytest.raises(SetupError, match="belongs to someone else"):
            paths.state_dir(tmp_path)
    finally:
        folder.rmdir()


def test_a_secret_is_readable_by_its_owner_only(tmp_path):
    file = tmp_path / "secrets" / "password"
    paths.write_private(file, "secret")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Let the machine have PostgreSQL of some versions, with or without contrib; scripts that tell a version."""
    monkeypatch.setattr(
        postgres,
        "_PROBES",
        ((f"{tmp_path}/lib/*/bin", f"{tmp_path}/share/{{version}}/extension"),),
    )
    monkeypatch.setattr(postgres, "_wheel_binaries", lambda: iter(()))

    def install(version: str, *, extensions=("btree_gist", "pg_trgm")):
        bin_dir = tmp_path / "lib" / version / "bin"
        control = tmp_path / "share" / version.split(".", maxsplit=1)[0] / "extension"
        for folder in (bin_dir, control):
            folder.mkdir(parents=True)
        for name in ("postgres", "initdb"):
            (bin_dir / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
            (bin_dir / name).chmod(0o755)
        for extension in extensions:
            (control / f"{extension}.control").touch()
        return bin_dir

    return install


def test_the_newest_suitable_postgresql_of_the_machine_is_chosen(installed):
    installed("15.4")
    newest = installed("17.2")
    installed("14.9")
    installed("19.1")
    found = postgres.available()
    assert [b.version for b in found] == [17, 15]
    assert found[0].bin_dir == newest


def test_a_postgresql_without_contrib_is_passed_over(installed):
    installed("16.1", extensions=("btree_gist",))
    assert postgres.available() == []


def test_without_any_postgresql_the_three_choices_are_told(installed, tmp_path):
    with pytest.raises(SetupError) as raised:
        postgres.Postgres(tmp_path, environ={})._binaries(tmp_path / "data", None)
    assert raised.value.advice.count("\n") >= 3
    assert "CLINIC_POSTGRES_URL" in raised.value.report()


def test_data_of_a_postgresql_that_has_gone_is_not_touched(installed, tmp_path):
    installed("17.2")
    data = tmp_path / ".run" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(SetupError, match="PostgreSQL 15, which is no longer here"):
        postgres.Postgres(tmp_path, environ={})._binaries(data, None)
    assert (data / "PG_VERSION").exists()


@pytest.mark.parametrize(
    ("version", "suits"),
    [("3.9.27", False), ("3.10.8", True), ("3.13.7", True), ("4.3.0", True), ("5.0.0", False)],
)
def test_rabbitmq_from_3_10_to_4_x_will_do(version, suits):
    assert rabbitmq._is_suitable(version) is suits


def test_without_apt_the_three_choices_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError) as raised:
        rabbitmq_packages.root(tmp_path)
    for choice in ("CLINIC_AMQP_URL", "apt-get install", "docker run"):
        assert choice in raised.value.report()


def test_packages_that_apt_cannot_get_leave_nothing_behind(tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("apt-get", "dpkg-deb"):
        (tools / name).write_text("#!/bin/sh\necho 'E: no such host' >&2\nexit 100\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    cache = tmp_path / "cache"
    with pytest.raises(SetupError, match="no such host"):
        rabbitmq_packages.root(cache)
    assert list(cache.iterdir()) == []


def test_packages_are_unpacked_with_the_libraries_that_this_machine_lacks_and_only_once(
    tmp_path, monkeypatch
):
    tools, calls = tmp_path / "tools", tmp_path / "calls"
    tools.mkdir()
    simulated = "Inst libc-ares2 (1.18)\\nInst libjs-d3 (3.5)\\nInst adduser (3)\\n"
    scripts = {
        "apt-get": f"""echo "$@" >> {calls}
case "$*" in
  *-s*) printf '{simulated}' ;;
  *download*) for name; do case "$name" in nginx|lib*) touch "$name.deb" ;; esac; done ;;
esac""",
        "dpkg-deb": 'mkdir -p "$3/usr/bin" && touch "$3/usr/bin/$(basename "$2" .deb)"',
    }
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    cache = tmp_path / "cache"
    root = download.unpacked_packages(cache, "nginx", ("nginx",))
    assert sorted(file.name for file in (root / "usr/bin").iterdir()) == ["libc-ares2", "nginx"]
    before = calls.read_text()
    assert download.unpacked_packages(cache, "nginx", ("nginx",)) == root
    assert calls.read_text() == before


def test_a_given_server_that_does_not_answer_is_named(tmp_path):
    given = {"CLINIC_POSTGRES_URL": "postgresql://anna:secret@127.0.0.1:1/postgres"}
    with pytest.raises(SetupError, match="CLINIC_POSTGRES_URL can't be reached"):
        postgres.Postgres(tmp_path, environ=given).launch(tmp_path / "postgres", durable=False)
    given = {"CLINIC_AMQP_URL": "amqp://127.0.0.1:1/"}
    with pytest.raises(SetupError, match="needs CLINIC_AMQP_MANAGEMENT_URL"):
        rabbitmq.Rabbit(tmp_path, environ=given).launch(tmp_path / "rabbitmq", durable=False)


def test_pauses_before_a_restart_double_up_to_half_a_minute():
    assert [pause_before_restart(n) for n in (1, 2, 3, 20)] == [0.5, 1.0, 2.0, 30.0]


def test_services_get_neither_the_administrators_password_nor_a_proxy_for_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("CLINIC_POSTGRES_URL", "postgresql://admin:topsecret@127.0.0.1/postgres")
    monkeypatch.setenv("NO_PROXY", "example.org")
    environments = Environments(
        Secrets(tmp_path),
        PortBook(),
        PostgresServer("postgresql://admin:topsecret@127.0.0.1:5432/postgres", source="given"),
        RabbitServer("amqp://127.0.0.1:5672/%2F", "http://127.0.0.1:15672", source="given"),
        ("scheduling",),
    )
    environment = environments.of_service("scheduling")
    assert not [name for name, value in environment.items() if "topsecret" in value]
    assert environment["NO_PROXY"] == "example.org,127.0.0.1,localhost"
    assert "CLINIC_DATABASE_URL" not in environments.of_fakes()
    assert "CLINIC_AMQP_URL" not in environments.of_fakes()
