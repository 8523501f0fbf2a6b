"""A consumer with parked messages, and the people who decide about them over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from clinic_shared import contracts, held
from clinic_shared.app import create_app
from clinic_shared.auth import TokenSigner, TokenVerifier, claims_of
from clinic_shared.dead_letters.run_worker import RedriveWorker
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.events import Origin
from clinic_shared.held import RawMessage
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.service import Runtime, Service, running
from clinic_shared.testing import ISSUER, FixedClock, eventually
from sqlalchemy import text

from .reporting import REGISTERED, Behaviour, make_service, settings_of

LETTERS = "/v1/ops/dead-letters"
QUEUE = "reporting.patients"
CANARY = "Канарейкина"


@dataclass
class Person:
    """Somebody with some permissions."""

    subject: UUID
    http: httpx.AsyncClient

    async def get(self, path: str = "", **parameters: Any) -> httpx.Response:
        return await self.http.get(LETTERS + path, params=parameters)

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.http.post(LETTERS + path, json={} if body is None else body)

    async def groups(self, **parameters: Any) -> list[dict[str, Any]]:
        answer = await self.get(**parameters)
        return list(answer.raise_for_status().json()["groups"])


@dataclass
class Office:
    """The consumer, its parked messages, and who looks after them."""

    runtime: Runtime
    database_url: str
    behaviour: Behaviour
    clock: FixedClock
    signer: TokenSigner
    stack: AsyncExitStack = field(repr=False)

    async def person(self, *roles: str, scopes: Sequence[str] = ()) -> Person:
        granted = {scope for role in roles for scope in contracts.scopes_by_role()[role]} | set(scopes)
        who = Principal(subject=uuid7(), kind="staff", network=True, scopes=frozenset(granted))

        def sign(request: httpx.Request) -> httpx.Request:
            token = self.signer.sign(claims_of(who, issued_at=self.clock.now(), lifetime_seconds=300))
            request.headers["Authorization"] = f"Bearer {token}"
            return request

        transport = httpx.ASGITransport(app=create_app(self.runtime.service, self.runtime))
        client = httpx.AsyncClient(transport=transport, base_url="http://service.test", auth=sign)
        return Person(who.subject, await self.stack.enter_async_context(client))

    async def park(
        self,
        key: UUID | None = None,
        version: int = 1,
        *,
        cause: str = "planted",
        data: dict[str, Any] | None = None,
        private: dict[str, Any] | None = None,
        body: bytes | None = None,
        event_type: str = REGISTERED,
        origin: Origin = Origin.LIVE,
        is_held: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> int:
        """Keep a message as the consumer would; returns its id."""
        key = key or uuid7()
        example = contracts.examples(REGISTERED)[0]
        said = example["data"] | {"patient_id": str(key), "version": version} if data is None else data
        now = self.clock.now()
        envelope = Envelope(
            id=uuid7(),
            source="patients",
            type=event_type,
            subject=key,
            time=now,
            recorded_at=now,
            aggregate_version=version,
            partition_key=key,
            correlation_id=uuid7(),
            origin=origin,
        )
        message = RawMessage(
            queue=QUEUE,
            headers={**envelope.headers(), **(headers or {})},
            body=encode_body(said, private) if body is None else body,
        )
        keep = held.hold if is_held else held.park
        async with self.runtime.database.transaction() as tx:
            await keep(tx, message, cause=cause, error="PlantedError here", duration_ms=7)
        return int((await self.rows())[-1].id)

    async def rows(self) -> list[Any]:
        return await self.query("SELECT * FROM held ORDER BY id")

    async def said(self, row: Any) -> bytes:
        """Return what a kept message says."""
        async with self.runtime.database.transaction() as tx:
            return held.body_of(tx, row)

    async def query(self, statement: str, **values: Any) -> list[Any]:
        async with self.runtime.database.transaction() as tx:
            return list(await tx.fetch_all(text(statement), values))

    async def effects(self) -> list[tuple[UUID, int]]:
        """Return (patient, version) in the order of commits."""
        rows = await self.query("SELECT subject, version FROM effect ORDER BY id")
        return [(row.subject, row.version) for row in rows]

    async def audited(self, decision: str) -> list[dict[str, Any]]:
        """Return the audit records of a kind of decision."""
        rows = await self.query("SELECT record FROM audit_outbox ORDER BY id")
        records = [json.loads(bytes(row.record)) for row in rows]
        return [record for record in records if record["details"].get("decision") == decision]

    @asynccontextmanager
    async def working(self, runtime: Runtime | None = None) -> AsyncIterator[None]:
        """Let a worker work runs off meanwhile."""
        stop = asyncio.Event()
        task = asyncio.create_task(RedriveWorker(runtime or self.runtime).run(stop))
        try:
            yield
        finally:
            stop.set()
            await task

    async def finish(self, person: Person, run_id: str) -> dict[str, Any]:
        """Let a worker work the run off; returns it."""

        async def over() -> Any:
            run = (await person.get(f"/runs/{run_id}")).raise_for_status().json()["run"]
            return run if run["state"] != "running" else None

        async with self.working():
            run: dict[str, Any] = await eventually(over, within_seconds=60, every=0.02)
        return run

    async def redrive(self, person: Person, **selection: Any) -> dict[str, Any]:
        """Begin a run and let it end; returns it."""
        answer = await person.post("/redrive", {"rate_per_second": 1000, **selection})
        assert answer.status_code == 202, answer.text
        return await self.finish(person, answer.json()["run_id"])


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def service(tmp_path: Path, behaviour: Behaviour) -> Service:
    return make_service(tmp_path, behaviour)


@pytest.fixture
def discarded_alone() -> int:
    """How many messages one person may discard in a day."""
    return 30


@pytest.fixture
async def office(
    discarded_alone: int,
    service: Service,
    behaviour: Behaviour,
    database_of: Callable[[Service], str],
    signer: TokenSigner,
    clock: FixedClock,
) -> AsyncIterator[Office]:
    url = database_of(service)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE effect"
            " (id bigserial PRIMARY KEY, event_id uuid, subject uuid, version bigint, origin text)"
        )
    verifier = TokenVerifier.static(signer.public_jwks(), issuer=ISSUER, audience="clinic-api", clock=clock)
    settings = settings_of(url, token_issuer=ISSUER, dead_letters_discarded_alone=discarded_alone)
    async with (
        running(service, settings, clock=clock, verifier=verifier) as runtime,
        AsyncExitStack() as stack,
    ):
        yield Office(runtime, url, behaviour, clock, signer, stack)


@pytest.fixture
async def admin(office: Office) -> Person:
    """Redrives and discards, and sees no patient."""
    return await office.person("system-administrator")


@pytest.fixture
async def steward(office: Office) -> Person:
    """Looks into messages and mends them."""
    return await office.person("data-steward")
