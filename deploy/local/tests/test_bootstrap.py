"""The bootstrap finds the machine's package index and takes nothing but the pinned uv."""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BOOTSTRAP = Path(__file__).parents[1] / "bootstrap.py"
WHEEL = "uv-0.13.9-py3-none-any.whl"


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", BOOTSTRAP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def index_of(tmp_path, bootstrap):
    """Make an index folder that serves some bytes as the wheel, and the settings that name it."""

    def make(wheel: bytes):
        folder = tmp_path / "simple" / "uv"
        folder.mkdir(parents=True)
        (folder / WHEEL).write_bytes(wheel)
        (folder / "index.html").write_text(f'<a href="{WHEEL}#sha256=whatever">{WHEEL}</a>')
        return bootstrap.Indexes({"PIP_INDEX_URL": (tmp_path / "simple").as_uri()}, [])

    return make


def test_without_configuration_packages_come_from_pypi(bootstrap):
    indexes = bootstrap.Indexes({}, [])
    assert indexes.urls == ["https://pypi.org/simple"]
    assert indexes.is_pypi


def test_the_environment_is_stronger_than_pips_files(bootstrap, tmp_path):
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://file.example.org/simple\n")
    assert bootstrap.Indexes({}, [file]).main == "https://file.example.org/simple"
    environ = {"PIP_INDEX_URL": "https://env.example.org/simple"}
    assert bootstrap.Indexes(environ, [file]).main == "https://env.example.org/simple"


def test_the_first_of_pips_files_wins(bootstrap, tmp_path):
    user, site = tmp_path / "user.conf", tmp_path / "site.conf"
    user.write_text("[global]\nindex-url = https://user.example.org/simple\n")
    site.write_text("[global]\nindex-url = https://site.example.org/simple\ncert = /ca.pem\n")
    indexes = bootstrap.Indexes({}, [user, site])
    assert indexes.main == "https://user.example.org/simple"
    assert indexes.certificates == "/ca.pem"


def test_pips_file_named_by_the_environment_comes_first(bootstrap):
    files = bootstrap.pip_files({"PIP_CONFIG_FILE": "/mine.conf", "HOME": "/home/anna"})
    assert files[0] == Path("/mine.conf")
    assert Path("/home/anna/.config/pip/pip.conf") in files
    assert bootstrap.pip_files({"PIP_CONFIG_FILE": "/dev/null"}) == []


def test_lists_of_places_are_split_and_names_of_uvs_indexes_dropped(bootstrap):
    indexes = bootstrap.Indexes(
        {"UV_INDEX": "house=https://a.example.org/simple", "PIP_FIND_LINKS": "/wheels /more"}, []
    )
    assert indexes.extra == ["https://a.example.org/simple"]
    assert indexes.find_links == ["/wheels", "/more"]


def test_no_index_leaves_pypi_out(bootstrap):
    indexes = bootstrap.Indexes({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}, [])
    assert indexes.urls == []
    assert not indexes.is_pypi
    assert indexes.uv_options() == ["--no-index", "--find-links", "/wheels"]


def test_an_unreadable_file_of_pip_is_left_out(bootstrap, tmp_path, capsys):
    file = tmp_path / "pip.conf"
    file.write_text("no section\n")
    assert bootstrap.Indexes({}, [file]).is_pypi
    assert "left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "page",
    [
        json.dumps({"files": [{"url": f"../../files/{WHEEL}"}]}),
        f"<html><a data-x='1' href='../../files/{WHEEL}#sha256=0'>uv</a></html>",
        f'<a href="../../files/{WHEEL}">uv</a>',
    ],
)
def test_an_index_answers_in_json_or_html(bootstrap, page):
    found = bootstrap._link(page.encode(), "https://index.example.org/simple/uv/", WHEEL)
    assert found == f"https://index.example.org/files/{WHEEL}"


def test_a_wheel_with_the_pinned_hash_is_taken(bootstrap, index_of):
    wheel = b"the wheel"
    indexes = index_of(wheel)
    assert bootstrap._download(indexes, WHEEL, hashlib.sha256(wheel).hexdigest()) == wheel


def test_a_wheel_with_another_hash_is_refused(bootstrap, index_of):
    indexes = index_of(b"something else")
    with pytest.raises(bootstrap.BootstrapError, match="not the pinned one"):
        bootstrap._download(indexes, WHEEL, hashlib.sha256(b"the wheel").hexdigest())


def test_find_links_are_searched_first(bootstrap, tmp_path):
    wheel = b"the wheel"
    (tmp_path / WHEEL).write_bytes(wheel)
    indexes = bootstrap.Indexes(
        {"PIP_FIND_LINKS": str(tmp_path), "PIP_INDEX_URL": "http://127.0.0.1:1/simple"}, []
    )
    assert bootstrap._download(indexes, WHEEL, hashlib.sha256(wheel).hexdigest()) == wheel


def test_an_unreachable_index_is_named_without_its_password(bootstrap):
    indexes = bootstrap.Indexes({"PIP_INDEX_URL": "http://anna:secret@127.0.0.1:1/simple"}, [])
    with pytest.raises(bootstrap.BootstrapError) as raised:
        bootstrap._download(indexes, WHEEL, "0" * 64)
    assert "http://127.0.0.1:1/simple/uv/" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_this_machine_has_a_pinned_wheel(bootstrap):
    suffix, digest = bootstrap._wheel_for_this_machine()
    assert suffix.endswith(".whl")
    assert len(digest) == 64


def test_an_old_python_gets_one_sentence_and_no_traceback(bootstrap, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(sys, "argv", ["bootstrap.py"])
    monkeypatch.setenv("POLYCLINIC_BOOTSTRAP", "1")
    assert bootstrap.main() == 1
    assert "Python 3.11 or newer is needed" in capsys.readouterr().err


@pytest.fixture
def syncs(bootstrap, tmp_path, monkeypatch):
    """Let a bootstrap of some groups run on an empty .venv; return the groups of each installation."""
    venv, installed = tmp_path / ".venv", []
    for name, value in (("VENV", venv), ("STAMP", venv / ".stamp"), ("RUN", tmp_path / ".run")):
        monkeypatch.setattr(bootstrap, name, value)
    monkeypatch.setattr(bootstrap, "find_uv", lambda _: Path("uv"))

    def sync(_uv, _indexes, groups):
        (venv / "bin").mkdir(parents=True, exist_ok=True)
        (venv / "bin" / "clinic").touch()
        installed.append(set(groups))

    monkeypatch.setattr(bootstrap, "sync", sync)
    return installed


def test_a_group_is_installed_when_asked_for_and_satisfies_who_asks_for_less(bootstrap, syncs):
    bootstrap._set_up(frozenset())
    bootstrap._set_up(frozenset({"checks"}))
    bootstrap._set_up(frozenset({"checks"}))
    bootstrap._set_up(frozenset())
    assert syncs == [set(), {"checks"}]


def test_a_changed_lock_file_does_not_remove_the_groups_that_are_there(bootstrap, syncs, monkeypatch):
    bootstrap._set_up(frozenset({"checks"}))
    monkeypatch.setattr(bootstrap, "fingerprint", lambda: "another")
    bootstrap._set_up(frozenset())
    assert syncs == [{"checks"}, {"checks"}]
