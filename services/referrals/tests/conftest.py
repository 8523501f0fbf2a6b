"""Two departments of one centre, a doctor in each, and a patient."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_referrals.app import service
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.testing import ServiceHarness, service_fixture

referrals = service_fixture(service)


@dataclass
class Clinic:
    referrals: ServiceHarness
    dermatology: UUID
    dietetics: UUID
    patient_id: UUID

    @property
    def sender(self) -> Principal:
        return self.doctor_of(self.dermatology)

    @property
    def receiver(self) -> Principal:
        return self.doctor_of(self.dietetics)

    def doctor_of(self, department_id: UUID) -> Principal:
        return self.referrals.principal("doctor", network=False, department_ids=frozenset({department_id}))

    def request(self, **changes: Any) -> dict[str, Any]:
        return {
            "patient_id": str(self.patient_id),
            "from_department_id": str(self.dermatology),
            "to_department_id": str(self.dietetics),
            "question": "Fictitious question",
        } | changes

    async def post(self, path: str, caller: Principal, body: dict[str, Any] | None = None) -> httpx.Response:
        return await self.referrals.http.post(
            f"/v1/referrals{path}", json=body or {}, headers=self.referrals.headers(caller)
        )

    async def create(self, **changes: Any) -> str:
        answer = await self.post("", self.sender, self.request(**changes))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["referral_id"])

    async def accepted(self) -> str:
        referral_id = await self.create()
        answer = await self.post(f"/{referral_id}/accept", self.receiver)
        assert answer.status_code == 200, answer.text
        return referral_id

    async def status_of(self, referral_id: str) -> str:
        answer = await self.referrals.http.get(
            f"/v1/referrals/{referral_id}", headers=self.referrals.headers(self.sender)
        )
        return str(answer.json()["status"])

    async def appointment(self, event: str, referral_id: str | None, appointment_id: UUID) -> None:
        await self.referrals.deliver_example(
            f"scheduling.{event}.v1",
            appointment_id=str(appointment_id),
            patient_id=str(self.patient_id),
            referral_id=referral_id,
        )


@pytest.fixture
async def clinic(referrals: ServiceHarness) -> Clinic:
    made = Clinic(referrals, uuid7(), uuid7(), uuid7())
    for department_id in (made.dermatology, made.dietetics):
        await referrals.deliver_example("identity.department-opened.v1", department_id=str(department_id))
    await referrals.deliver_example("patients.patient-registered.v1", patient_id=str(made.patient_id))
    return made
