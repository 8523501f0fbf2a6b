"""A small clinic: one centre in Moscow, one department, a practitioner, a room, a service, a patient."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_scheduling.app import service
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness, service_fixture

scheduling = service_fixture(service)


@dataclass
class Clinic:
    scheduling: ServiceHarness
    centre_id: UUID
    department_id: UUID
    practitioner_id: UUID
    room_id: UUID
    service_id: UUID
    patient_id: UUID

    @property
    def tomorrow_at_ten(self) -> datetime:
        """Ten o'clock in Moscow on the day after the test's today."""
        return self.scheduling.clock.now().replace(hour=7, minute=0) + timedelta(days=1)

    def booking(self, **changes: Any) -> dict[str, Any]:
        body = {
            "patient_id": str(self.patient_id),
            "service_id": str(self.service_id),
            "centre_id": str(self.centre_id),
            "department_id": str(self.department_id),
            "practitioner_id": str(self.practitioner_id),
            "room_id": str(self.room_id),
            "starts_at": self.tomorrow_at_ten.isoformat(),
        }
        return body | {name: str(value) for name, value in changes.items()}

    async def post(
        self, path: str, body: dict[str, Any] | None = None, *roles: str, **headers: str
    ) -> httpx.Response:
        caller = self.scheduling.principal(*(roles or ("registrar",)))
        return await self.scheduling.http.post(
            path, json=body or {}, headers=self.scheduling.headers(caller) | headers
        )

    async def book(self, **changes: Any) -> httpx.Response:
        return await self.post("/v1/appointments", self.booking(**changes))

    async def add_patient(self) -> UUID:
        patient_id = uuid7()
        await self.scheduling.deliver_example("patients.patient-registered.v1", patient_id=str(patient_id))
        return patient_id

    async def add_practitioner(self) -> UUID:
        """Add one who works in the department every weekday from nine to five."""
        practitioner_id = uuid7()
        await self.scheduling.deliver_example(
            "identity.staff-member-added.v1",
            staff_id=str(practitioner_id),
            department_ids=[str(self.department_id)],
        )
        hours = [{"weekday": day, "starts_local": "09:00", "ends_local": "17:00"} for day in range(5)]
        body = {"practitioner_id": str(practitioner_id), "centre_id": str(self.centre_id), "weekly": hours}
        answer = await self.scheduling.http.put(
            "/v1/availability",
            json=body,
            headers=self.scheduling.headers(self.scheduling.principal("registrar")),
        )
        assert answer.status_code == 200, answer.text
        return practitioner_id

    async def add_room(self) -> UUID:
        body = {"name": "Room 1", "centre_id": str(self.centre_id)}
        answer = await self.post("/v1/rooms", body, "system-administrator")
        assert answer.status_code == 201, answer.text
        return UUID(answer.json()["resource_id"])

    async def add_service(self, code: str = "dermatology-consultation") -> UUID:
        body = {
            "code": code,
            "name": "Consultation",
            "duration_seconds": 1800,
            "department_ids": [str(self.department_id)],
            "needs": ["practitioner", "room"],
        }
        answer = await self.post("/v1/services", body, "system-administrator")
        assert answer.status_code == 201, answer.text
        return UUID(answer.json()["service_id"])


@pytest.fixture
async def clinic(scheduling: ServiceHarness) -> Clinic:
    made = Clinic(scheduling, uuid7(), uuid7(), uuid7(), uuid7(), uuid7(), uuid7())
    await scheduling.deliver_example("identity.centre-opened.v1", centre_id=str(made.centre_id))
    await scheduling.deliver_example(
        "identity.department-opened.v1",
        department_id=str(made.department_id),
        centre_id=str(made.centre_id),
    )
    made.practitioner_id = await made.add_practitioner()
    made.room_id = await made.add_room()
    made.service_id = await made.add_service()
    made.patient_id = await made.add_patient()
    return made
