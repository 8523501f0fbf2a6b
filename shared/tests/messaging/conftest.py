"""A producer (`patients`) and a consumer (`reporting`) on a real broker and databases of their own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import aio_pika
import httpx
import psycopg
import pytest
from clinic_shared import contracts
from clinic_shared.auth import TokenSigner, TokenVerifier
from clinic_shared.broker_access import EVERYTHING, accesses
from clinic_shared.consumer import Handlers
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope
from clinic_shared.events import Event
from clinic_shared.ids import uuid7
from clinic_shared.management import vhost_of
from clinic_shared.service import Runtime, Service, running
from clinic_shared.settings import ServiceSettings
from clinic_shared.testing import ISSUER, FixedClock, Servers, eventually
from clinic_shared.topology import declare_all
from pydantic import BaseModel, SecretStr
from sqlalchemy import text

REGISTERED = "patients.patient-registered.v1"
UPDATED = "patients.patient-updated.v1"
INSTALLED = "patients,reporting"
QUEUE = "reporting.patients"

Loop = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


class Registered(BaseModel):
    patient_id: UUID
    version: int


@dataclass
class Behaviour:
    """What the consumer's handler does with a patient's events, by version (0: all)."""

    errors: dict[tuple[UUID, int], Exception] = field(default_factory=dict)
    before: Callable[[Transaction, Envelope], Awaitable[None]] | None = None

    def fail(self, key: UUID, error: Exception, *, version: int = 0) -> None:
        self.errors[key, version] = error

    def recover(self) -> None:
        self.errors.clear()


def _service(name: str, folder: Path, handlers: Handlers | None = None) -> Service:
    (folder / "migrations" / "versions").mkdir(parents=True, exist_ok=True)
    return Service(name=name, package_dir=folder / "package", routers=(), handlers=handlers or Handlers(name))


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def handlers(behaviour: Behaviour) -> Handlers:
    handlers = Handlers("reporting")

    @handlers.on(REGISTERED)
    async def remember(tx: Transaction, envelope: Envelope, payload: Registered) -> None:
        if behaviour.before is not None:
            await behaviour.before(tx, envelope)
        statement = text(
            "INSERT INTO effect (event_id, subject, version) VALUES (:event, :subject, :version)"
        )
        values = {"event": envelope.id, "subject": payload.patient_id, "version": envelope.aggregate_version}
        await tx.execute(statement, values)
        for version in (0, envelope.aggregate_version):
            if error := behaviour.errors.get((payload.patient_id, version)):
                raise error

    return handlers


@pytest.fixture
async def broker_urls(vhost: Servers) -> Servers:
    """A virtual host with the topology of two services."""
    await declare_all(vhost.amqp_url, vhost.management_url, INSTALLED.split(","))
    return vhost


@pytest.fixture
def settings(broker_urls: Servers) -> dict[str, Any]:
    return {
        "environment": "test",
        "amqp_url": SecretStr(broker_urls.amqp_url),
        "amqp_management_url": SecretStr(broker_urls.management_url),
        "subscribed_services": INSTALLED,
    }


@dataclass
class Made:
    """Makes runtimes: one process each, as far as the runtime can tell."""

    database_of: Callable[[Service], str]
    signer: TokenSigner
    settings: dict[str, Any]
    clock: FixedClock

    def start(
        self, service: Service, database_url: str | None = None, **changes: Any
    ) -> AbstractAsyncContextManager[Runtime]:
        url = database_url or self.database_of(service)
        configured = ServiceSettings(database_url=SecretStr(url), **(self.settings | changes))
        verifier = TokenVerifier.static(
            self.signer.public_jwks(), issuer=ISSUER, audience="clinic-api", clock=self.clock
        )
        return running(service, configured, clock=self.clock, verifier=verifier)


@pytest.fixture
def made(
    database_of: Callable[[Service], str], signer: TokenSigner, settings: dict[str, Any], clock: FixedClock
) -> Made:
    return Made(database_of, signer, settings, clock)


@pytest.fixture
async def producer(made: Made, tmp_path: Path) -> AsyncIterator[Runtime]:
    async with made.start(_service("patients", tmp_path)) as runtime:
        yield runtime


@pytest.fixture
def consumer_service(handlers: Handlers, tmp_path: Path) -> Service:
    return _service("reporting", tmp_path, handlers)


@pytest.fixture
def consumer_url(consumer_service: Service, database_of: Callable[[Service], str]) -> str:
    url = database_of(consumer_service)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE effect (id bigserial PRIMARY KEY, event_id uuid, subject uuid, version bigint)"
        )
    return url


@pytest.fixture
async def consumer(made: Made, consumer_service: Service, consumer_url: str) -> AsyncIterator[Runtime]:
    async with made.start(consumer_service, consumer_url) as runtime:
        yield runtime


@asynccontextmanager
async def looping(*loops: Loop) -> AsyncIterator[None]:
    """Run endless loops until the block ends, and see that they end when told to."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(loop(stop)) for loop in loops]
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks)


@pytest.fixture(name="looping")
def _looping() -> Callable[..., AbstractAsyncContextManager[None]]:
    return looping


class Journal:
    """What was committed at the producer, and what took effect at the consumer."""

    def __init__(self) -> None:
        self.emitted: list[UUID] = []

    async def emit(
        self,
        runtime: Runtime,
        *,
        key: UUID | None = None,
        version: int = 1,
        event_type: str = REGISTERED,
    ) -> UUID:
        """Commit one event of a patient; returns its id."""
        async with runtime.database.transaction(Context()) as tx:
            event_id = tx.emit(self.event(key or uuid7(), version, event_type))
        self.emitted.append(event_id)
        return event_id

    async def emit_many(self, runtime: Runtime, count: int, *, keys: int = 0) -> list[UUID]:
        """Commit events in transactions of a hundred, of `keys` patients in turn or each of its own."""
        patients = [uuid7() for _ in range(keys or count)]
        made: list[UUID] = []
        for start in range(0, count, 100):
            async with runtime.database.transaction(Context()) as tx:
                made += [
                    tx.emit(self.event(patients[n % len(patients)], 1 + n // len(patients)))
                    for n in range(start, min(start + 100, count))
                ]
        self.emitted += made
        return made

    def event(self, key: UUID, version: int, event_type: str = REGISTERED) -> Event:
        example = contracts.examples(event_type)[0]
        return Event(
            type=event_type,
            subject=key,
            aggregate_version=version,
            patient_id=key,
            data=example["data"] | {"patient_id": str(key), "version": version},
            private=example["private"],
        )

    async def effects(self, runtime: Runtime) -> list[tuple[UUID, UUID, int]]:
        """Return (event, subject, version) in the order of their commits."""
        async with runtime.database.transaction() as tx:
            rows = await tx.fetch_all(text("SELECT event_id, subject, version FROM effect ORDER BY id"))
        return [(row.event_id, row.subject, row.version) for row in rows]

    async def pending(self, runtime: Runtime) -> int:
        async with runtime.database.transaction() as tx:
            return int((await tx.fetch_all(text("SELECT count(*) FROM outbox")))[0][0])


@pytest.fixture
def journal() -> Journal:
    return Journal()


@dataclass
class Queues:
    """A look at the broker from outside."""

    url: str

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
        connection = await aio_pika.connect(self.url)
        async with connection, connection.channel() as channel:
            yield channel

    @asynccontextmanager
    async def collecting(self, name: str) -> AsyncIterator[list[aio_pika.abc.AbstractIncomingMessage]]:
        """Consume a queue; the list grows as messages arrive."""
        found: list[aio_pika.abc.AbstractIncomingMessage] = []

        async def keep(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            found.append(message)
            await message.ack()

        async with self.channel() as channel:
            queue = await channel.get_queue(name, ensure=False)
            tag = await queue.consume(keep)
            yield found
            await queue.cancel(tag)

    async def take(self, name: str, expected: int) -> list[aio_pika.abc.AbstractIncomingMessage]:
        """Consume what is in a queue, which must be so many messages."""
        async with self.collecting(name) as found:
            await eventually(lambda: len(found) >= expected)
        assert len(found) == expected
        return found

    async def count(self, name: str) -> int:
        async with self.channel() as channel:
            declared = await channel.declare_queue(name, passive=True)
            return declared.declaration_result.message_count or 0

    async def delete(self, name: str) -> None:
        async with self.channel() as channel:
            await channel.queue_delete(name)

    async def put(
        self, name: str, *bodies: bytes, headers: Sequence[dict[str, Any]] = (), **more: Any
    ) -> None:
        """Put messages into a queue, each with its headers if any are given."""
        async with self.channel() as channel:
            for body, own in zip_longest(bodies, headers):
                message = aio_pika.Message(body, headers=own or {}, delivery_mode=2, **more)
                await channel.default_exchange.publish(message, name)


@pytest.fixture
def queues(broker_urls: Servers) -> Queues:
    return Queues(broker_urls.amqp_url)


class Wire:
    """A TCP proxy before a server that can be cut, refuse, or lose what the server says."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)
        self._parts = parts
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = asyncio.Event()
        self._answers.set()
        self.refuse = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        credentials = self._parts.netloc.rpartition("@")[0]
        return urlunsplit(self._parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))

    def swallow_answers(self) -> None:
        """Let everything reach the broker, and nothing come back."""
        self._answers.clear()

    def go_down(self) -> None:
        """Reset all connections and accept no new ones."""
        self.refuse = True
        self.cut()

    def come_back(self) -> None:
        self.refuse = False

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._open:
            writer.transport.abort()
        self._answers.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        self._open |= {writer, there_writer}
        for source, sink, gate in ((reader, there_writer, None), (there_reader, writer, self._answers)):
            task = asyncio.create_task(self._pump(source, sink, gate))
            self._tasks.add(task)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if gate is not None:
                    await gate.wait()
                sink.write(data)
                await sink.drain()
        sink.transport.abort()
        self._open.discard(sink)


@pytest.fixture
async def database_wire(consumer_url: str) -> AsyncIterator[Wire]:
    """The consumer's way to its database."""
    async with Wire(consumer_url) as wire:
        yield wire


@pytest.fixture
async def wire(broker_urls: Servers) -> AsyncIterator[Wire]:
    async with Wire(broker_urls.amqp_url) as wire:
        yield wire


@pytest.fixture
def mutation(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Switch one safeguard off for this test."""
    return lambda name: monkeypatch.setenv("CLINIC_MUTATION", name)


SERVICES = ("identity", "patients", "reporting", "audit")
UserOf = Callable[[str], Servers]


@pytest.fixture
def user_of(vhost: Servers) -> Iterator[UserOf]:
    """Make the deployment's users, each under a name of this test's own; give a user's URLs."""
    vhost_name, run = vhost_of(vhost.amqp_url), uuid7().hex
    users = {access.user: access for access in accesses(SERVICES)}
    with httpx.Client(base_url=vhost.management_url, trust_env=False, timeout=60) as management:
        for name, access in users.items():
            account = {"password": run, "tags": ",".join(access.tags)}
            management.put(f"/api/users/{name}-{run}", json=account).raise_for_status()
            allowed = {"configure": access.configure, "write": access.write, "read": access.read}
            management.put(f"/api/permissions/{vhost_name}/{name}-{run}", json=allowed).raise_for_status()
            for exchange, write in access.topics:
                topic = {"exchange": exchange, "write": write, "read": EVERYTHING}
                management.put(
                    f"/api/topic-permissions/{vhost_name}/{name}-{run}", json=topic
                ).raise_for_status()

        def urls(name: str) -> Servers:
            credentials = f"{name}-{run}:{run}"
            amqp, http = urlsplit(vhost.amqp_url), urlsplit(vhost.management_url)
            return Servers(
                vhost.postgres_admin_url,
                amqp._replace(netloc=f"{credentials}@{amqp.netloc.rpartition('@')[2]}").geturl(),
                http._replace(netloc=f"{credentials}@{http.netloc.rpartition('@')[2]}").geturl(),
            )

        yield urls
        for name in users:
            management.delete(f"/api/users/{name}-{run}").raise_for_status()


@pytest.fixture
async def other(
    made: Made, consumer_service: Service, database_wire: Wire, broker_urls: Servers
) -> AsyncIterator[Runtime]:
    """Another process of the same service, whose way to the database can be cut."""
    url = SecretStr(broker_urls.amqp_url)
    async with made.start(consumer_service, database_url=database_wire.url, amqp_url=url) as runtime:
        yield runtime
