"""The bootstrap finds the machine's package index, takes nothing but the pinned uv, and installs what is missing."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from clinic_local import package_index, uv
from clinic_local.errors import SetupError
from clinic_local.package_index import Indexes
from clinic_local.packages import Packages

BOOTSTRAP = Path(__file__).parents[1] / "bootstrap.py"
WHEEL = "uv-0.13.9-py3-none-any.whl"


@pytest.fixture
def index_of(tmp_path):
    """Make an index folder that serves some bytes as the wheel, and the settings that name it."""

    def make(wheel: bytes):
        folder = tmp_path / "simple" / "uv"
        folder.mkdir(parents=True)
        (folder / WHEEL).write_bytes(wheel)
        (folder / "index.html").write_text(f'<a href="{WHEEL}#sha256=whatever">{WHEEL}</a>')
        return Indexes({"PIP_INDEX_URL": (tmp_path / "simple").as_uri()}, [])

    return make


def test_without_configuration_packages_come_from_pypi():
    indexes = Indexes({}, [])
    assert indexes.urls == ["https://pypi.org/simple"]
    assert indexes.is_pypi


def test_the_environment_is_stronger_than_pips_files(tmp_path):
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://file.example.org/simple\n")
    assert Indexes({}, [file]).main == "https://file.example.org/simple"
    environ = {"PIP_INDEX_URL": "https://env.example.org/simple"}
    assert Indexes(environ, [file]).main == "https://env.example.org/simple"


def test_the_first_of_pips_files_wins(tmp_path):
    user, site = tmp_path / "user.conf", tmp_path / "site.conf"
    user.write_text("[global]\nindex-url = https://user.example.org/simple\n")
    site.write_text("[global]\nindex-url = https://site.example.org/simple\ncert = /ca.pem\n")
    indexes = Indexes({}, [user, site])
    assert indexes.main == "https://user.example.org/simple"
    assert indexes.certificates == "/ca.pem"


def test_pips_file_named_by_the_environment_comes_first():
    files = package_index.pip_files({"PIP_CONFIG_FILE": "/mine.conf", "HOME": "/home/anna"})
    assert files[0] == Path("/mine.conf")
    assert Path("/home/anna/.config/pip/pip.conf") in files
    assert package_index.pip_files({"PIP_CONFIG_FILE": "/dev/null"}) == []


def test_lists_of_places_are_split_and_names_of_uvs_indexes_dropped():
    indexes = Indexes(
        {"UV_INDEX": "house=https://a.example.org/simple", "PIP_FIND_LINKS": "/wheels /more"}, []
    )
    assert indexes.extra == ["https://a.example.org/simple"]
    assert indexes.find_links == ["/wheels", "/more"]


def test_no_index_leaves_pypi_out():
    indexes = Indexes({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}, [])
    assert indexes.urls == []
    assert not indexes.is_pypi
    assert indexes.uv_options() == ["--no-index", "--find-links", "/wheels"]


def test_an_unreadable_file_of_pip_is_left_out(tmp_path, capsys):
    file = tmp_path / "pip.conf"
    file.write_text("no section\n")
    assert Indexes({}, [file]).is_pypi
    assert "left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "page",
    [
        json.dumps({"files": [{"url": f"../../files/{WHEEL}"}]}),
        f"<html><a data-x='1' href='../../files/{WHEEL}#sha256=0'>uv</a></html>",
        f'<a href="../../files/{WHEEL}">uv</a>',
    ],
)
def test_an_index_answers_in_json_or_html(page):
    found = package_index._link(page.encode(), "https://index.example.org/simple/uv/", WHEEL)
    assert found == f"https://index.example.org/files/{WHEEL}"


def test_a_wheel_with_the_pinned_hash_is_taken(index_of):
    wheel = b"the wheel"
    indexes = index_of(wheel)
    assert uv._download(indexes, WHEEL, hashlib.sha256(wheel).hexdigest()) == wheel


def test_a_wheel_with_another_hash_is_refused(index_of):
    indexes = index_of(b"something else")
    with pytest.raises(SetupError, match="not the pinned one"):
        uv._download(indexes, WHEEL, hashlib.sha256(b"the wheel").hexdigest())


def test_find_links_are_searched_first(tmp_path):
    wheel = b"the wheel"
    (tmp_path / WHEEL).write_bytes(wheel)
    indexes = Indexes({"PIP_FIND_LINKS": str(tmp_path), "PIP_INDEX_URL": "http://127.0.0.1:1/simple"}, [])
    assert uv._download(indexes, WHEEL, hashlib.sha256(wheel).hexdigest()) == wheel


def test_an_unreachable_index_is_named_without_its_password():
    indexes = Indexes({"PIP_INDEX_URL": "http://anna:secret@127.0.0.1:1/simple"}, [])
    with pytest.raises(SetupError) as raised:
        uv._download(indexes, WHEEL, "0" * 64)
    assert "http://127.0.0.1:1/simple/uv/" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("system", "machine", "libc", "reason"),
    [
        ("Linux", "x86_64", ("glibc", "2.36"), None),
        ("Linux", "aarch64", ("glibc", "2.28"), None),
        ("Darwin", "arm64", ("", ""), None),
        ("Linux", "x86_64", ("glibc", "2.17"), "this Linux has glibc 2.17"),
        ("Linux", "x86_64", ("", ""), "musl"),
        ("Linux", "riscv64", ("glibc", "2.36"), "Linux on riscv64 isn't supported"),
        ("FreeBSD", "amd64", ("", ""), "FreeBSD on amd64 isn't supported"),
    ],
)
def test_each_machine_gets_its_wheel_or_a_sentence_and_what_to_do(system, machine, libc, reason):
    if reason is None:
        suffix, digest = uv._wheel_for(system, machine, *libc)
        assert suffix.endswith(".whl")
        assert len(digest) == 64
        return
    with pytest.raises(SetupError, match=reason) as raised:
        uv._wheel_for(system, machine, *libc)
    assert "container" in raised.value.advice


OLD_PYTHONS = sorted(
    python
    for python in Path.home().glob(".pyenv/versions/*/bin/python")
    if tuple(int(part) for part in python.parents[1].name.split(".")[:2]) < (3, 11)
)


@pytest.fixture(params=[str(python) for python in OLD_PYTHONS] or ["none"])
def old_python(request):
    if request.param == "none":
        pytest.skip("this machine has no Python older than 3.11")
    return request.param


def test_an_old_python_gets_one_sentence_and_no_traceback(old_python, tmp_path):
    ended = subprocess.run(
        [old_python, BOOTSTRAP, "--where"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "Python 3.11 or newer is needed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_old_python_hands_over_to_a_newer_one_that_works(old_python, tmp_path):
    shim, newer = tmp_path / "python3.19", tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.19: command not found' >&2\nexit 127\n")
    newer.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for script in (shim, newer):
        script.chmod(0o755)
    ended = subprocess.run(
        [old_python, BOOTSTRAP, "--where"],
        env={"PATH": str(tmp_path), "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert Path(ended.stdout.strip()).name == "bin"


def test_the_bootstrap_needs_nothing_but_what_the_image_gives_it():
    """The image's layer of packages is made from the manifests and these modules, before any package is there."""
    script = (
        f"import sys; sys.path.insert(0, {str(BOOTSTRAP.parent)!r}); import clinic_local.packages;"
        "print(*(name for name in sys.modules if name.startswith('clinic_local.')))"
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    imported = {name.removeprefix("clinic_local.") for name in ended.stdout.split()}
    dockerfile = (BOOTSTRAP.parents[1] / "Dockerfile").read_text()
    copied = re.search(r"for module in ([a-z_ ]+);", dockerfile)
    assert copied is not None
    assert imported == set(copied[1].split())


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose installations are only written down: its packages, and the groups of each installation."""

    class Recorded(Packages):
        installed: list[set[str]] = []  # noqa: RUF012
        wanted = "a lock file"

        def fingerprint(self) -> str:
            return hashlib.sha256(self.wanted.encode()).hexdigest()

        def sync(self, _uv: Path, _indexes: Indexes, groups: frozenset[str]) -> None:
            (self.venv / "bin").mkdir(parents=True, exist_ok=True)
            (self.venv / "bin" / "clinic").touch()
            self.installed.append(set(groups))

    Recorded.installed = []
    return Recorded(tmp_path)


def test_a_group_is_installed_when_asked_for_and_satisfies_who_asks_for_less(checkout):
    for groups in ((), ("checks",), ("checks",), ()):
        checkout.install(frozenset(groups))
    assert checkout.installed == [set(), {"checks"}]


def test_a_changed_lock_file_does_not_remove_the_groups_that_are_there(checkout):
    checkout.install(frozenset({"checks"}))
    checkout.wanted = "another lock file"
    checkout.install(frozenset())
    assert checkout.installed == [{"checks"}, {"checks"}]
