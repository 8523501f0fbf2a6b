"""`clinic doctor`: can this machine run Polyclinic, and if not, what to do about it."""

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass

import typer
from rich.console import Console

from clinic_local import download, machine, postgres, rabbitmq, rabbitmq_packages, state
from clinic_local.accounts import server_user
from clinic_local.environment import GATEWAY_PORT
from clinic_local.errors import SetupError
from clinic_local.package_index import CERTIFICATE_ADVICE, Indexes, fetch, is_about_certificates, redacted
from clinic_local.paths import cache_dir, run_dir
from clinic_local.ports import free_port, holder, is_free

_INDEX_SECONDS = 5.0


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
    folder = run_dir(state.root())
    free = machine.free_disk(folder)
    text = f"{machine.megabytes(free)} free at {folder}"
    return _measured("disk", text, free, machine.DATA_BYTES, machine.COMFORTABLE_DATA_BYTES)


def _memory() -> Finding:
    available = machine.available_memory()
    if available is None:
        return Finding("memory", "not known on this system")
    text = f"{machine.megabytes(available)} available"
    return _measured("memory", text, available, machine.MEMORY_BYTES, machine.COMFORTABLE_MEMORY_BYTES)


def _measured(topic: str, text: str, have: int, least: int, comfortable: int) -> Finding:
    if have < least:
        return Finding(topic, text, f"at least {machine.megabytes(least)} are needed")
    if have < comfortable:
        return Finding(topic, text, f"{machine.megabytes(comfortable)} would be better", is_fatal=False)
    return Finding(topic, text)


def _ports() -> Finding:
    if state.is_running(state.root()):
        return Finding("ports", "in use by the running system")
    try:
        free_port()
    except OSError as error:
        return Finding("ports", str(error), "let this user bind ports of 127.0.0.1")
    if is_free(GATEWAY_PORT):
        return Finding("ports", f"{GATEWAY_PORT} is free")
    taken = f"{GATEWAY_PORT} is taken by {holder(GATEWAY_PORT)}"
    return Finding("ports", f"{taken}; another one will be chosen (see .run/env)")


def _postgres() -> Finding:
    given = os.environ.get("CLINIC_POSTGRES_URL")
    if given:
        return Finding("PostgreSQL", "from CLINIC_POSTGRES_URL")
    found = postgres.available()
    if not found:
        return Finding("PostgreSQL", "none found", postgres.ADVICE)
    try:
        account = server_user()
    except SetupError as error:
        return Finding("PostgreSQL", error.cause, error.advice)
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
    indexes = Indexes.of_this_machine()
    if indexes.no_index:
        return Finding("packages", f"from {' '.join(indexes.find_links)}, and from no index")
    where = redacted(indexes.main)
    try:
        fetch(f"{indexes.main.rstrip('/')}/uv/", timeout_seconds=_INDEX_SECONDS)
    except (OSError, ValueError) as error:
        fix = (
            CERTIFICATE_ADVICE
            if is_about_certificates(error)
            else "check network and proxy, or set PIP_INDEX_URL"
        )
        text = f"{where} can't be reached ({error}); needed only when packages change"
        return Finding("packages", text, fix, is_fatal=False)
    return Finding("packages", f"from {where}")


def _folders() -> Finding:
    root = state.root()
    return Finding("folders", f"data in {run_dir(root).resolve()}, cache in {cache_dir(root)}")


CHECKS: tuple[Callable[[], Finding], ...] = (
    _python,
    _disk,
    _memory,
    _ports,
    _postgres,
    _rabbitmq,
    _packages,
    _folders,
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
