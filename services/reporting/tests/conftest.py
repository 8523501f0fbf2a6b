"""A centre in Moscow with two departments, and one in Omsk with one: three hours between their days."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_reporting import tables
from clinic_reporting.app import service
from clinic_reporting.figures import ReferralStage
from clinic_shared.events import wire_instant
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.testing import MONDAY, ServiceHarness, service_fixture
from sqlalchemy import select

reporting = service_fixture(service)

PERIOD = {"starts_on": "2026-03-02", "ends_on": "2026-03-09"}


@dataclass
class Network:
    reporting: ServiceHarness
    moscow: UUID
    omsk: UUID
    dermatology: UUID
    dietetics: UUID
    omsk_dentistry: UUID

    @property
    def departments(self) -> dict[UUID, UUID]:
        """Each department's centre."""
        return {self.dermatology: self.moscow, self.dietetics: self.moscow, self.omsk_dentistry: self.omsk}

    async def get(self, report: str, caller: Principal | None = None, **query: Any) -> httpx.Response:
        reader = caller or self.reporting.principal("management")
        headers = self.reporting.headers(reader)
        asked = {name: str(value) for name, value in {**PERIOD, **query}.items()}
        return await self.reporting.http.get(f"/v1/reports/{report}", params=asked, headers=headers)

    async def items(self, report: str, caller: Principal | None = None, **query: Any) -> list[dict[str, Any]]:
        answer = await self.get(report, caller, **query)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["items"]
        return found

    async def appointment(self, event: str, department_id: UUID, **changes: Any) -> UUID:
        """Deliver an appointment event, such as `appointment-booked`; returns the appointment's id."""
        appointment_id = changes.pop("appointment_id", None) or uuid7()
        await self.reporting.deliver_example(
            f"scheduling.{event}.v1",
            appointment_id=str(appointment_id),
            centre_id=str(self.departments[department_id]),
            department_id=str(department_id),
            **changes,
        )
        return UUID(str(appointment_id))

    async def read_model(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of every table, in a fixed order."""
        async with self.reporting.runtime.database.transaction() as tx:
            return {
                name: sorted((tuple(row) for row in await tx.fetch_all(select(table))), key=repr)
                for name, table in tables.metadata.tables.items()
            }


@pytest.fixture
async def network(reporting: ServiceHarness) -> Network:
    made = Network(reporting, uuid7(), uuid7(), uuid7(), uuid7(), uuid7())
    zones = {made.moscow: ("Moscow", "Europe/Moscow"), made.omsk: ("Omsk", "Asia/Omsk")}
    for centre_id, (name, time_zone) in zones.items():
        await reporting.deliver_example(
            "identity.centre-opened.v1", centre_id=str(centre_id), name=name, time_zone=time_zone
        )
    names = {made.dermatology: "Dermatology", made.dietetics: "Dietetics", made.omsk_dentistry: "Dentistry"}
    for department_id, centre_id in made.departments.items():
        await reporting.deliver_example(
            "identity.department-opened.v1",
            department_id=str(department_id),
            centre_id=str(centre_id),
            name=names[department_id],
        )
    return made


@dataclass(frozen=True)
class Told:
    """One event of a generated stream."""

    event_type: str
    version: int
    occurred_at: datetime
    changes: dict[str, Any]


APPOINTMENT_LIVES = (
    ("appointment-booked",),
    ("appointment-booked", "appointment-rescheduled", "appointment-confirmed"),
    ("appointment-booked", "appointment-confirmed", "patient-arrived", "appointment-completed"),
    ("appointment-booked", "patient-arrived", "appointment-completed"),
    ("appointment-booked", "appointment-rescheduled", "appointment-missed"),
    ("appointment-booked", "appointment-cancelled"),
)
REFERRAL_LIVES = (
    ("created",),
    ("created", "declined", "closed"),
    ("created", "accepted", "booked"),
    ("created", "accepted", "booked", "seen", "reported", "closed"),
)
RESULT_LIVES = (
    (("received", "final"),),
    (("received", "preliminary"), ("received", "final")),
    (("received", "final"), ("corrected", "corrected")),
    (("received", "final"), ("retracted", "entered-in-error")),
)
TWO, ONE = ("active", "active"), ("active", "merged")
REGISTRY_LIVES = ((TWO,), (TWO, ONE), (TWO, ONE, TWO))
MESSAGE_LIVES = (("queued",), ("queued", "sent", "delivered"), ("queued", "failed"))


class Stream:
    """Random, legal lives of everything that reports count, spread over a fortnight and all departments."""

    def __init__(self, network: Network, seed: int) -> None:
        self.random = Random(seed)
        self.network = network
        self.told: list[Told] = []
        for _ in range(8):
            self._appointment()
            self._referral()
            self._laboratory()
            self._money()
            self._message()
            self._registry()
            self._others()
        self.told.sort(key=lambda told: told.occurred_at)

    def _moment(self) -> datetime:
        return MONDAY + timedelta(minutes=self.random.randrange(-2 * 24 * 60, 10 * 24 * 60))

    def _place(self) -> dict[str, str]:
        department_id, centre_id = self.random.choice(list(self.network.departments.items()))
        return {"centre_id": str(centre_id), "department_id": str(department_id)}

    def _tell(self, event_type: str, version: int, occurred_at: datetime, **changes: Any) -> None:
        self.told.append(Told(event_type, version, occurred_at, changes))

    def _appointment(self) -> None:
        appointment_id, place, booked_at = str(uuid7()), self._place(), self._moment()
        service_code = self.random.choice(["consultation", "procedure"])
        for step, name in enumerate(self.random.choice(APPOINTMENT_LIVES)):
            starts_at = booked_at + timedelta(hours=6 + (24 if name == "appointment-rescheduled" else 0))
            self._tell(
                f"scheduling.{name}.v1",
                step + 1,
                booked_at + timedelta(hours=step),
                appointment_id=appointment_id,
                service_code=service_code,
                starts_at=wire_instant(starts_at),
                ends_at=wire_instant(starts_at + timedelta(seconds=self.random.randrange(300, 7200))),
                **place,
            )

    def _referral(self) -> None:
        sender, receiver, created_at = self._place(), self._place(), self._moment()
        ends = {f"from_{name}": value for name, value in sender.items()}
        ends |= {f"to_{name}": value for name, value in receiver.items()}
        stages: dict[str, Any] = {f"{stage.value}_at": None for stage in ReferralStage}
        referral_id, moment = str(uuid7()), created_at
        for step, name in enumerate(self.random.choice(REFERRAL_LIVES)):
            stages |= {f"{name}_at": wire_instant(moment), "created_at": wire_instant(created_at)}
            self._tell(
                f"referrals.referral-{name}.v1", step + 1, moment, referral_id=referral_id, **ends, **stages
            )
            moment += timedelta(seconds=self.random.randrange(60, 86_400))

    def _laboratory(self) -> None:
        order_id, result_id, place, placed_at = str(uuid7()), str(uuid7()), self._place(), self._moment()
        here: dict[str, Any] = {"lab_order_id": order_id, **place}
        self._tell(
            "lab-integration.lab-order-placed.v1", 1, placed_at, **here, placed_at=wire_instant(placed_at)
        )
        if self.random.random() < 0.2:
            here = {"lab_order_id": None, "centre_id": None, "department_id": None}
        moment = placed_at
        for step, (name, status) in enumerate(self.random.choice(RESULT_LIVES)):
            moment += timedelta(seconds=self.random.randrange(600, 86_400))
            result = {"result_id": result_id, "status": status, **here}
            self._tell(
                f"lab-integration.lab-result-{name}.v1",
                step + 1,
                moment,
                **result,
                critical_count=self.random.randrange(2),
                received_at=wire_instant(moment),
            )
            filed_at = moment + timedelta(seconds=self.random.randrange(1, 60))
            self._tell(
                "patients.lab-result-filed.v1", step + 1, filed_at, **result, filed_at=wire_instant(filed_at)
            )
        self._tell(
            "lab-integration.critical-result-raised.v1",
            1,
            moment,
            obligation_id=str(uuid7()),
            centre_id=here["centre_id"],
            department_id=here["department_id"],
            raised_at=wire_instant(moment),
        )

    def _money(self) -> None:
        payment_id, moment = str(uuid7()), self._moment()
        place: dict[str, Any] = self._place()
        if self.random.random() < 0.2:
            place["department_id"] = None
        amount, currency = self.random.randrange(100, 1_000_000), self.random.choice(["RUB", "KZT"])
        money = {"currency": currency, **place}
        self._tell(
            "billing.invoice-issued.v1",
            1,
            moment,
            invoice_id=str(uuid7()),
            total_minor=amount,
            issued_at=wire_instant(moment),
            **money,
        )
        moment += timedelta(hours=self.random.randrange(1, 48))
        paid = {"payment_id": payment_id, **money}
        self._tell(
            "billing.payment-received.v1",
            1,
            moment,
            amount_minor=amount,
            received_at=wire_instant(moment),
            **paid,
        )
        for part in range(self.random.randrange(3)):
            moment += timedelta(hours=1)
            self._tell(
                "billing.payment-refunded.v1",
                part + 2,
                moment,
                refund_id=str(uuid7()),
                amount_minor=amount // 4 + 1,
                refunded_at=wire_instant(moment),
                **paid,
            )

    def _message(self) -> None:
        message_id, place, moment = str(uuid7()), self._place(), self._moment()
        for step, name in enumerate(self.random.choice(MESSAGE_LIVES)):
            self._tell(
                f"notifications.message-{name}.v1",
                step + 1,
                moment + timedelta(minutes=step),
                message_id=message_id,
                queued_at=wire_instant(moment),
                **place,
            )

    def _registry(self) -> None:
        """Two records of one person: each step of a merge tells the state of both."""
        moment, centre_id = self._moment(), self._place()["centre_id"]
        records = str(uuid7()), str(uuid7())
        for step, statuses in enumerate(self.random.choice(REGISTRY_LIVES)):
            for patient_id, status in zip(records, statuses, strict=True):
                self._tell(
                    f"patients.patient-{'updated' if step else 'registered'}.v1",
                    step + 1,
                    moment + timedelta(hours=step),
                    patient_id=patient_id,
                    status=status,
                    centre_id=centre_id,
                    registered_at=wire_instant(moment),
                )

    def _others(self) -> None:
        place, moment = self._place(), self._moment()
        now = wire_instant(moment)
        self._tell(
            "patients.patient-registered.v1",
            1,
            moment,
            patient_id=str(uuid7()),
            centre_id=place["centre_id"],
            registered_at=now,
        )
        self._tell(
            "patients.encounter-recorded.v1", 1, moment, encounter_id=str(uuid7()), started_at=now, **place
        )
        self._tell(
            "patients.prescription-issued.v1", 1, moment, prescription_id=str(uuid7()), issued_at=now, **place
        )
        self._tell("patients.consent-changed.v1", 1, moment, consent_id=str(uuid7()), changed_at=now)
        self._tell(
            "identity.staff-member-added.v1",
            1,
            moment,
            staff_id=str(uuid7()),
            department_ids=[str(d) for d in self.random.sample(list(self.network.departments), 2)],
        )


async def hear(network: Network, told: Iterable[Told]) -> None:
    """Deliver events in this order, each as one that nobody has seen before."""
    clock = network.reporting.clock
    for each in told:
        clock.advance(seconds=(each.occurred_at - clock.now()).total_seconds())
        await network.reporting.deliver_example(each.event_type, version=each.version, **each.changes)
    clock.advance(seconds=(MONDAY - clock.now()).total_seconds())
