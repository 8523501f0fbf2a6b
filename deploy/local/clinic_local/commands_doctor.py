"""`clinic doctor`: can this machine run Polyclinic, and if not, what to do about it."""

import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from clinic_local import download, postgres, rabbitmq, rabbitmq_packages, state
from clinic_local.paths import cache_dir, run_dir, server_user
from clinic_local.ports import free_port, is_free

DISK_BYTES = 2_000_000_000
MEMORY_BYTES = 1_500_000_000


@dataclass(frozen=True)
class Finding:
    """What a check found. `fix` is empty when all is well; `is_fatal` tells whether `make up` would fail."""

    topic: str
    text: str
    fix: str = ""
    is_fatal: bool = True


def _python() -> Finding:
    version = platform.python_version()
    is_new_enough = sys.version_info >= (3, 11)
    return Finding("Python", version, "" if is_new_enough else "install Python 3.11 or newer")


def _disk() -> Finding:
    free = shutil.disk_usage(run_dir(state.root())).free
    fix = "" if free >= DISK_BYTES else f"free some space: {DISK_BYTES / 1e9:.0f} GB are needed"
    return Finding("disk", f"{free / 1e9:.1f} GB free", fix)


def _memory() -> Finding:
    try:
        meminfo = Path("/proc/meminfo").read_text()
    except FileNotFoundError:
        return Finding("memory", "not known on this system")
    match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, flags=re.MULTILINE)
    available = int(match[1]) * 1024 if match else 0
    fix = "" if available >= MEMORY_BYTES else f"close something: {MEMORY_BYTES / 1e9:.1f} GB are needed"
    return Finding("memory", f"{available / 1e9:.1f} GB available", fix)


def _ports() -> Finding:
    if state.is_running(state.root()):
        return Finding("ports", "in use by the running system")
    try:
        free_port()
    except OSError as error:
        return Finding("ports", str(error), "let this user bind ports of 127.0.0.1")
    if is_free(8080):
        return Finding("ports", "8080 is free")
    return Finding("ports", "8080 is taken; another one will be chosen (see .run/env)")


def _postgres() -> Finding:
    given = os.environ.get("CLINIC_POSTGRES_URL")
    if given:
        return Finding("PostgreSQL", "from CLINIC_POSTGRES_URL")
    found = postgres.available()
    if not found:
        return Finding("PostgreSQL", "none found", postgres.ADVICE)
    account = server_user()
    as_whom = "" if account is None else f", run as {account.name}"
    return Finding("PostgreSQL", f"{postgres.describe(found[0])}{as_whom}")


def _rabbitmq() -> Finding:
    if os.environ.get("CLINIC_AMQP_URL"):
        return Finding("RabbitMQ", "from CLINIC_AMQP_URL")
    found = rabbitmq.Rabbit(state.root()).already_here()
    if found is not None:
        return Finding("RabbitMQ", f"{found.version} from {found.source}")
    if download.is_possible():
        return Finding("RabbitMQ", "will be downloaded with apt-get (32 MB, nothing is installed)")
    return Finding("RabbitMQ", "none found, and no apt to download it with", rabbitmq_packages.ADVICE)


def _packages() -> Finding:
    """Only told, never fatal: what is needed may be in the caches already."""
    host = re.sub(r".*//(?:[^/@]*@)?([^/:]+).*", r"\1", os.environ.get("PIP_INDEX_URL", "//pypi.org/"))
    try:
        socket.create_connection((host, 443), timeout=3).close()
    except OSError as error:
        fix = "needed only if packages change: check network and proxy, or set PIP_INDEX_URL"
        return Finding("packages", f"{host} can't be reached directly ({error})", fix, is_fatal=False)
    return Finding("packages", f"{host} can be reached")


def _cache() -> Finding:
    return Finding("cache", str(cache_dir(state.root())))


CHECKS: tuple[Callable[[], Finding], ...] = (
    _python,
    _disk,
    _memory,
    _ports,
    _postgres,
    _rabbitmq,
    _packages,
    _cache,
)


def doctor() -> None:
    """Check this machine and print what to do about what is missing."""
    console = Console(highlight=False)
    failed = False
    for check in CHECKS:
        finding = check()
        colour, word = ("green", "ok") if not finding.fix else ("yellow", "note")
        if finding.fix and finding.is_fatal:
            colour, word, failed = "red", "bad", True
        console.print(f"[{colour}]{word:<5}[/]{finding.topic:<12}", end="")
        console.print(finding.text, markup=False, soft_wrap=True)
        for line in finding.fix.splitlines():
            console.print(f"       -> {line}", markup=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)
