"""PostgreSQL and RabbitMQ together, for `make up` and for the test run; started side by side."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clinic_local.paths import run_dir, state_path
from clinic_local.postgres import Postgres, PostgresServer
from clinic_local.processes import is_running
from clinic_local.rabbitmq import Rabbit, RabbitServer

__all__ = ["Postgres", "PostgresServer", "Rabbit", "RabbitServer", "TestServers", "start_test_servers"]


@dataclass(frozen=True)
class TestServers:
    """Servers of one test run; `stop()` removes them with their data. They also end when this process does."""

    __test__ = False  # pytest collects classes by this name's beginning

    postgres: PostgresServer
    rabbitmq: RabbitServer
    folder: Path
    _remove: Callable[[], None]

    @property
    def postgres_admin_url(self) -> str:
        return self.postgres.admin_url

    @property
    def amqp_url(self) -> str:
        return self.rabbitmq.amqp_url

    @property
    def management_url(self) -> str:
        return self.rabbitmq.management_url

    def stop(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            stops = [pool.submit(self.rabbitmq.stop), pool.submit(self.postgres.stop)]
        for stop in stops:
            stop.result()
        self._remove()


def start_test_servers(root: Path) -> TestServers:
    """Start throwaway servers on free ports, with data below `root/.run/test/`; raises `SetupError`.

    `CLINIC_POSTGRES_URL` and `CLINIC_AMQP_URL` are honoured; such servers are left running by `stop()`.
    """
    tests = run_dir(root) / "test"
    _remove_left_behind(tests, state_path(root) / "test")
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    folder = tests / name
    folder.mkdir(parents=True)

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        state = state_path(root)
        shutil.rmtree(state / "test" / name, ignore_errors=True)
        for empty in (state / "test", state, state.parent):
            with contextlib.suppress(OSError):
                empty.rmdir()

    with ThreadPoolExecutor(2) as pool:
        broker = pool.submit(Rabbit(root).start, folder / "rabbitmq", durable=False)
        database = pool.submit(Postgres(root).start, folder / "postgres", durable=False)
    started = [future.result() for future in (broker, database) if future.exception() is None]
    if len(started) < 2:  # noqa: PLR2004 - both or none
        for server in started:
            server.stop()
    return TestServers(database.result(), broker.result(), folder, remove)


def _remove_left_behind(*folders: Path) -> None:
    """Remove the data of test runs that were killed; a folder's name begins with its run's process id."""
    for folder in folders:
        for left in folder.glob("*-*"):
            if not is_running(int(left.name.partition("-")[0])):
                shutil.rmtree(left, ignore_errors=True)
