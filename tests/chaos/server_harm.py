"""What is done to the two servers from inside: to databases, their sessions and their disk; to the broker and its queues."""

import base64
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
from clinic_local.environment import database_name
from clinic_local.rabbitmq import Rabbit
from clinic_local.testing import System
from clinic_shared import contracts
from clinic_shared.ids import uuid7
from psycopg import sql

from .waiting import undo

_WORKED_ON = ("outbox", "event", "inbox", "held")
_WORKED_ON_BY_SOME = {
    "intake": {"lab-integration", "billing", "notifications"},
    "idempotency_key": {"patients", "scheduling", "billing"},
}
_FULL_BYTES = 65_536
_SIGNS_OF_A_FULL_DISK = (b"File too large", b"was terminated by signal")
"""The second is the postmaster's: whoever couldn't write may not be able to write that down, either."""
_COMMAND_SECONDS = 60


def administrator(system: System, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
    url = system.addresses["CLINIC_PRIVATE_POSTGRES_URL"].rpartition("/")[0]
    return psycopg.connect(f"{url}/{database}", autocommit=True, connect_timeout=30)


def ask_whether_it_answers(system: System) -> None:
    """Raises psycopg.OperationalError while the database server is away or starting."""
    administrator(system).close()


@contextmanager
def database_closed(system: System, service: str) -> Iterator[int]:
    """Let nobody connect to a service's database, and end the connections that there are."""
    try:
        _allow_connections(system, service, sql.SQL("false"))
        yield terminate_sessions(system, service)
    finally:
        undo(partial(_allow_connections, system, service, sql.SQL("true")))


def _allow_connections(system: System, service: str, allowed: sql.SQL) -> None:
    name = sql.Identifier(database_name(service))
    with administrator(system) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(name, allowed))


def terminate_sessions(system: System, service: str) -> int:
    """End a service's sessions, whatever they are doing; returns how many there were."""
    with administrator(system) as admin:
        ended = admin.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            (database_name(service),),
        ).fetchone()
    return int(ended[0]) if ended else 0


def worked_on(service: str) -> list[str]:
    """Return tables of the runtime that most of a service's transactions write to."""
    return [*_WORKED_ON, *(table for table, services in _WORKED_ON_BY_SOME.items() if service in services)]


@contextmanager
def table_locked(system: System, service: str, table: str) -> Iterator[Callable[[], bool]]:
    """Somebody holds a table and does nothing, as a careless operator's open transaction does.

    Yields what tells whether somebody else waits for it.
    """

    def is_waited_for() -> bool:
        waiting = "SELECT 1 FROM pg_locks WHERE relation = to_regclass(%s) AND NOT granted LIMIT 1"
        return bool(holder.execute(waiting, (table,)).fetchall())

    with administrator(system, database_name(service)) as holder, holder.transaction():
        holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
        yield is_waited_for


@contextmanager
def disk_full(system: System) -> Iterator[Callable[[], bool]]:
    """Let no process of the database server write beyond the first bytes of any file.

    The server treats an exceeded limit as it does a full disk, and no file system has to be mounted for it:
    what isn't to be had without root. Yields what tells whether somebody could not write, to be asked again
    and again: whoever has connected meanwhile is limited, too.
    """
    server = system.process("postgres")
    postmaster, log = server.pid, Path(server.log)
    if postmaster is None:
        raise LookupError("the database server doesn't run")
    before = log.stat().st_size

    def is_noticed() -> bool:
        _limit(postmaster, _FULL_BYTES)
        return any(sign in log.read_bytes()[before:] for sign in _SIGNS_OF_A_FULL_DISK)

    try:
        yield is_noticed
    finally:
        _limit(postmaster, "unlimited")


def _limit(postmaster: int, size: int | str) -> int:
    """Limit the children only: a server that has crashed recovers by itself, on the space it has again."""
    try:
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    except FileNotFoundError:
        return 0
    owner = Path(f"/proc/{postmaster}").stat()
    # Whoever may change to the server's account may do this without any further right.
    is_ours = owner.st_uid == os.getuid()
    user, group = (None, None) if is_ours else (owner.st_uid, owner.st_gid)
    for child in children:
        command = ["prlimit", f"--fsize={size}:", f"--pid={child}"]
        subprocess.run(command, check=False, capture_output=True, user=user, group=group)
    return len(children)


class Broker:
    """The broker as somebody with its management API and its command line sees it."""

    def __init__(self, system: System) -> None:
        self._system = system
        url = system.addresses["CLINIC_PRIVATE_AMQP_MANAGEMENT_URL"]
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=60)

    def publish(self, event_type: str, headers: dict[str, Any], body: bytes) -> None:
        """Publish to a producer's exchange as its relay does. Raises LookupError when nobody gets it."""
        self._publish(f"{event_type.partition('.')[0]}.events", event_type, headers, body)

    def publish_to(self, queue: str, headers: dict[str, Any], body: bytes) -> None:
        """Publish to one subscriber alone. Raises LookupError while its queue is gone."""
        self._publish("amq.default", queue, headers, body)

    def _publish(self, exchange: str, routing_key: str, headers: dict[str, Any], body: bytes) -> None:
        properties = {
            "headers": headers,
            "delivery_mode": 2,
            "content_type": "application/json",
            "message_id": headers.get("cloudEvents_id", str(uuid7())),
        }
        document = {
            "properties": properties,
            "routing_key": routing_key,
            "payload": base64.b64encode(body).decode(),
            "payload_encoding": "base64",
        }
        answer = self._http.post(f"/api/exchanges/%2F/{exchange}/publish", json=document).raise_for_status()
        if not answer.json()["routed"]:
            raise LookupError(exchange)

    def delete_queue(self, name: str) -> None:
        self._http.delete(f"/api/queues/%2F/{quote(name)}").raise_for_status()

    def close_connections(self) -> int:
        """Let the broker close all connections; returns how many."""
        found = self._http.get("/api/connections").raise_for_status().json()
        for connection in found:
            self._http.delete(f"/api/connections/{quote(connection['name'], safe='')}")
        return len(found)

    def declare_topology(self) -> None:
        services = ",".join(contracts.load().services)
        declared = self._system.clinic("topology", "declare", "--services", services)
        if declared.returncode != 0:
            raise ChildProcessError(declared.stdout + declared.stderr)

    @contextmanager
    def queue_missing(self, name: str) -> Iterator[None]:
        """Somebody deletes a subscriber's queue by mistake, and the operator declares it again."""
        self.delete_queue(name)
        try:
            yield
        finally:
            undo(self.declare_topology)

    @contextmanager
    def memory_alarm(self) -> Iterator[None]:
        try:
            self.control("set_vm_memory_high_watermark", "absolute", "1")
            yield
        finally:
            undo(partial(self.control, "set_vm_memory_high_watermark", "absolute", "512MB"))

    @contextmanager
    def disk_alarm(self) -> Iterator[None]:
        try:
            self.control("set_disk_free_limit", "100000GB")
            yield
        finally:
            undo(partial(self.control, "set_disk_free_limit", "200MB"))

    @contextmanager
    def impatient(self, milliseconds: int, *, looking_every: int) -> Iterator[None]:
        """Let channels that are opened now take a delivery back that isn't acknowledged in time."""
        setting = "application:set_env(rabbit, {}, {})."
        before = {"consumer_timeout": 1_800_000, "channel_tick_interval": 60_000}
        hurried = {"consumer_timeout": milliseconds, "channel_tick_interval": looking_every}
        try:
            for name, value in hurried.items():
                self.control("eval", setting.format(name, value))
            yield
        finally:
            for name, value in before.items():
                undo(partial(self.control, "eval", setting.format(name, value)))

    def overview(self) -> dict[str, Any]:
        """Raises httpx.HTTPError while the broker is away or starting."""
        return dict(self._http.get("/api/overview").raise_for_status().json())

    def alarms(self) -> list[str]:
        answer = self._http.get("/api/health/checks/alarms")
        return [alarm["resource"] for alarm in answer.json().get("alarms", ())]

    def control(self, *arguments: str) -> None:
        """Run `rabbitmqctl` in the environment of the broker's own process."""
        pid = self._system.process("rabbitmq").pid
        installation = Rabbit(self._system.root).already_here()
        assert installation is not None
        words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        environment = dict(word.split("=", 1) for word in words if "=" in word)
        command = [str(installation.server.with_name("rabbitmqctl")), "-q", *arguments]
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS
        )
        if result.returncode != 0:
            raise ChildProcessError(result.stdout + result.stderr)

    def close(self) -> None:
        self._http.close()
