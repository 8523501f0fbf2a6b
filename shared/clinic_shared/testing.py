"""The pytest plugin: private servers per run, a database per test, a virtual host per worker.

A service's `tests/conftest.py` says `scheduling = service_fixture(service)`; its tests then get a
`ServiceHarness`: the real application on a real database, a clock that stands still, signed tokens.
Servers come from `CLINIC_TEST_SERVERS` (a JSON file of URLs) or are started once per run and end
with it.
"""

import asyncio
import hashlib
import inspect
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import hypothesis
import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from sqlalchemy import Inspector, MetaData, Table
from sqlalchemy import inspect as inspect_database

from clinic_shared import contracts, event_sealing
from clinic_shared.app import create_app
from clinic_shared.auth import TokenSigner, TokenVerifier, claims_of
from clinic_shared.consumer import apply, apply_together
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.events import Origin, event_log
from clinic_shared.ids import uuid7
from clinic_shared.migrations import RUNTIME_DIR, migrate
from clinic_shared.principal import Principal
from clinic_shared.service import Runtime, Service, running
from clinic_shared.timer_worker import TimerWorker

ISSUER = "https://clinic.test"
MONDAY = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
"""Where test clocks start: nine o'clock on a Monday morning in Moscow."""


class FixedClock:
    """Business time that moves only when a test moves it."""

    def __init__(self, moment: datetime = MONDAY) -> None:
        self._now = moment

    def now(self) -> datetime:
        return self._now

    def advance(self, **delta: float) -> datetime:
        self._now += timedelta(**delta)
        return self._now


@dataclass(frozen=True)
class Servers:
    """URLs of the servers of this run."""

    postgres_admin_url: str
    amqp_url: str
    management_url: str

    def database_url(self, database: str) -> str:
        base, _, _ = self.postgres_admin_url.rpartition("/")
        return f"{base}/{database}"


# How long an example takes says how busy the machine is, not whether the claim holds.
# And the examples are those of every run: a rare one that fails is found by whoever looks for it, with
# `CLINIC_TEST_EXAMPLES=random`, and not by whoever happens to run the tests.
hypothesis.settings.register_profile(
    "unhurried",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize=os.environ.get("CLINIC_TEST_EXAMPLES") != "random",
)
hypothesis.settings.load_profile("unhurried")


def pytest_configure() -> None:
    # Workers inherit it: servers live as long as the process that the user started.
    os.environ.setdefault("CLINIC_TEST_CONTROLLER", str(os.getpid()))
    os.environ.setdefault("CLINIC_ENVIRONMENT", "test")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs servers through whatever fixture, so that `make check` can leave it out."""
    for item in items:
        if "servers" in getattr(item, "fixturenames", ()):
            item.add_marker("servers")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Servers:
    """Start PostgreSQL and RabbitMQ once per run, or use those that `CLINIC_TEST_SERVERS` names."""
    given = os.environ.get("CLINIC_TEST_SERVERS")
    if given:
        return Servers(**json.loads(Path(given).read_text(encoding="utf-8")))
    controller = os.environ["CLINIC_TEST_CONTROLLER"]
    root = Path(tmp_path_factory.getbasetemp())
    root = (root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root) / f"servers-{controller}"
    urls = root / "urls.json"
    try:
        root.mkdir(parents=True)
    except FileExistsError:
        pass
    else:
        # Spawned, not a Popen: it outlives this process on purpose, and a Popen would complain at exit.
        log = str(root / "keeper.log")
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "clinic_local.test_servers", str(root), controller],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
    deadline = time.monotonic() + 180
    while not urls.exists():
        if (root / "failed").exists() or time.monotonic() > deadline:
            pytest.exit((root / "keeper.log").read_text(encoding="utf-8"), returncode=3)
        time.sleep(0.05)
    return Servers(**json.loads(urls.read_text(encoding="utf-8")))


def _fingerprint(service: Service) -> str:
    digest = hashlib.sha256()
    for directory in (RUNTIME_DIR, service.migrations_dir):
        for file in sorted((directory / "versions").glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@pytest.fixture(scope="session")
def postgres_admin(servers: Servers) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(servers.postgres_admin_url, autocommit=True) as admin:
        yield admin


@contextmanager
def _databases(servers: Servers, admin: psycopg.Connection[Any]) -> Iterator[Callable[[Service], str]]:
    made: list[str] = []

    def make(service: Service) -> str:
        template = f"template_{service.name.replace('-', '_')}_{_fingerprint(service)}"
        _ensure_template(admin, servers, service, template)
        name = f"test_{uuid7().hex}"
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        made.append(name)
        return servers.database_url(name)

    yield make
    for name in made:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_of(
    servers: Servers, postgres_admin: psycopg.Connection[Any]
) -> Iterator[Callable[[Service], str]]:
    """Return a function that makes a fresh, migrated database of a service and returns its URL."""
    with _databases(servers, postgres_admin) as make:
        yield make


@pytest.fixture(scope="session")
def lasting_database_of(
    servers: Servers, postgres_admin: psycopg.Connection[Any]
) -> Iterator[Callable[[Service], str]]:
    """Do the same for services that many tests share."""
    with _databases(servers, postgres_admin) as make:
        yield make


def _ensure_template(
    admin: psycopg.Connection[Any], servers: Servers, service: Service, template: str
) -> None:
    admin.execute("SELECT pg_advisory_lock(hashtext(%s))", (template,))
    try:
        if admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (template,)).fetchone():
            return
        building = f"{template}_building"
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(building)))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(building)))
        url = servers.database_url(building).replace("postgresql://", "postgresql+psycopg://", 1)
        migrate(url, service.migrations_dir)
        admin.execute(
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                sql.Identifier(building), sql.Identifier(template)
            )
        )
    finally:
        admin.execute("SELECT pg_advisory_unlock(hashtext(%s))", (template,))


@pytest.fixture(scope="session")
def signer() -> TokenSigner:
    """A key pair like identity's own."""
    return TokenSigner.generate(issuer=ISSUER, audience="clinic-api")


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@dataclass
class ServiceHarness:
    """A service as its tests meet it: over HTTP, by events, by timers."""

    service: Service
    runtime: Runtime
    clock: FixedClock
    signer: TokenSigner
    http: httpx.AsyncClient
    amqp_url: str
    _known_roles: Mapping[str, list[str]] = field(default_factory=contracts.scopes_by_role)

    def principal(self, *roles: str, **claims: Any) -> Principal:
        """Return a caller with the scopes that `contracts/taxonomy/roles.yaml` gives these roles."""
        scopes = frozenset(scope for role in roles for scope in self._known_roles[role])
        kind = "patient" if roles == ("patient",) else "client" if roles == ("lab",) else "staff"
        defaults: dict[str, Any] = {"subject": uuid7(), "kind": kind, "network": kind == "staff"}
        return Principal(**{**defaults, "roles": frozenset(roles), "scopes": scopes, **claims})

    def token(self, principal: Principal) -> str:
        now = self.clock.now()
        return self.signer.sign(claims_of(principal, issued_at=now, lifetime_seconds=300))

    def client(self, principal: Principal) -> httpx.AsyncClient:
        """Return an HTTP client that calls the service as this principal."""
        self.http.headers["Authorization"] = f"Bearer {self.token(principal)}"
        return self.http

    def headers(self, principal: Principal, *, key: str | None = None) -> dict[str, str]:
        """Return the headers of a call: authorization and, for writes, an idempotency key."""
        return {
            "Authorization": f"Bearer {self.token(principal)}",
            "Idempotency-Key": key or str(uuid7()),
        }

    async def deliver(
        self,
        event_type: str,
        data: Mapping[str, Any],
        private: Mapping[str, Any] | None = None,
        *,
        subject: UUID | None = None,
        version: int = 1,
        event_id: UUID | None = None,
        origin: Origin = Origin.LIVE,
    ) -> str:
        """Hand an event to the service as its consumer would; returns the disposition."""
        contracts.validate_event(event_type, data, private)
        envelope = self._envelope(event_type, subject or uuid7(), version, event_id, origin)
        return await apply(self.runtime, envelope, encode_body(data, private))

    async def tell_of_merge(
        self, source: UUID, target: UUID, *, merge_id: UUID | None = None, undone: bool = False
    ) -> UUID:
        """Tell that one patient's record was replaced by another, or no longer is; returns the merge's id."""
        merge_id = merge_id or uuid7()
        await self.deliver_example(
            f"patients.patients-{'unmerged' if undone else 'merged'}.v1",
            version=3 if undone else 2,
            merge_id=str(merge_id),
            source_patient_id=str(source),
            target_patient_id=str(target),
        )
        return merge_id

    async def deliver_together(self, event_type: str, *payloads: Mapping[str, Any]) -> None:
        """Hand several events of one subject over, as those that were waiting share a transaction.

        Each is the contract's first example with some of its `data` changed.
        """
        example, subject = contracts.examples(event_type)[0], uuid7()
        messages = []
        for changes in payloads:
            data = {**example["data"], **changes}
            contracts.validate_event(event_type, data, example.get("private"))
            envelope = self._envelope(event_type, subject, int(data.get("version", 1)))
            messages.append((envelope, encode_body(data, example.get("private"))))
        await apply_together(self.runtime, messages)

    def _envelope(
        self,
        event_type: str,
        subject: UUID,
        version: int,
        event_id: UUID | None = None,
        origin: Origin = Origin.LIVE,
    ) -> Envelope:
        return Envelope(
            id=event_id or uuid7(),
            source=event_type.split(".", 1)[0],
            type=event_type,
            subject=subject,
            time=self.clock.now(),
            aggregate_version=version,
            partition_key=subject,
            recorded_at=self.clock.now(),
            origin=origin,
            correlation_id=uuid7(),
        )

    async def deliver_example(self, event_type: str, *, version: int = 1, **changes: Any) -> dict[str, Any]:
        """Deliver a contract's first example with some `data` or `private` fields changed.

        Returns the flattened payload that was delivered.
        """
        example = contracts.examples(event_type)[0]
        data, private = dict(example["data"]), dict(example.get("private") or {})
        data |= {"version": version} if "version" in data else {}
        for name, value in changes.items():
            (private if name in private else data)[name] = value
        await self.deliver(event_type, data, private or None, version=version)
        return {**data, **private}

    async def events(self, event_type: str | None = None) -> list[Any]:
        """Return what the service has published so far, oldest first."""
        wanted = [event_log.c.type == event_type] if event_type else []
        async with self.runtime.database.transaction() as tx:
            rows = await event_sealing.read_log(tx, *wanted)
            events = [
                SimpleNamespace(**row._asdict() | {"private": event_sealing.private_of(tx, row)})
                for row in rows
            ]
        return sorted(events, key=lambda event: (event.recorded_at, event.event_id))

    async def fire_timers(self) -> int:
        """Fire everything due by the test's clock; returns how many."""
        worker, fired = TimerWorker(self.runtime), 0
        while await worker.fire_next():
            fired += 1
        return fired


@asynccontextmanager
async def harness(
    service: Service,
    *,
    database_url: str,
    amqp_url: str,
    signer: TokenSigner,
    clock: FixedClock,
    **settings: Any,
) -> AsyncIterator[ServiceHarness]:
    """Run a service in this process, without its worker loops."""
    configured = service.settings(
        environment="test",
        database_url=database_url,
        database_pool_timeout_seconds=60,  # a busy test machine is no reason to refuse a request
        amqp_url=amqp_url,
        token_issuer=ISSUER,
        **settings,
    )
    verifier = TokenVerifier.static(signer.public_jwks(), issuer=ISSUER, audience="clinic-api", clock=clock)
    async with running(service, configured, clock=clock, verifier=verifier) as runtime:
        transport = httpx.ASGITransport(app=create_app(service, runtime), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as http:
            yield ServiceHarness(service, runtime, clock, signer, http, amqp_url)


def service_fixture(service: Service, **settings: Any) -> Any:
    """Make the fixture of a service: a `ServiceHarness` on a database of the test's own."""

    @pytest_asyncio.fixture
    async def fixture(
        servers: Servers, database_of: Callable[[Service], str], signer: TokenSigner, clock: FixedClock
    ) -> AsyncIterator[ServiceHarness]:
        async with harness(
            service,
            database_url=database_of(service),
            amqp_url=servers.amqp_url,
            signer=signer,
            clock=clock,
            **settings,
        ) as made:
            yield made

    return fixture


@pytest.fixture
def vhost(servers: Servers) -> Iterator[Servers]:
    """A virtual host of the test's own; its URLs in the shape of `Servers`."""
    name = f"test-{uuid7().hex}"
    with httpx.Client(base_url=servers.management_url, trust_env=False, timeout=120) as management:
        management.put(f"/api/vhosts/{name}").raise_for_status()
        user = management.get("/api/whoami").raise_for_status().json()["name"]
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        management.put(f"/api/permissions/{name}/{user}", json=everything).raise_for_status()
        base, _, _ = servers.amqp_url.rpartition("/")
        yield Servers(servers.postgres_admin_url, f"{base}/{name}", servers.management_url)
        management.delete(f"/api/vhosts/{name}").raise_for_status()


# A mutated safeguard's test waits for what never comes (tests/chaos/test_mutations.py), and needn't wait for so long.
PATIENCE_SECONDS = float(os.environ.get("CLINIC_TEST_PATIENCE_SECONDS", "60"))


async def eventually(
    check: Callable[[], Any], *, within_seconds: float = PATIENCE_SECONDS, every: float = 0.05
) -> Any:
    """Wait until an (async) check returns something truthy, and return it; AssertionError after the deadline."""
    deadline = time.monotonic() + within_seconds
    while True:
        result = check()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_seconds} s: {getattr(check, '__name__', check)}")
        await asyncio.sleep(every)


async def assert_tables_match(metadata: MetaData, harness: ServiceHarness) -> None:
    """Compare a service's tables with what its migrations made: names, columns, nullability, keys."""
    async with harness.runtime.database.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: [
                difference
                for table in metadata.tables.values()
                for difference in _differences(table, inspect_database(sync))
            ]
        )
    if differences:
        pytest.fail("\n".join(differences))


def _differences(table: Table, database: Inspector) -> Iterator[str]:
    if not database.has_table(table.name):
        yield f"{table.name}: no such table in the database"
        return
    there = {column["name"]: column["nullable"] for column in database.get_columns(table.name)}
    here = {column.name: bool(column.nullable) for column in table.columns}
    for name in there.keys() ^ here.keys():
        yield f"{table.name}.{name}: only in the {'code' if name in here else 'database'}"
    for name in there.keys() & here.keys():
        if there[name] != here[name]:
            yield f"{table.name}.{name}: nullable is {here[name]} in the code"
    key = database.get_pk_constraint(table.name)["constrained_columns"]
    if set(key) != {column.name for column in table.primary_key.columns}:
        yield f"{table.name}: another primary key"
