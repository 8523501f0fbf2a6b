"""A clinic of several producers and reporting on a real broker, for what is told of its event logs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aio_pika
import pytest
from clinic_reporting import tables
from clinic_reporting.app import service
from clinic_shared import contracts
from clinic_shared.auth import TokenSigner
from clinic_shared.consumer import Handlers
from clinic_shared.events import Event
from clinic_shared.ids import uuid7
from clinic_shared.main import worker_loops
from clinic_shared.service import Runtime, Service
from clinic_shared.testing import FixedClock, Servers, ServiceHarness, eventually, harness
from clinic_shared.topology import declare_all
from sqlalchemy import text

from .conftest import Network, Stream, Told

PRODUCERS = ("patients", "scheduling", "lab-integration", "billing")
INSTALLED = ",".join((*PRODUCERS, "reporting"))

_MOMENT = datetime(2026, 3, 2, 9, tzinfo=UTC)
SUBJECTS = {
    "scheduling": "appointment_id",
    "lab-integration.lab-order": "lab_order_id",
    "lab-integration.lab-result": "result_id",
    "lab-integration.critical": "obligation_id",
    "billing.invoice": "invoice_id",
    "billing.payment": "payment_id",
    "patients.patients": "merge_id",
    "patients.patient": "patient_id",
    "patients.encounter": "encounter_id",
    "patients.prescription": "prescription_id",
    "patients.consent": "consent_id",
    "patients.lab-result": "result_id",
}


def event_of(told: Told) -> Event:
    example = contracts.examples(told.event_type)[0]
    data = dict(example["data"]) | told.changes
    data |= {"version": told.version} if "version" in data else {}
    key = next(name for prefix, name in SUBJECTS.items() if told.event_type.startswith(prefix))
    return Event(
        type=told.event_type,
        subject=UUID(data[key]),
        aggregate_version=told.version,
        data=data,
        private=example.get("private"),
        occurred_at=told.occurred_at,
    )


def stream(seed: int) -> list[Told]:
    places = [uuid7() for _ in range(4)]
    network = Network(None, places[0], places[0], *places[1:])  # type: ignore[arg-type]  # only its places
    return [told for told in Stream(network, seed).told if told.event_type.partition(".")[0] in PRODUCERS]


class TwoRecords:
    """Two records of one person with what was written to each, merged and parted again, as patients tells it."""

    def __init__(self) -> None:
        self.target, self.source, self._merge_id = (str(uuid7()) for _ in range(3))
        self._version = 0

    def registered(self) -> list[Told]:
        return [*self._both("registered", "active"), *self._written()]

    def merged(self) -> list[Told]:
        return [*self._both("updated", "merged"), self._told("merged", 1), *self._written()]

    def parted(self) -> list[Told]:
        return [*self._both("updated", "active"), self._told("unmerged", 2), *self._written()]

    def _both(self, happened: str, source_status: str) -> list[Told]:
        self._version += 1
        records = ((self.source, source_status), (self.target, "active"))
        return [
            Told(
                f"patients.patient-{happened}.v1",
                self._version,
                _MOMENT,
                {"patient_id": each, "status": status},
            )
            for each, status in records
        ]

    def _told(self, happened: str, version: int) -> Told:
        ids = {
            "merge_id": self._merge_id,
            "source_patient_id": self.source,
            "target_patient_id": self.target,
        }
        return Told(f"patients.patients-{happened}.v1", version, _MOMENT, ids)

    def _written(self) -> list[Told]:
        """What is told of either record keeps it, merged or not."""
        return [
            Told(
                "patients.encounter-recorded.v1",
                1,
                _MOMENT,
                {"encounter_id": str(uuid7()), "patient_id": patient_id},
            )
            for patient_id in (self.source, self.target)
        ]


@dataclass
class Clinic:
    """Producers and reporting, each with a database of its own, on one broker."""

    reporting: ServiceHarness
    producers: dict[str, Runtime]
    seeds: Any = field(default_factory=lambda: iter(range(10_000)))

    async def happen(self, told: list[Told], *, at_once: int = 20) -> None:
        for start in range(0, len(told), at_once):
            for name, runtime in self.producers.items():
                own = [t for t in told[start : start + at_once] if t.event_type.startswith(f"{name}.")]
                async with runtime.database.transaction() as tx:
                    for each in own:
                        tx.emit(event_of(each))

    async def history(self, lives: int = 1) -> None:
        for _ in range(lives):
            await self.happen(stream(next(self.seeds))[:80])
        await self.quiet()

    async def quiet(self, *producers: str) -> None:
        """Wait until everything that happened has taken effect in reporting."""
        for name in producers or self.producers:

            async def applied(name: str = name) -> bool:
                return not await self.not_applied(name)

            await eventually(applied, within_seconds=60)

    async def not_applied(self, producer: str) -> list[UUID]:
        """Return the producer's events that have not taken effect in reporting."""
        async with self.producers[producer].database.transaction() as tx:
            own = [event for event in service.handlers.subscriptions if event.startswith(f"{producer}.")]
            rows = await tx.fetch_all(
                text("SELECT coalesce(carries, event_id) FROM event WHERE type = ANY(:own)"), {"own": own}
            )
        known = set(await self.column("SELECT event_id FROM inbox"))
        return [row[0] for row in rows if row[0] not in known]

    async def published(self) -> bool:
        for runtime in self.producers.values():
            async with runtime.database.transaction() as tx:
                if (await tx.execute(text("SELECT count(*) FROM outbox"))).scalar_one():
                    return False
        return True

    async def lose_queue(self, name: str) -> None:
        """Let a queue lose what is in it, as a broker without its disk does."""
        connection = await aio_pika.connect(self.reporting.amqp_url)
        async with connection, connection.channel() as channel:
            await (await channel.get_queue(name, ensure=False)).purge()

    async def answered(self, asked: dict[str, Any]) -> int:
        """Wait until all owners have answered a replay; returns how many events."""
        operator = self.reporting.principal("system-administrator")

        async def complete() -> dict[str, Any] | None:
            answer = await self.reporting.http.get(
                "/v1/ops/replays", headers=self.reporting.headers(operator)
            )
            return next(
                (
                    each
                    for each in answer.json()["requests"]
                    if each["replay_id"] == asked["replay_id"] and each["state"] == "complete"
                ),
                None,
            )

        found: dict[str, Any] = await eventually(complete, within_seconds=60)
        return sum(part["event_count"] for part in found["parts"])

    async def column(self, statement: str) -> list[Any]:
        async with self.reporting.runtime.database.transaction() as tx:
            return list((await tx.execute(text(statement))).scalars().all())

    async def scalar(self, statement: str, **parameters: Any) -> Any:
        async with self.reporting.runtime.database.transaction() as tx:
            return (await tx.execute(text(statement), parameters)).scalar_one()

    async def execute(self, statement: str) -> None:
        async with self.reporting.runtime.database.transaction() as tx:
            await tx.execute(text(statement))

    async def rows(self, schema: str = "public") -> dict[str, list[str]]:
        """Return every row of the read model as PostgreSQL prints it."""
        async with self.reporting.runtime.database.transaction() as tx:
            return {
                table.name: sorted(
                    (await tx.execute(text(f'SELECT t::text FROM {schema}."{table.name}" AS t')))  # noqa: S608
                    .scalars()
                    .all()
                )
                for table in tables.READ_MODEL
            }

    async def post(self, path: str, body: Any = None) -> dict[str, Any]:
        operator = self.reporting.principal("system-administrator")
        answer = await self.reporting.http.post(
            f"/v1/ops/{path}", json=body or {}, headers=self.reporting.headers(operator)
        )
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def rebuild(self, **asked: Any) -> str:
        return str((await self.post("rebuilds", asked))["rebuild_id"])

    async def shown(self, rebuild_id: str) -> dict[str, Any]:
        operator = self.reporting.principal("system-administrator")
        answer = await self.reporting.http.get(
            f"/v1/ops/rebuilds/{rebuild_id}", headers=self.reporting.headers(operator)
        )
        found: dict[str, Any] = answer.json()
        return found

    async def ended(self, rebuild_id: str, state: str) -> dict[str, Any]:
        async def over() -> dict[str, Any] | None:
            found = await self.shown(rebuild_id)
            return found if found["state"] == state else None

        ended: dict[str, Any] = await eventually(over, within_seconds=60)
        return ended


@asynccontextmanager
async def looping(*runtimes: Runtime) -> AsyncIterator[None]:
    """Run the worker role of services in this process; the producers hear only of replays."""
    stop = asyncio.Event()
    loops = [
        loop
        for runtime in runtimes
        for name, loop in worker_loops(runtime).items()
        if runtime.service is service
        or name in {"relay", "replay", f"consumer:{runtime.service.name}.platform"}
    ]
    tasks = [asyncio.create_task(loop(stop)) for loop in loops]
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)


@pytest.fixture
async def clinic(
    vhost: Servers, database_of: Callable[[Service], str], signer: TokenSigner, tmp_path: Path
) -> AsyncIterator[Clinic]:
    await declare_all(vhost.amqp_url, vhost.management_url, INSTALLED.split(","))
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    clock = FixedClock(datetime.now(UTC))
    common: dict[str, Any] = {
        "amqp_url": vhost.amqp_url,
        "signer": signer,
        "clock": clock,
        "subscribed_services": INSTALLED,
    }
    async with AsyncExitStack() as stack:
        made = {}
        for name in (*PRODUCERS, "reporting"):
            one = service
            if name != "reporting":
                one = Service(
                    name=name, package_dir=tmp_path / "package", routers=(), handlers=Handlers(name)
                )
            made[name] = await stack.enter_async_context(
                harness(one, database_url=database_of(one), **common)
            )
        yield Clinic(made.pop("reporting"), {name: each.runtime for name, each in made.items()})


@pytest.fixture
async def working(clinic: Clinic) -> AsyncIterator[Clinic]:
    async with looping(clinic.reporting.runtime, *clinic.producers.values()):
        yield clinic
