"""The image's description: what hadolint says of it, and what a container must not be."""

import shutil
import subprocess
import sys
from pathlib import Path

from .manifests import ROOT

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
HADOLINT = Path(sys.executable).parent / "hadolint"


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HADOLINT, "--no-color", file], capture_output=True, text=True, check=False)


def instructions() -> list[list[str]]:
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]


def test_hadolint_has_nothing_to_say():
    result = lint(DOCKERFILE)
    assert result.returncode == 0, result.stdout


def test_hadolint_finds_a_mistake(tmp_path):
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM debian:latest\nRUN cd /app && sudo make\n")
    assert lint(broken).returncode != 0


def test_the_base_is_an_argument_in_every_stage():
    assert {rest.split()[0] for word, rest in instructions() if word == "FROM"} == {"${BASE_IMAGE}"}


def test_it_runs_as_nobody_in_particular():
    users = [rest for word, rest in instructions() if word == "USER"]
    assert users == ["10001:10001"]


def test_nothing_is_fetched_but_through_the_lock_file():
    commands = " ".join(rest for word, rest in instructions() if word == "RUN")
    for fetcher in ("curl", "wget", "apt-get", "apk ", "pip install"):
        assert fetcher not in commands


def test_everything_that_bootstrap_imports_is_there_when_packages_are_installed(tmp_path):
    """It runs before the sources are copied."""
    named = DOCKERFILE.read_text(encoding="utf-8").partition("for module in ")[2].partition(";")[0].split()
    local, copy = ROOT / "deploy" / "local", tmp_path / "deploy" / "local"
    (copy / "clinic_local").mkdir(parents=True)
    for name in ("bootstrap.py", "clinic_local/__init__.py", *(f"clinic_local/{name}.py" for name in named)):
        shutil.copy(local / name, copy / name)
    program = "import sys; sys.path.insert(0, '.'); import clinic_local.packages"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], cwd=copy, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
