"""The process behind `clinic up`: starts everything in order, keeps it running, takes it down again.

It imports all services once and forks them, so it must stay free of threads and event loops of its own.
Run by `clinic up` as `python -m clinic_local.supervisor FD`, where FD takes the progress.
"""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

from clinic_local import discovery, loopback
from clinic_local.children import Child
from clinic_local.environment import Environments, Secrets, create_databases
from clinic_local.errors import SetupError
from clinic_local.fork import fork
from clinic_local.paths import CHECKOUT, run_dir
from clinic_local.ports import PortBook
from clinic_local.postgres import Postgres, PostgresServer
from clinic_local.progress import Reporter, Step
from clinic_local.rabbitmq import Rabbit, RabbitServer
from clinic_local.state import ProcessState, RunState, root, supervisor_lock, write_env

_READY_SECONDS = 60.0
_TASK_SECONDS = 120.0
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.1
_LONGEST_LOG_BYTES = 10_000_000
_WATCH_SECONDS = 0.25
SEEDED = "seeded"


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

    # -- start

    def start(self) -> None:
        self._reporter.tell(Step("begun", "servers"))
        started = time.monotonic()
        download = _Background(self._rabbit_of.prepare)
        postgres = self._postgres = self._postgres_of.launch(self._run / "postgres", durable=True)
        download.wait()
        rabbitmq = self._rabbitmq = self._rabbit_of.launch(self._run / "rabbitmq", durable=True)
        self._reporter.tell(Step("done", "servers", "launched", time.monotonic() - started))
        with self._reporter.gate("code") as detail:
            code = discovery.load(self._logs / "import-error.log")
            detail.append(f"{len(code.services)} services")
        services = tuple(code.services)
        environments = Environments(self._secrets, self._ports, postgres, rabbitmq, services)
        self._url = environments.url
        gc.collect()
        gc.freeze()
        with self._reporter.gate("postgres") as detail:
            postgres.wait_until_ready()
            detail.append(postgres.source)
        with self._reporter.gate("databases"):
            create_databases(postgres, services, self._secrets)
            self._migrate(code, environments)
        with self._reporter.gate("rabbitmq") as detail:
            rabbitmq.wait_until_ready()
            detail.append(rabbitmq.source)
        with self._reporter.gate("topology"):
            declare = partial(_declare_topology, rabbitmq.amqp_url, rabbitmq.management_url, services)
            self._run_tasks({"topology": (declare, dict(os.environ))})
        self._start_children(code, environments)
        write_env(self._root, environments.printed())
        self._seed()
        self._is_ready = True
        self._write_state()
        self._reporter.tell(Step("ready", "", self._url))
        self._reporter.close()

    def _migrate(self, code: discovery.Code, environments: Environments) -> None:
        tasks = {
            f"migrate-{name}": (partial(_run_service, name, code, "migrate"), environments.of_service(name))
            for name in code.services
        }
        self._run_tasks(tasks)

    def _run_tasks(self, tasks: Mapping[str, tuple[Callable[[], object], dict[str, str]]]) -> None:
        """Run short-lived children side by side until all have ended well."""
        running = {}
        for name, (target, environment) in tasks.items():
            log = self._logs / f"{name}.log"
            log.unlink(missing_ok=True)
            running[fork(name, target, environment=environment, log=log)] = name
        deadline = time.monotonic() + _TASK_SECONDS
        while running:
            for pid, name in list(running.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if not ended:
                    continue
                del running[pid]
                if status:
                    raise SetupError(
                        name, "it failed", "Read the log, then try: make up", log=self._logs / f"{name}.log"
                    )
            if time.monotonic() > deadline:
                name = next(iter(running.values()))
                raise SetupError(
                    name, f"it took longer than {_TASK_SECONDS:.0f} s", log=self._logs / f"{name}.log"
                )
            time.sleep(_POLL_SECONDS)

    def _start_children(self, code: discovery.Code, environments: Environments) -> None:
        self._children = list(self._compose(code, environments))
        first = [child for child in self._children if child.kind != "gateway"]
        with self._reporter.gate("services") as detail:
            for child in first:
                child.start()
            self._wait_until_ready(first)
            detail.append(f"{sum(child.kind == 'service' for child in first)} processes")
        for gateway in (child for child in self._children if child.kind == "gateway"):
            with self._reporter.gate("gateway") as detail:
                gateway.start()
                self._wait_until_ready([gateway])
                detail.append(self._url)

    def _compose(self, code: discovery.Code, environments: Environments) -> list[Child]:
        split = os.environ.get("CLINIC_ROLES") == "split"
        children = []
        for name in code.services:
            environment = environments.of_service(name)
            for role in ("api", "worker") if split else ("all",):
                label = name if role == "all" else f"{name}-{role}"
                target = partial(_run_service, name, code, role)
                port = None if role == "worker" else environments.ports[name]
                children.append(Child(label, "service", target, environment, self._log(label), port))
        if code.fakes is not None:
            fakes = environments.of_fakes()
            target = partial(code.fakes, fakes)
            children.append(Child("fakes", "fakes", target, fakes, self._log("fakes"), None))
        if code.gateway is not None:
            gateway = environments.of_gateway()
            target = partial(code.gateway, gateway)
            port = environments.gateway_port
            children.append(Child("gateway", "gateway", target, gateway, self._log("gateway"), port))
        return children

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _wait_until_ready(self, children: Sequence[Child]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        self._write_state()
        while not all(child.check() for child in children):
            for child in children:
                if child.reap() is not None:
                    raise SetupError(
                        child.name,
                        "it ended while starting",
                        "Read the log, then try: make up",
                        log=child.log,
                    )
            if time.monotonic() > deadline:
                late = next(child for child in children if not child.is_ready)
                raise SetupError(late.name, f"it isn't ready: {_reasons(late)}", log=late.log)
            time.sleep(_POLL_SECONDS)
        self._write_state()

    def _seed(self) -> None:
        """Fill a new system with the demo network, once."""
        marker = self._run / "state" / SEEDED
        if (
            marker.exists()
            or os.environ.get("CLINIC_SEED") == "no"
            or find_spec("clinic_local.commands_seed") is None
        ):
            return
        log = self._log("seed")
        with self._reporter.gate("demo data"), log.open("wb") as output:
            command = [sys.executable, "-m", "clinic_local.cli", "seed"]
            environment = {**os.environ, "CLINIC_URL": self._url}
            result = subprocess.run(command, stdout=output, stderr=output, env=environment, check=False)
            if result.returncode != 0:
                raise SetupError(
                    "seed", "the demo data couldn't be made", "Read the log, then: make reset up", log=log
                )
        marker.touch()

    # -- run

    def watch(self) -> None:
        while True:
            changed = False
            for child in self._children:
                status = child.reap()
                if status is not None:
                    _tell(f"{child.name} ended with status {status}")
                changed |= status is not None or child.restart_when_due()
                changed |= not child.is_ready and child.check()
            changed |= self._revive_servers()
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
        # Both start slowly, so trying more often than this would only keep them from it.
        self._server_restart_at[server] = now + 5.0
        _tell(f"{server} ended and is started again")
        return True

    def _write_state(self) -> None:
        servers = []
        for name, server in (("postgres", self._postgres), ("rabbitmq", self._rabbitmq)):
            if server is not None and server.process is not None:
                state = "running" if server.is_alive() else "restarting"
                servers.append(
                    ProcessState(
                        name,
                        "server",
                        state,
                        server.pid,
                        self._server_restarts[name],
                        log=str(self._log(name)),
                    )
                )
        management = "" if self._rabbitmq is None else self._rabbitmq.management_url
        processes = [*servers, *(child.as_state() for child in self._children)]
        RunState(os.getpid(), self._url, self._is_ready, management, processes).write(self._root)

    # -- stop

    def stop(self) -> None:
        """Stop the services, then the servers under them."""
        for child in self._children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while any(self._still_runs(child) for child in self._children):
            if time.monotonic() > deadline:
                for child in self._children:
                    child.signal(signal.SIGKILL)
                deadline += _STOP_SECONDS
            time.sleep(_POLL_SECONDS)
        servers = [server for server in (self._postgres, self._rabbitmq) if server is not None]
        for server in servers:
            if server.process is not None:
                server.process.ask_to_stop()
        for server in servers:
            server.stop()

    def _still_runs(self, child: Child) -> bool:
        child.reap()
        return child.pid is not None


class _Background:
    """A thread that must have ended before anything is forked."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._error: SetupError | None = None
        self._work = work
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except SetupError as error:
            self._error = error

    def wait(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error


def _run_service(name: str, code: discovery.Code, role: str) -> None:
    from clinic_shared.main import run  # noqa: PLC0415 - discovery has imported it by now

    run(code.services[name], role)  # type: ignore[arg-type]  # one of the four that main knows


def _declare_topology(amqp_url: str, management_url: str, services: tuple[str, ...]) -> None:
    from clinic_shared import topology  # noqa: PLC0415 - discovery has imported it by now

    async def declare() -> list[str]:
        await topology.declare_all(amqp_url, management_url, services)
        return await topology.verify_all(amqp_url, management_url, services)

    try:
        differences = asyncio.run(declare())
    except* topology.TopologyError as errors:
        # Queues can't be changed, only made anew; in development that is the cheaper way out.
        sys.exit(
            "\n".join(
                [*map(str, errors.exceptions), "to begin with empty queues and databases: make reset up"]
            )
        )
    else:
        if differences:
            sys.exit("\n".join(differences))


def _put_long_logs_aside(folder: Path) -> None:
    for log in folder.glob("*.log"):
        if log.stat().st_size > _LONGEST_LOG_BYTES:
            log.rename(log.with_suffix(".log.1"))


def _reasons(child: Child) -> str:
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
        _tell(error.report())
        supervisor.stop()
        reporter.tell(Step("failed", error.component, error.report()))
        return 1
    finally:
        supervisor.stop()
    _tell("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
