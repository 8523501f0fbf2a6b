"""A private RabbitMQ: given by URL, from this machine's installation, or from unpacked packages; loopback only.

epmd runs as a process of its own on a private port: the one that Erlang would start by itself listens
on all interfaces and stays behind.
"""

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from clinic_shared.production import DEVELOPMENT_MARK

from clinic_local import loopback, rabbitmq_packages
from clinic_local.broker_alarms import broker_alarms
from clinic_local.download import library_path
from clinic_local.errors import SetupError
from clinic_local.paths import cache_dir, private_dir, run_dir, server_dir, write_private
from clinic_local.ports import LOOPBACK, PortBook, is_listening
from clinic_local.processes import Command, GuardedProcess
from clinic_local.rabbitmq_packages import ADVICE

USER = "clinic"
DOWNLOADED = "downloaded packages"
OLDEST, NEWEST = (3, 10), (4, 99)
_PORTS = ("amqp", "management", "broker-metrics", "distribution", "epmd")
_START_SECONDS = 120.0
_STOP_SECONDS = 9.0
_SYSTEM_ROOTS = (Path("/"), Path("/usr/local"))
_ERLANG_PLACES = ("usr/lib/erlang/bin", "usr/lib64/erlang/bin", "lib/erlang/bin")


@dataclass(frozen=True)
class Installation:
    """`root` holds `usr/lib/rabbitmq` and `usr/lib/erlang`."""

    server: Path
    erlang_bin: Path
    library_path: str
    version: str
    source: str


@dataclass(frozen=True)
class Membership:
    """One node's part in a cluster on this machine: what all share, its own name, and whom it joins at first."""

    epmd_port: int
    cookie: str
    node: str
    joins: str | None = None


class RabbitServer:
    """A broker that answers. `pid` is None for one that was given by URL, which `stop()` leaves alone."""

    def __init__(
        self,
        amqp_url: str,
        management_url: str,
        *,
        source: str,
        metrics_url: str = "",
        process: GuardedProcess | None = None,
        log: Path | None = None,
    ) -> None:
        self.amqp_url = amqp_url
        self.management_url = management_url
        self.metrics_url = metrics_url
        self.source = source
        self.process = process
        self.log = log

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pids["rabbitmq"]

    def is_alive(self) -> bool:
        return self.process is None or self.process.is_alive()

    def wait_until_ready(self) -> None:
        overview = f"{self.management_url}/api/overview"
        port = urlsplit(self.amqp_url).port or 5672
        deadline = time.monotonic() + _START_SECONDS
        while self.is_alive() and time.monotonic() < deadline:
            if self.process is None or (is_listening(port) and loopback.answers(overview)):
                self._refuse_alarms()
                return
            time.sleep(0.05)
        self.stop()
        raise SetupError(
            "rabbitmq", "the broker didn't start", "Read the log, then try: make up", log=self.log
        )

    def _refuse_alarms(self) -> None:
        """A broker with an alarm takes no message, so nothing that is started on it would ever become ready."""
        alarms = broker_alarms(self.management_url)
        if alarms:
            self.stop()
            raise SetupError("rabbitmq", alarms[0].what, alarms[0].advice)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()


class Rabbit:
    """Finds and starts the RabbitMQ of one checkout."""

    def __init__(
        self,
        root: Path,
        *,
        ports: PortBook | None = None,
        environ: Mapping[str, str] = os.environ,
        disk_free_limit_bytes: int = 200_000_000,
        membership: Membership | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are further lines of its configuration."""
        self._root = root
        self._settings = settings or {}
        self._membership = membership
        self._disk_free_limit_bytes = disk_free_limit_bytes
        self._ports = ports or PortBook()
        self._environ = environ

    def start(self, data_dir: Path, *, durable: bool) -> RabbitServer:
        """Start the broker on `data_dir` (under `.run/`) and wait until AMQP and management answer."""
        server = self.launch(data_dir, durable=durable)
        server.wait_until_ready()
        return server

    def prepare(self) -> None:
        """Download what `launch` needs, if it needs something."""
        if not self._environ.get("CLINIC_AMQP_URL"):
            self._installation()

    def launch(self, data_dir: Path, *, durable: bool) -> RabbitServer:
        """Start the broker without waiting for it."""
        given = self._environ.get("CLINIC_AMQP_URL")
        if given:
            return _given(given, self._environ.get("CLINIC_AMQP_MANAGEMENT_URL"))
        installation = self._installation()
        base = private_dir(server_dir(self._root, data_dir, None, shell_safe=True))
        secrets_dir = run_dir(self._root) / "secrets" if durable else data_dir
        password_file = secrets_dir / "rabbitmq"
        if not password_file.exists():
            write_private(password_file, DEVELOPMENT_MARK + secrets.token_urlsafe(24))
        password = password_file.read_text()
        ports = self._take_ports()
        own = {"disk_free_limit.absolute": str(self._disk_free_limit_bytes), **self._settings}
        _write_configuration(base, ports, password, own, self._membership)
        folder = run_dir(self._root) / "log" if durable else data_dir
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / ("rabbitmq.log" if self._membership is None else f"{self._membership.node}.log")
        process = GuardedProcess(
            "rabbitmq",
            _commands(installation, base, ports, log, durable=durable, membership=self._membership),
            user=None,
            grace_seconds=_STOP_SECONDS,
        )
        credentials = f"{USER}:{password}@{LOOPBACK}"
        return RabbitServer(
            f"amqp://{credentials}:{ports['amqp']}/%2F",
            f"http://{credentials}:{ports['management']}",
            source=f"RabbitMQ {installation.version} from {installation.source}",
            metrics_url=f"http://{LOOPBACK}:{ports['broker-metrics']}",
            process=process,
            log=log,
        )

    def _take_ports(self) -> dict[str, int]:
        if self._membership is None:
            return {name: self._ports.take(name) for name in _PORTS}
        own = {name: self._ports.take(name) for name in _PORTS if name != "epmd"}
        return {**own, "epmd": self._membership.epmd_port}

    def name_server(self, port: int, folder: Path) -> GuardedProcess:
        """Start what the nodes of a cluster find each other by."""
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
        installation = self._installation()
        if installation.library_path:
            environment["LD_LIBRARY_PATH"] = installation.library_path
        command = _epmd(installation, port, environment, folder, folder / "epmd.log")
        return GuardedProcess("rabbitmq", [command], user=None, grace_seconds=_STOP_SECONDS)

    def already_here(self) -> Installation | None:
        """Return what can be run without a download."""
        wanted = self._environ.get("CLINIC_RABBITMQ_SOURCE")
        if wanted in {None, "system"}:
            for root in _SYSTEM_ROOTS:
                for installation in _installations(root, "this machine"):
                    return installation
        unpacked = rabbitmq_packages.already_unpacked(cache_dir(self._root))
        return None if unpacked is None else next(_installations(unpacked, DOWNLOADED), None)

    def _installation(self) -> Installation:
        here = self.already_here()
        if here is not None:
            return here
        root = rabbitmq_packages.root(cache_dir(self._root))
        for installation in _installations(root, DOWNLOADED):
            return installation
        versions = ", ".join(_version(server) for server in _servers(root)) or "without a server"
        raise SetupError(
            "rabbitmq", f"3.10 to 4.x is needed, and this distribution's RabbitMQ is {versions}", ADVICE
        )


def _given(amqp_url: str, management_url: str | None) -> RabbitServer:
    if not management_url:
        raise SetupError("rabbitmq", "CLINIC_AMQP_URL needs CLINIC_AMQP_MANAGEMENT_URL beside it", ADVICE)
    parts = urlsplit(amqp_url)
    try:
        version = loopback.get_json(f"{management_url.rstrip('/')}/api/overview")["rabbitmq_version"]
    except (OSError, ValueError, KeyError) as error:
        raise SetupError(
            "rabbitmq",
            "the management API of CLINIC_AMQP_MANAGEMENT_URL doesn't answer",
            f"{error}\n{ADVICE}",
        ) from error
    if not _is_suitable(version):
        raise SetupError("rabbitmq", f"CLINIC_AMQP_URL is version {version}; 3.10 to 4.x will do", ADVICE)
    source = f"RabbitMQ {version} of CLINIC_AMQP_URL ({parts.hostname})"
    return RabbitServer(amqp_url, management_url, source=source)


def _is_suitable(version: str) -> bool:
    major, minor = (int(part) for part in version.split(".")[:2])
    return OLDEST <= (major, minor) <= NEWEST


def _installations(root: Path, source: str) -> Iterator[Installation]:
    """Yield the suitable installations below `root`, newest first."""
    places = [root / place for place in _ERLANG_PLACES]
    erlang_bin = next((place for place in places if (place / "erl").exists()), None)
    if erlang_bin is None:
        return
    libraries = "" if root == Path("/") else library_path(root)
    for server in _servers(root):
        version = _version(server)
        if _is_suitable(version):
            yield Installation(server, erlang_bin, libraries, version, source)


def _servers(root: Path) -> list[Path]:
    found = root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
    return sorted(found, key=_version_key, reverse=True)


def _version_key(server: Path) -> list[int]:
    return [int(part) for part in _version(server).split(".") if part.isdigit()]


def _version(server: Path) -> str:
    return server.parents[1].name.rpartition("-")[2]


def _write_configuration(
    base: Path,
    ports: dict[str, int],
    password: str,
    own: Mapping[str, str],
    membership: Membership | None,
) -> None:
    """Everything the broker reads is written anew, so that an old `.run/` can't hold old settings."""
    settings = {
        "listeners.tcp.local": f"{LOOPBACK}:{ports['amqp']}",
        "management.tcp.ip": LOOPBACK,
        "management.tcp.port": str(ports["management"]),
        "prometheus.tcp.ip": LOOPBACK,
        "prometheus.tcp.port": str(ports["broker-metrics"]),
        f"loopback_users.{USER}": "true",
        "load_definitions": str(base / "definitions.json"),
        # New policies and queue depths are shown after these, five seconds by default, and both are waited for.
        "collect_statistics_interval": "1000",
        **{
            f"management.sample_retention_policies.{kind}.minute": "1"
            for kind in ("global", "basic", "detailed")
        },
        "log.console": "true",
        "log.console.level": "warning",
        "log.file": "false",
        "vm_memory_high_watermark.absolute": "512MB",
        **own,
    }
    if membership is not None:
        (base / ".erlang.cookie").unlink(missing_ok=True)
        write_private(base / ".erlang.cookie", membership.cookie)
        if membership.joins is not None:
            settings["cluster_formation.peer_discovery_backend"] = "classic_config"
            settings["cluster_formation.classic_config.nodes.1"] = f"{membership.joins}@localhost"
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    definitions = {
        "vhosts": [{"name": "/"}],
        "users": [{"name": USER, "password": password, "tags": "administrator", "limits": {}}],
        "permissions": [{"user": USER, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
    }
    write_private(base / "rabbitmq.conf", lines)
    write_private(base / "definitions.json", json.dumps(definitions))
    # A quorum queue tells its policy and depth only at its tick, which by default comes every five seconds.
    write_private(base / "advanced.config", "[{rabbit, [{quorum_tick_interval, 1000}]}].\n")
    write_private(base / "enabled_plugins", "[rabbitmq_management,rabbitmq_prometheus].\n")


def _commands(
    installation: Installation,
    base: Path,
    ports: dict[str, int],
    log: Path,
    *,
    durable: bool,
    membership: Membership | None,
) -> list[Command]:
    node = "clinic" if membership is None else membership.node
    environment = {
        "PATH": f"{installation.erlang_bin}:/usr/bin:/bin",
        "HOME": str(base),
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(ports["epmd"]),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_CRASH_DUMP_SECONDS": "0",
        # The script then becomes the server (exec) instead of waiting for it as a shell of its own.
        "RUNNING_UNDER_SYSTEMD": "1",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(base / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
        "RABBITMQ_LOG_BASE": str(base / "log"),
        "RABBITMQ_PID_FILE": str(base / "pid"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(base / "config"),
        "RABBITMQ_SCHEMA_DIR": str(base / "schema"),
        "RABBITMQ_NODENAME": f"{node}@localhost",
        "RABBITMQ_DIST_PORT": str(ports["distribution"]),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false +S 2:2 +sbwt none"
        ),
    }
    if installation.library_path:
        environment["LD_LIBRARY_PATH"] = installation.library_path
    # A graceful stop takes six seconds, which nobody needs whose data goes away with it.
    stop_signal = "SIGTERM" if durable else "SIGKILL"
    broker = Command("rabbitmq", [installation.server], environment, base, log, stop_signal=stop_signal)
    if membership is not None:
        return [broker]
    return [_epmd(installation, ports["epmd"], environment, base, log), broker]


def _epmd(
    installation: Installation, port: int, environment: dict[str, str], base: Path, log: Path
) -> Command:
    argv: list[str | Path] = [installation.erlang_bin / "epmd", "-port", str(port), "-address", LOOPBACK]
    return Command("epmd", argv, environment, base, log, port=port)
