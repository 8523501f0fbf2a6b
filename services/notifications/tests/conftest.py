"""A clinic that writes to its patients through the vendors' fakes, over real HTTP in both directions."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_local.fakes.in_process import running_fakes, serving
from clinic_notifications import tables
from clinic_notifications.app import intake_worker, service
from clinic_notifications.sending import Sender
from clinic_shared.app import create_app
from clinic_shared.auth import TokenSigner
from clinic_shared.ids import uuid7
from clinic_shared.service import Service
from clinic_shared.testing import (
    FixedClock,
    Servers,
    ServiceHarness,
    eventually,
    harness,
    service_fixture,
)
from sqlalchemy import Table, select, text
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

PHONE = "+70000000001"
MAIL = "anna.testova@example.org"

OPENS = {
    fields.table: fields for fields in (tables.CONTACTS, tables.STAFF_CONTACTS, tables.WORDS, tables.REPLIES)
}

notifications = service_fixture(service)


@dataclass
class Clinic:
    """Its `fakes` are the vendors: what they received, and what goes wrong with them next."""

    notifications: ServiceHarness
    fakes: httpx.AsyncClient
    gate: "Gate"
    centre_id: UUID = field(default_factory=uuid7)
    department_id: UUID = field(default_factory=uuid7)
    patient_id: UUID = field(default_factory=uuid7)

    # -- what comes from other services

    async def open(self) -> None:
        await self.notifications.deliver_example("identity.centre-opened.v1", centre_id=str(self.centre_id))
        await self.notifications.deliver_example(
            "identity.department-opened.v1",
            department_id=str(self.department_id),
            centre_id=str(self.centre_id),
        )
        await self.register(self.patient_id)

    async def register(self, patient_id: UUID | None = None, **private: Any) -> UUID:
        patient_id = patient_id or uuid7()
        known = {"phones": [PHONE], "emails": [MAIL], "language": "ru"}
        await self.notifications.deliver_example(
            "patients.patient-registered.v1", patient_id=str(patient_id), **known | private
        )
        return patient_id

    @property
    def in_two_days(self) -> datetime:
        """Ten o'clock in Moscow, two days after the test's today."""
        return self.notifications.clock.now().replace(hour=7, minute=0) + timedelta(days=2)

    async def appointment(self, what: str, appointment_id: UUID, version: int = 1, **changes: Any) -> None:
        """Deliver an event of scheduling's, such as `booked`."""
        starts_at = changes.pop("starts_at", self.in_two_days)
        known = {
            "appointment_id": str(appointment_id),
            "patient_id": str(changes.pop("patient_id", self.patient_id)),
            "centre_id": str(self.centre_id),
            "department_id": str(self.department_id),
            "starts_at": wire(starts_at),
            "ends_at": wire(starts_at + timedelta(minutes=30)),
        }
        await self.notifications.deliver_example(
            f"scheduling.appointment-{what}.v1", version=version, **known | changes
        )

    async def book(self, **changes: Any) -> UUID:
        appointment_id = uuid7()
        await self.appointment("booked", appointment_id, **changes)
        return appointment_id

    # -- time and the vendors

    async def send_due(self) -> int:
        return await Sender(self.notifications.runtime).send_due()

    async def tick(self) -> None:
        """Let the timers fire that are due, and what they queued go out."""
        await self.notifications.fire_timers()
        await self.send_due()

    async def try_now(self) -> int:
        """Send as if every back-off and grace had passed."""
        async with self.notifications.runtime.database.transaction() as tx:
            await tx.execute(text("UPDATE message SET next_attempt_at = '2000-01-01Z'"))
        return await self.send_due()

    async def inbox(self, **query: str) -> list[dict[str, Any]]:
        """Return what the fakes received, oldest first."""
        answer = await self.fakes.get("/_control/inbox", params={"limit": "500", **query})
        items: list[dict[str, Any]] = answer.json()["items"]
        return items[::-1]

    async def fault(self, vendor: str, **fault: Any) -> None:
        answer = await self.fakes.post("/_control/faults", json={"vendor": vendor, **fault})
        assert answer.status_code == 204, answer.text

    async def behave(self, **behaviour: Any) -> None:
        assert (await self.fakes.put("/_control/behaviour", json=behaviour)).status_code == 204

    def lose_patience(self) -> None:
        """Wait only so long for the vendors that a fault of two seconds is a time-out."""
        self.notifications.runtime.get(httpx.AsyncClient).timeout = httpx.Timeout(1)

    async def callbacks_done(self) -> None:
        async def quiet() -> bool:
            deliveries = (await self.fakes.get("/_control/deliveries")).json()
            return bool(deliveries["pending"] == 0)

        await eventually(quiet)
        await self.work_off()

    async def work_off(self) -> None:
        """Let what vendors called back with take effect."""
        worker = intake_worker(self.notifications.runtime)
        while await worker.process_waiting():
            continue

    # -- what it says

    async def get(self, path: str, *roles: str, **query: str) -> httpx.Response:
        caller = self.notifications.principal(*(roles or ("registrar",)))
        return await self.notifications.http.get(
            path, params=query, headers=self.notifications.headers(caller)
        )

    async def messages(self, **query: str) -> list[dict[str, Any]]:
        answer = await self.get("/v1/messages", limit="200", **query)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def statuses(self, **query: str) -> list[str]:
        return [message["status"] for message in await self.messages(**query)]

    async def rows(self, table: Table) -> list[dict[str, Any]]:
        async with self.notifications.runtime.database.transaction() as tx:
            rows = await tx.fetch_all(select(table))
            return [vars(OPENS[table].opened(tx, row)) if table in OPENS else row._asdict() for row in rows]

    async def event_names(self) -> list[str]:
        return [row.type.split(".")[1] for row in await self.notifications.events()]


def wire(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


@dataclass
class Gate:
    """The fakes call an address that has to exist before the service that will answer there."""

    app: ASGIApp | None = None
    open: bool = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        assert self.app is not None
        await (self.app if self.open else Response(status_code=503))(scope, receive, send)


@pytest.fixture
async def clinic(
    servers: Servers, database_of: Callable[[Service], str], signer: TokenSigner, clock: FixedClock
) -> AsyncIterator[Clinic]:
    gate = Gate()
    async with (
        serving(gate) as url,
        running_fakes(url, fakes_callback_delay_seconds=0.01, fakes_retry_base_seconds=0.05) as fakes_url,
        httpx.AsyncClient(base_url=fakes_url, trust_env=False) as fakes,
        harness(
            service,
            database_url=database_of(service),
            amqp_url=servers.amqp_url,
            signer=signer,
            clock=clock,
            url=url,
            fakes_url=fakes_url,
            whatsapp_base_url=fakes_url,
            twilio_base_url=fakes_url,
            postmark_base_url=fakes_url,
        ) as notifications,
    ):
        gate.app = create_app(service, notifications.runtime)
        made = Clinic(notifications, fakes, gate)
        await made.open()
        yield made
        gate.open = True
        await made.callbacks_done()
