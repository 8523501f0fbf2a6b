# ruff: noqa: INP001 - run as a file, before any package is there
"""Makes a fresh clone runnable: gets uv, then lets it install exactly what uv.lock says into .venv.

One file of standard-library Python that needs neither pip nor the venv module, both of which minimal Debian
images lack. uv comes as a wheel from the package index this machine is configured for and is checked against
the SHA-256 below. Everything goes into the clone and ~/.cache/polyclinic; nothing is installed on the machine.
"""

from __future__ import annotations

import argparse
import base64
import configparser
import fcntl
import hashlib
import html
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

UV_VERSION = "0.13.9"
# (system, machine, libc) -> the end of the wheel's name, its SHA-256 on PyPI
WHEELS = {
    ("Linux", "x86_64", "glibc"): (
        "manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    ("Linux", "x86_64", "musl"): (
        "musllinux_1_1_x86_64.whl",
        "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
    ),
    ("Linux", "aarch64", "glibc"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("Linux", "aarch64", "musl"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("Darwin", "arm64", ""): (
        "macosx_11_0_arm64.whl",
        "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    ),
    ("Darwin", "x86_64", ""): (
        "macosx_10_12_x86_64.whl",
        "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
    ),
}
PYPI = "https://pypi.org/simple"
OLDEST_PYTHON = (3, 11)
TIMEOUT_SECONDS = 60
ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / ".run"
VENV = ROOT / ".venv"
STAMP = VENV / ".polyclinic-stamp"


class BootstrapError(Exception):
    """What went wrong in one sentence, and what to do about it."""

    def __init__(self, cause: str, advice: str) -> None:
        super().__init__(cause)
        self.advice = advice


# -- which package index this machine uses


class Indexes:
    """Where packages come from, as pip and uv are told on this machine: environment first, then pip's files."""

    def __init__(self, environ: dict[str, str], files: list[Path]) -> None:
        pip = _pip_configuration(files)
        self.no_index = _is_true(environ.get("PIP_NO_INDEX") or pip.get("no-index", ""))
        self.main = (
            environ.get("UV_DEFAULT_INDEX")
            or environ.get("UV_INDEX_URL")
            or environ.get("PIP_INDEX_URL")
            or pip.get("index-url")
            or PYPI
        ).rpartition("=")[2].strip() or PYPI
        self.extra = _words(
            environ.get("UV_INDEX"),
            environ.get("UV_EXTRA_INDEX_URL"),
            environ.get("PIP_EXTRA_INDEX_URL"),
            pip.get("extra-index-url"),
        )
        self.find_links = _words(
            environ.get("UV_FIND_LINKS"), environ.get("PIP_FIND_LINKS"), pip.get("find-links")
        )
        self.certificates = (
            environ.get("SSL_CERT_FILE")
            or environ.get("PIP_CERT")
            or environ.get("REQUESTS_CA_BUNDLE")
            or pip.get("cert")
        )

    @property
    def urls(self) -> list[str]:
        return self.extra if self.no_index else [self.main, *self.extra]

    @property
    def is_pypi(self) -> bool:
        """Tell whether the addresses recorded in uv.lock, which are PyPI's, can be used as they are."""
        return not self.no_index and self.main.rstrip("/") == PYPI

    def uv_options(self) -> list[str]:
        main = ["--no-index"] if self.no_index else ["--default-index", self.main]
        extra = [part for url in self.extra for part in ("--index", url)]
        links = [part for place in self.find_links for part in ("--find-links", place)]
        return [*([] if self.no_index else main + extra), *(main if self.no_index else []), *links]


def pip_files(environ: dict[str, str]) -> list[Path]:
    """Return pip's configuration files, the strongest first."""
    home = Path(environ.get("HOME") or "~").expanduser()
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    chosen = environ.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return []
    named = [Path(chosen)] if chosen else []
    site = [Path(sys.prefix) / "pip.conf"]
    return [*named, *site, user / "pip" / "pip.conf", home / ".pip" / "pip.conf", Path("/etc/pip.conf")]


def _pip_configuration(files: list[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in reversed(files):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file)
        except (configparser.Error, UnicodeDecodeError, OSError):
            print(f"bootstrap: {file} can't be read and is left out", file=sys.stderr)
            continue
        for section in ("global", "install", "download"):
            if parser.has_section(section):
                found.update(parser.items(section))
    return found


def _is_true(text: str) -> bool:
    return text.strip().lower() in {"1", "true", "yes", "on"}


def _words(*texts: str | None) -> list[str]:
    """Split lists of places; uv allows each to be written as name=url."""
    words = [word for text in texts for word in (text or "").split()]
    return list(dict.fromkeys(word.split("=", 1)[1] if _is_named(word) else word for word in words))


def _is_named(word: str) -> bool:
    name, equals, rest = word.partition("=")
    return bool(equals and "://" in rest and "://" not in name)


# -- getting uv


def find_uv(indexes: Indexes) -> Path:
    """Return uv: from the cache, from PATH when its version will do, or freshly downloaded."""
    cached = _tools_dir() / "uv"
    if cached.exists():
        return cached
    installed = shutil.which("uv")
    if installed and _is_suitable(Path(installed)):
        return Path(installed)
    return _install_uv(indexes, cached)


def _tools_dir() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "polyclinic" / f"uv-{UV_VERSION}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass  # a home that can't be written is common in containers; the clone's own folder serves as well
    folder = RUN / "tools" / f"uv-{UV_VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_suitable(uv: Path) -> bool:
    answer = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False)
    words = answer.stdout.split()
    return len(words) > 1 and words[1].rpartition(".")[0] == UV_VERSION.rpartition(".")[0]


def _install_uv(indexes: Indexes, target: Path) -> Path:
    suffix, digest = _wheel_for_this_machine()
    filename = f"uv-{UV_VERSION}-py3-none-{suffix}"
    wheel = _download(indexes, filename, digest)
    draft = target.with_name(f"uv.{os.getpid()}")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        draft.write_bytes(archive.read(f"uv-{UV_VERSION}.data/scripts/uv"))
    draft.chmod(0o755)
    draft.rename(target)
    return target


def _wheel_for_this_machine() -> tuple[str, str]:
    system, machine = platform.system(), platform.machine()
    libc = "" if system != "Linux" else "glibc" if platform.libc_ver()[0] == "glibc" else "musl"
    try:
        return WHEELS[(system, machine, libc)]
    except KeyError:
        raise BootstrapError(
            f"there is no pinned uv for {system} on {machine}",
            f"Install uv {UV_VERSION} (https://docs.astral.sh/uv) so that it stands on PATH, then try again.",
        ) from None


def _download(indexes: Indexes, filename: str, digest: str) -> bytes:
    complaints = []
    for place in [*indexes.find_links, *(f"{url.rstrip('/')}/uv/" for url in indexes.urls)]:
        try:
            address = _address_of(place, filename)
            if address is None:
                complaints.append(f"{redacted(place)} doesn't have it")
                continue
            wheel = _get(address)
        except (OSError, ValueError) as error:
            complaints.append(f"{redacted(place)}: {error}")
            continue
        if hashlib.sha256(wheel).hexdigest() == digest:
            return wheel
        complaints.append(f"{redacted(place)} gave a file whose SHA-256 is not the pinned one")
    raise BootstrapError(
        f"uv {UV_VERSION} can't be had ({'; '.join(complaints) or 'no package index is configured'})",
        "Check the network and proxy settings, or name your package index: export PIP_INDEX_URL=https://.../simple\n"
        f"or install uv {UV_VERSION} (https://docs.astral.sh/uv) so that it stands on PATH; then try again.",
    )


def _address_of(place: str, filename: str) -> str | None:
    """Find the file's address on an index page, in a folder or on a page of links."""
    folder = Path(place.removeprefix("file://"))
    if "://" not in place or place.startswith("file://"):
        if (folder / filename).is_file():
            return (folder / filename).as_uri()
        if not (folder / "index.html").is_file():
            return None
        place = (folder / "index.html").as_uri()
    return _link(_get(place, accept="application/vnd.pypi.simple.v1+json, text/html;q=0.5"), place, filename)


def _link(page: bytes, base: str, filename: str) -> str | None:
    text = page.decode("utf-8", "replace")
    if text.lstrip().startswith("{"):
        links = [str(file["url"]) for file in json.loads(text)["files"]]
    else:
        links = [html.unescape(link) for link in re.findall(r"""<a[^>]*?href=["']([^"']+)["']""", text)]
    for link in links:
        if unquote(link.partition("#")[0]).rpartition("/")[2] == filename:
            return urljoin(base, link.partition("#")[0])
    return None


def _get(url: str, accept: str = "*/*") -> bytes:
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    bare = parts._replace(netloc=host).geturl()
    request = urllib.request.Request(bare, headers={"Accept": accept})  # noqa: S310 - file: is a lawful index
    if at:
        token = base64.b64encode(unquote(credentials).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        return bytes(answer.read())


def redacted(text: str) -> str:
    """Return the text without the user names and passwords that addresses of package indexes often carry."""
    return re.sub(r"//[^/@\s]+@", "//", text)


# -- installing what uv.lock says


def fingerprint() -> str:
    digest = hashlib.sha256(f"{UV_VERSION} {sys.version} {_python()} {ROOT}".encode())
    members = ("shared", "gateway", "services/*", "deploy/local")
    files = [ROOT / "uv.lock", ROOT / "pyproject.toml"]
    files += [file for member in members for file in sorted(ROOT.glob(f"{member}/pyproject.toml"))]
    for file in files:
        digest.update(str(file).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _python() -> str:
    """Return the interpreter under an activated virtual environment: .venv can't be its own base."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def sync(uv: Path, indexes: Indexes, groups: frozenset[str]) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environ.update(UV_PYTHON_DOWNLOADS="never", UV_PROJECT_ENVIRONMENT=str(VENV))
    chosen = ["--frozen", "--all-packages", *(part for name in sorted(groups) for part in ("--group", name))]
    command = [str(uv), "sync", "--quiet", *chosen, "--python", _python()]
    if indexes.is_pypi:
        result = _run(command, environ)
        if result.returncode == 0:
            return
        if not (indexes.extra or indexes.find_links):
            raise _failed("uv sync", result)
    _install_from_mirror(uv, indexes, chosen, environ)
    result = _run([*command, "--offline"], environ)
    if result.returncode != 0:
        raise _failed("uv sync", result)


def _install_from_mirror(uv: Path, indexes: Indexes, chosen: list[str], environ: dict[str, str]) -> None:
    """Install the locked versions, by the locked hashes, from where this machine gets its packages.

    `uv sync --frozen` fetches from the addresses in the lock file whatever index is configured.
    """
    requirements = RUN / "requirements.txt"
    export = ["export", "--quiet", *chosen, "--no-emit-workspace"]
    commands = [
        [*export, "--python", _python(), "--output-file", str(requirements)],
        ["venv", "--quiet", "--allow-existing", "--python", _python(), str(VENV)],
        [
            *("pip", "install", "--quiet", "--require-hashes", "--python", str(VENV / "bin" / "python")),
            *(*indexes.uv_options(), "-r", str(requirements)),
        ],
    ]
    for command in commands:
        result = _run([str(uv), *command], environ)
        if result.returncode != 0:
            raise _failed(f"uv {command[0]}", result)


def _run(command: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True, check=False)


def _failed(what: str, result: subprocess.CompletedProcess[str]) -> BootstrapError:
    lines = [redacted(line) for line in result.stderr.strip().splitlines()[-12:]]
    return BootstrapError(
        "the Python packages can't be installed",
        "\n".join(
            [
                f"{what} says:",
                *(f"  {line}" for line in lines),
                "Check network, proxy, free disk space, and PIP_INDEX_URL if you use a mirror; then try again.",
            ]
        ),
    )


# -- the run


@contextmanager
def _alone() -> Iterator[None]:
    """Let two `make` that start together do the work once."""
    RUN.mkdir(exist_ok=True)
    with (RUN / "bootstrap.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def stamp(wanted: str, groups: frozenset[str]) -> str:
    return " ".join([wanted, *sorted(groups)])


def _installed() -> tuple[str, frozenset[str]]:
    """Return the fingerprint of what .venv holds, and the dependency groups in it besides the default ones."""
    try:
        fingerprint_, *groups = STAMP.read_text().split()
    except (FileNotFoundError, ValueError):
        return "", frozenset()
    return fingerprint_, frozenset(groups)


def _is_done(wanted: str, groups: frozenset[str]) -> bool:
    there, groups_there = _installed()
    return there == wanted and groups <= groups_there and (VENV / "bin" / "clinic").exists()


def _set_up(groups: frozenset[str]) -> None:
    wanted = fingerprint()
    if _is_done(wanted, groups):
        return
    started = time.monotonic()
    with _alone():
        if _is_done(wanted, groups):
            return
        # Who needed a group once will again: leaving it out would remove it and install it the next time.
        groups |= _installed()[1]
        indexes = Indexes(dict(os.environ), pip_files(dict(os.environ)))
        if indexes.certificates:
            os.environ.setdefault("SSL_CERT_FILE", indexes.certificates)
        uv = find_uv(indexes)
        print(f"Python packages: installing into .venv with {uv}", flush=True)
        sync(uv, indexes, groups)
        STAMP.write_text(stamp(wanted, groups))
    print(f"Python packages: ready ({time.monotonic() - started:.1f} s)", flush=True)


def _use_newer_python() -> None:
    for minor in range(19, OLDEST_PYTHON[1] - 1, -1):
        newer = shutil.which(f"python3.{minor}")
        if newer and "POLYCLINIC_BOOTSTRAP" not in os.environ:
            os.environ["POLYCLINIC_BOOTSTRAP"] = "1"
            os.execv(newer, [newer, *sys.argv])  # noqa: S606
    raise BootstrapError(
        f"Python 3.11 or newer is needed, and this is {sys.version.split()[0]}",
        "Install python3.11, or name one: make PYTHON=/path/to/python3.11 ...",
    )


def _requested_groups() -> frozenset[str]:
    parser = argparse.ArgumentParser(description="Install the Python packages of uv.lock into .venv.")
    parser.add_argument(
        "--group", action="append", default=[], help="also a dependency group of pyproject.toml"
    )
    return frozenset(parser.parse_args().group)


def main() -> int:
    try:
        if sys.version_info < OLDEST_PYTHON:
            _use_newer_python()
        _set_up(_requested_groups())
    except BootstrapError as error:
        print(f"bootstrap: {error}.", file=sys.stderr)
        print("\n".join(f"  {line}" for line in error.advice.splitlines()), file=sys.stderr)
        return 1
    except OSError as error:
        print(f"bootstrap: {error}. Check permissions and free disk space of {ROOT}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
