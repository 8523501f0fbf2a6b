"""The process behind `clinic up`: starts everything in order, keeps it running, takes it down again.

It imports all services once and forks them, so it must stay free of threads and event loops of its own.
Run by `clinic up` as `python -m clinic_local.supervisor FD`, where FD takes the progress.
"""

import gc
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

from clinic_local import loopback, machine
from clinic_local.environment import GATEWAY_PORT, Environments, Secrets, create_databases
from clinic_local.errors import SetupError
from clinic_local.paths import CHECKOUT, run_dir
from clinic_local.ports import PortBook, holder, is_free, reserve
from clinic_local.postgres import Postgres, PostgresServer
from clinic_local.rabbitmq import Rabbit, RabbitServer
from clinic_local.state import ProcessState, RunState, pids_before, root, supervisor_lock, write_env
from clinic_local.steps import Reporter, Step
from clinic_local.tasks import Background, Task, run_tasks

if TYPE_CHECKING:
    from clinic_local.children import Child
    from clinic_local.discovery import Code

_READY_SECONDS = 120.0
_STOP_SECONDS = 5.0
_LEFT_BEHIND_SECONDS = 30.0
_POLL_SECONDS = 0.1
_WATCH_SECONDS = 0.25
# Both servers start slowly, so trying more often than this would only keep them from it.
_SERVER_PAUSE_SECONDS = 5.0
_LONGEST_LOG_BYTES = 10_000_000


class StopRequestedError(Exception):
    """SIGTERM or SIGINT came."""


class Supervisor:
    """One system: servers, services, gateway. `start`, then `watch` until told to stop, then `stop`."""

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        self._root = folder
        self._run = run_dir(folder)
        self._logs = self._run / "log"
        self._logs.mkdir(exist_ok=True)
        _put_long_logs_aside(self._logs)
        self._reporter = reporter
        self._ports = PortBook(self._run / "ports.json")
        self._secrets = Secrets(folder)
        self._postgres_of = Postgres(folder, ports=self._ports)
        self._rabbit_of = Rabbit(folder, ports=self._ports)
        self._postgres: PostgresServer | None = None
        self._rabbitmq: RabbitServer | None = None
        self._server_restarts = {"postgres": 0, "rabbitmq": 0}
        self._server_restart_at = {"postgres": 0.0, "rabbitmq": 0.0}
        self._children: list[Child] = []
        self._is_ready = False
        self._url = ""

    def start(self) -> None:
        """Go through the gates in order. Raises SetupError at the first that stays shut."""
        machine.require_disk(self._run, machine.DATA_BYTES)
        machine.require_memory()
        self._wait_for_the_run_before()
        postgres, rabbitmq = self._launch_servers()
        code = self._load_code()
        environments = Environments(self._secrets, self._ports, postgres, rabbitmq, tuple(code.services))
        self._url = environments.url
        reservation = reserve(environments.gateway_port)
        self._prepare(postgres, rabbitmq, code, environments)
        self._start_children(code, environments, reservation)
        write_env(self._root, environments.printed())
        self._seed()
        self._is_ready = True
        self._write_state()
        self._reporter.tell(Step("ready", "", self._url))
        self._reporter.close()

    def _wait_for_the_run_before(self) -> None:
        """A supervisor that was killed leaves servers that are still ending, on their ports and their data."""
        deadline = time.monotonic() + _LEFT_BEHIND_SECONDS
        while any(map(_is_of_a_system, pids_before(self._root))) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _launch_servers(self) -> tuple[PostgresServer, RabbitServer]:
        with self._reporter.gate("servers") as detail:
            download = Background(self._rabbit_of.prepare)
            self._postgres = self._postgres_of.launch(self._run / "postgres", durable=True)
            download.wait()
            self._rabbitmq = self._rabbit_of.launch(self._run / "rabbitmq", durable=True)
            detail.append("launched")
        return self._postgres, self._rabbitmq

    def _load_code(self) -> "Code":
        with self._reporter.gate("code") as detail:
            if not _is_compiled():
                # In a process of its own: what a compiler leaves behind in memory, every fork would inherit.
                task = Task(partial(_load, self._logs), dict(os.environ), self._logs / "bytecode.log")
                with suppress(SetupError):  # the same import below says better what is wrong
                    run_tasks({"bytecode": task})
            code = _load(self._logs)
            # What is here now is shared with all children; the collector must not touch, thus copy, it.
            gc.collect()
            gc.freeze()
            detail.append(f"{len(code.services)} services")
        return code

    def _prepare(
        self, postgres: PostgresServer, rabbitmq: RabbitServer, code: "Code", environments: Environments
    ) -> None:
        from clinic_local import composition  # noqa: PLC0415

        with self._reporter.gate("postgres") as detail:
            postgres.wait_until_ready()
            detail.append(postgres.source)
        with self._reporter.gate("databases") as detail:
            create_databases(postgres, tuple(code.services), self._secrets)
            run_tasks(composition.migrations(code, environments, self._logs))
            detail.append("migrated")
        with self._reporter.gate("rabbitmq") as detail:
            rabbitmq.wait_until_ready()
            detail.append(rabbitmq.source)
        with self._reporter.gate("topology") as detail:
            run_tasks(composition.topology_declaration(code, rabbitmq, self._logs))
            detail.append("declared and verified")

    def _start_children(self, code: "Code", environments: Environments, gateway_port: socket | None) -> None:
        from clinic_local import composition  # noqa: PLC0415

        self._children = composition.children(code, environments, self._logs)
        gateways = [child for child in self._children if child.kind == "gateway"]
        others = [child for child in self._children if child.kind != "gateway"]
        for gate, children in (("services", others), ("gateway", gateways)):
            with self._reporter.gate(gate) as detail:
                if gate == "gateway" and gateway_port is not None:
                    gateway_port.close()
                for child in children:
                    child.start()
                self._wait_until_ready(children)
                detail.append(self._where() if gate == "gateway" else f"{len(children)} processes")

    def _where(self) -> str:
        if self._url.endswith(f":{GATEWAY_PORT}") or is_free(GATEWAY_PORT):
            return self._url
        return f"{self._url} (port {GATEWAY_PORT} is taken by {holder(GATEWAY_PORT)})"

    def _wait_until_ready(self, children: Sequence["Child"]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        self._write_state()
        while not all(child.check() for child in children):
            for child in children:
                if child.reap() is not None:
                    raise SetupError(
                        child.name, _why_it_ended(child), "Read the log, then try: make up", log=child.log
                    )
            if time.monotonic() > deadline:
                late = next(child for child in children if not child.is_ready)
                raise SetupError(late.name, f"it isn't ready: {_reasons(late)}", log=late.log)
            time.sleep(_POLL_SECONDS)
        self._write_state()

    def _seed(self) -> None:
        """Fill a new system with the demo network, once."""
        marker = self._run / "state" / "seeded"
        can_seed = find_spec("clinic_local.commands_seed") is not None
        if marker.exists() or not can_seed or os.environ.get("CLINIC_SEED") == "no":
            return
        log = self._logs / "seed.log"
        with self._reporter.gate("demo data"), log.open("wb") as output:
            command = [sys.executable, "-m", "clinic_local.cli", "seed"]
            environment = {**os.environ, "CLINIC_URL": self._url}
            result = subprocess.run(command, stdout=output, stderr=output, env=environment, check=False)
            if result.returncode != 0:
                raise SetupError("seed", "it failed", "Read the log, then try: make reset up", log=log)
        marker.touch()

    def watch(self) -> None:
        """Start again what ends, until a signal comes."""
        while True:
            changed = self._revive_servers()
            for child in self._children:
                status = child.reap()
                if status is not None:
                    _tell(f"{child.name} ended with status {status}")
                changed |= status is not None or child.restart_when_due()
                changed |= not child.is_ready and child.check()
            if changed:
                self._write_state()
            time.sleep(_WATCH_SECONDS)

    def _revive_servers(self) -> bool:
        changed = False
        if self._postgres is not None and not self._postgres.is_alive() and self._may_restart("postgres"):
            self._postgres = self._postgres_of.launch(self._run / "postgres", durable=True)
            changed = True
        if self._rabbitmq is not None and not self._rabbitmq.is_alive() and self._may_restart("rabbitmq"):
            self._rabbitmq = self._rabbit_of.launch(self._run / "rabbitmq", durable=True)
            changed = True
        return changed

    def _may_restart(self, server: str) -> bool:
        now = time.monotonic()
        if now < self._server_restart_at[server]:
            return False
        self._server_restarts[server] += 1
        self._server_restart_at[server] = now + _SERVER_PAUSE_SECONDS
        _tell(f"{server} ended and is started again")
        return True

    def _write_state(self) -> None:
        servers = []
        for name, server in (("postgres", self._postgres), ("rabbitmq", self._rabbitmq)):
            if server is not None and server.process is not None:
                state = "running" if server.is_alive() else "restarting"
                restarts, log = self._server_restarts[name], str(self._logs / f"{name}.log")
                servers.append(ProcessState(name, "server", state, server.pid, restarts, log=log))
        management = "" if self._rabbitmq is None else self._rabbitmq.management_url
        processes = [*servers, *(child.as_state() for child in self._children)]
        RunState(os.getpid(), self._url, self._is_ready, management, processes).write(self._root)

    def stop(self) -> None:
        """Stop the gateway, the services, then the servers under them. A second call does nothing."""
        # The door first: what it has let in still needs those behind it.
        _stop_all([child for child in self._children if child.kind == "gateway"])
        _stop_all(self._children)
        servers = [server for server in (self._postgres, self._rabbitmq) if server is not None]
        for server in servers:
            if server.process is not None:
                server.process.ask_to_stop()
        for server in servers:
            server.stop()


def _is_of_a_system(pid: int) -> bool:
    """Tell whether it runs and is what we would have started: the number may be somebody else's by now."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return any(part in command for part in (b"postgres", b"rabbit", b"clinic_local"))


def _is_compiled() -> bool:
    """Tell whether Python has written its bytecode of the packages, which it does at the first import."""
    spec = find_spec("sqlalchemy")
    return (
        spec is not None and spec.origin is not None and Path(spec.origin).with_name("__pycache__").exists()
    )


def _load(logs: Path) -> "Code":
    """Import everything. It isn't imported above because the servers boot meanwhile."""
    _import_structlog_without_rich()
    from clinic_local import composition, discovery  # noqa: F401, PLC0415

    return discovery.load(logs / "import-error.log")


def _import_structlog_without_rich() -> None:
    """Spare every process the 5 MB of a console renderer that no service uses."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # Python's own way to let an import fail
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]


def _stop_all(children: Sequence["Child"]) -> None:
    for child in children:
        child.signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while running := [child for child in children if _still_runs(child)]:
        if time.monotonic() > deadline:
            for child in running:
                child.signal(signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _still_runs(child: "Child") -> bool:
    child.reap()
    return child.pid is not None


def _put_long_logs_aside(folder: Path) -> None:
    for log in folder.glob("*.log"):
        if log.stat().st_size > _LONGEST_LOG_BYTES:
            log.rename(log.with_suffix(".log.1"))


def _why_it_ended(child: "Child") -> str:
    if child.port is not None and not is_free(child.port):
        return f"it ended while starting; port {child.port} was taken meanwhile by {holder(child.port)}"
    return "it ended while starting"


def _reasons(child: "Child") -> str:
    try:
        _, body = loopback.get(f"http://127.0.0.1:{child.port}/readyz")
    except OSError as error:
        return f"no answer ({error})"
    return body.decode(errors="replace")[:500]


def _tell(message: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {message}", file=sys.stderr, flush=True)


def _request_stop(_number: int, _frame: object) -> None:
    # Once is enough: a second signal must not interrupt the stopping.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise StopRequestedError


def _supervise(supervisor: Supervisor, reporter: Reporter) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _request_stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        supervisor.start()
        supervisor.watch()
    except StopRequestedError:
        _tell("stopping")
    except SetupError as error:
        report = error.report()
        _tell(report)
        supervisor.stop()
        reporter.tell(Step("failed", error.component, report))
        return 1
    finally:
        supervisor.stop()
    _tell("stopped")
    return 0


def main() -> int:
    folder = root()
    os.chdir(CHECKOUT)
    reporter = Reporter(int(sys.argv[1]) if len(sys.argv) > 1 else None)
    try:
        with supervisor_lock(folder):
            return _supervise(Supervisor(folder, reporter), reporter)
    except SetupError as error:
        reporter.tell(Step("failed", error.component, error.report()))
        return 1


if __name__ == "__main__":
    exit_status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Python's own way out first frees, object by object, all that was imported.
    os._exit(exit_status)
