"""The Python packages of uv.lock in .venv: installed by the first `make`, and again when the lock file changes.

Standard library only: bootstrap.py uses this before any package is there.
"""

import argparse
import fcntl
import hashlib
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clinic_local import machine
from clinic_local.errors import SetupError
from clinic_local.package_index import CERTIFICATE_ADVICE, Indexes, redacted
from clinic_local.paths import CHECKOUT, cache_dir, home, run_dir, venv_dir
from clinic_local.uv import UV_VERSION, find_uv

_STAMP = ".polyclinic-stamp"
_MEMBERS = ("shared", "gateway", "services/*", "deploy/local")


class Packages:
    """What is installed for one checkout, and what its lock file asks for."""

    def __init__(self, root: Path = CHECKOUT) -> None:
        self._root = root
        self.venv = venv_dir(root)

    def install(self, groups: frozenset[str]) -> None:
        """Install the packages and these dependency groups, if they aren't there. Raises SetupError."""
        wanted = self.fingerprint()
        if self._has(wanted, groups):
            return
        started = time.monotonic()
        with self._alone():
            if self._has(wanted, groups):
                return
            # Who needed a group once will again: leaving it out would remove it and install it the next time.
            groups |= self._installed()[1]
            self._install(groups)
            (self.venv / _STAMP).write_text(" ".join([wanted, *sorted(groups)]))
        print(f"Python packages: ready ({time.monotonic() - started:.1f} s)", flush=True)

    def _install(self, groups: frozenset[str]) -> None:
        machine.require_disk(self.venv, machine.PACKAGES_BYTES)
        indexes = Indexes.of_this_machine()
        if indexes.certificates:
            os.environ.setdefault("SSL_CERT_FILE", indexes.certificates)
        uv = find_uv(indexes, cache_dir(self._root))
        print(f"Python packages: installing into {self.venv} with {uv}", flush=True)
        self.sync(uv, indexes, groups)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{UV_VERSION} {sys.version} {_python()} {self._root}".encode())
        files = [self._root / "uv.lock", self._root / "pyproject.toml"]
        files += [file for member in _MEMBERS for file in sorted(self._root.glob(f"{member}/pyproject.toml"))]
        for file in files:
            digest.update(str(file).encode() + b"\0" + file.read_bytes() + b"\0")
        return digest.hexdigest()

    def _installed(self) -> tuple[str, frozenset[str]]:
        """Return the fingerprint of what .venv holds, and the dependency groups in it besides the default ones."""
        try:
            fingerprint, *groups = (self.venv / _STAMP).read_text().split()
        except (FileNotFoundError, ValueError):
            return "", frozenset()
        return fingerprint, frozenset(groups)

    def _has(self, wanted: str, groups: frozenset[str]) -> bool:
        there, groups_there = self._installed()
        return there == wanted and groups <= groups_there and (self.venv / "bin" / "clinic").exists()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let two `make` that start together do the work once."""
        with (run_dir(self._root) / "bootstrap.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def sync(self, uv: Path, indexes: Indexes, groups: frozenset[str]) -> None:
        environ = _environment(self.venv, self._root)
        chosen = [
            "--frozen",
            "--all-packages",
            *(part for name in sorted(groups) for part in ("--group", name)),
        ]
        command = [str(uv), "sync", "--quiet", *chosen, "--python", _python()]
        if indexes.is_pypi:
            result = self._run(command, environ)
            if result.returncode == 0:
                return
            if not (indexes.extra or indexes.find_links):
                raise _failed("uv sync", result)
        self._install_from_mirror(uv, indexes, chosen, environ)
        result = self._run([*command, "--offline"], environ)
        if result.returncode != 0:
            raise _failed("uv sync", result)

    def _install_from_mirror(
        self, uv: Path, indexes: Indexes, chosen: list[str], environ: dict[str, str]
    ) -> None:
        """Install the locked versions, by the locked hashes, from where this machine gets its packages.

        `uv sync --frozen` fetches from the addresses in the lock file whatever index is configured.
        """
        requirements = run_dir(self._root) / "requirements.txt"
        export = ["export", "--quiet", *chosen, "--no-emit-workspace"]
        commands = [
            [*export, "--python", _python(), "--output-file", str(requirements)],
            ["venv", "--quiet", "--allow-existing", "--python", _python(), str(self.venv)],
            [
                *("pip", "install", "--quiet", "--require-hashes", "--python", f"{self.venv}/bin/python"),
                *(*indexes.uv_options(), "-r", str(requirements)),
            ],
        ]
        for command in commands:
            result = self._run([str(uv), *command], environ)
            if result.returncode != 0:
                raise _failed(f"uv {command[0]}", result)

    def _run(self, command: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self._root, env=environ, stderr=subprocess.PIPE, text=True, check=False
        )


def _python() -> str:
    """Return the interpreter under an activated virtual environment: .venv can't be its own base."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def _environment(venv: Path, root: Path) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environ.update(UV_PYTHON_DOWNLOADS="never", UV_PROJECT_ENVIRONMENT=str(venv))
    if _has_system_certificates():
        # uv brings roots of its own, which don't know a company's.
        environ.setdefault("UV_SYSTEM_CERTS", "true")
    if home() is None and "XDG_CACHE_HOME" not in environ:
        environ.setdefault("UV_CACHE_DIR", str(cache_dir(root) / "packages"))
    return environ


def _has_system_certificates() -> bool:
    places = ssl.get_default_verify_paths()
    return bool(places.cafile) or bool(places.capath and any(Path(places.capath).iterdir()))


def _failed(what: str, result: subprocess.CompletedProcess[str]) -> SetupError:
    complaint = result.stderr.strip()
    lines = [redacted(line) for line in complaint.splitlines()[-12:]]
    untrusted = re.search(r"UnknownIssuer|invalid peer certificate|certificate verify", complaint)
    return SetupError(
        "bootstrap",
        "\n".join(
            [f"the Python packages can't be installed; {what} says:", *(f"  {line}" for line in lines)]
        ),
        (f"{CERTIFICATE_ADVICE}\n" if untrusted else "")
        + "Check network, proxy, free disk space, and PIP_INDEX_URL if you use a mirror; then try again.",
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Install the Python packages of uv.lock into .venv.")
    parser.add_argument(
        "--group", action="append", default=[], help="also a dependency group of pyproject.toml"
    )
    parser.add_argument(
        "--where", action="store_true", help="install nothing; print the folder of the programs"
    )
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    try:
        packages = Packages()
        if arguments.where:
            print(packages.venv / "bin")
        else:
            packages.install(frozenset(arguments.group))
    except SetupError as error:
        print(error.report(), file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"bootstrap: {error}. Check permissions and free disk space of {CHECKOUT}, {venv_dir(CHECKOUT)} "
            f"and {cache_dir(CHECKOUT)}.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
