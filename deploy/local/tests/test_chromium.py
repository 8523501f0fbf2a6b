"""Which Chromium tests run: this machine's, unless it is a snap; else the distribution's packages."""

from pathlib import Path

import pytest
from clinic_local import chromium
from clinic_local.chromium import Chromium
from clinic_local.errors import SetupError


def command(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A machine that has nothing but what a test puts there."""
    folder = tmp_path / "tools"
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(chromium, "cache_dir", lambda _: tmp_path / "cache")
    return folder


def test_this_machines_is_taken_as_it_is(tools):
    installed = command(tools, "google-chrome", 'exec /opt/google/chrome/chrome "$@"')
    assert Chromium.found_or_unpacked() == Chromium(installed, {})


def test_what_only_asks_for_a_snap_is_none_and_where_nothing_can_be_fetched_that_is_said(tools):
    command(tools, "chromium-browser", 'exec /snap/bin/chromium "$@"')
    with pytest.raises(SetupError) as refused:
        Chromium.found_or_unpacked()
    assert "no apt to download it with" in refused.value.report()
    assert "Ubuntu" in refused.value.report()


def test_a_link_into_the_folder_of_snaps_is_a_snap(tmp_path):
    assert not chromium.is_snap(command(tmp_path / "bin", "chromium", "exec chrome"))
    (tmp_path / "bin" / "linked").symlink_to("/snap/bin/chromium")
    assert chromium.is_snap(tmp_path / "bin" / "linked")


def test_debians_is_unpacked_with_fonts_of_its_own(tools, tmp_path):
    command(tools, "apt-get", 'case "$*" in *" download "*) for name; do :> "$name.deb"; done ;; esac')
    unpack = 'folder="$3/usr/lib/chromium"; /bin/mkdir -p "$folder" && :> "$folder/chromium"'
    command(tools, "dpkg-deb", unpack)
    found = Chromium.found_or_unpacked()
    assert found.program.name == "chromium"
    assert found.program.is_file()
    root = found.program.parents[3]
    assert root.parent == tmp_path / "cache"
    fonts = Path(found.environment["FONTCONFIG_FILE"])
    assert fonts.is_relative_to(root)
    assert f"<dir>{root}/usr/share/fonts</dir>" in fonts.read_text()
    assert Chromium.found_or_unpacked() == found
