"""One centre with one department and a doctor; people with obviously made-up names."""

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_patients import care
from clinic_patients.app import service
from clinic_patients.care_domain import CareKind, CareRelationship
from clinic_shared import contracts
from clinic_shared.events import audit_outbox
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.testing import ServiceHarness, service_fixture
from sqlalchemy import Table, select

patients = service_fixture(service)

LAB = "lab-integration.lab-result"


@dataclass
class Clinic:
    """The service, with what it knows of identity, and short ways to call it."""

    patients: ServiceHarness
    centre_id: UUID = field(default_factory=uuid7)
    department_id: UUID = field(default_factory=uuid7)
    doctor_id: UUID = field(default_factory=uuid7)

    def caller(self, *roles: str, **claims: Any) -> Principal:
        if roles == ("doctor",):
            claims = {"subject": self.doctor_id, **claims}
        return self.patients.principal(*roles, **claims)

    async def call(
        self, method: str, path: str, caller: Principal | str = "registrar", body: Any = None, **headers: str
    ) -> httpx.Response:
        principal = self.caller(caller) if isinstance(caller, str) else caller
        sent = self.patients.headers(principal) | {k.replace("_", "-"): v for k, v in headers.items()}
        return await self.patients.http.request(method, path, json=body, headers=sent)

    def person(self, **changes: Any) -> dict[str, Any]:
        return {
            "name": {"family": "Тестова", "given": "Анна", "patronymic": "Примеровна"},
            "birth_on": "1990-01-01",
            "sex": "female",
            "phones": ["8 (000) 000-00-01"],
            "emails": ["anna.testova@example.org"],
            "language": "ru",
            "centre_id": str(self.centre_id),
            **changes,
        }

    async def register(self, *, treated: bool = True, **changes: Any) -> dict[str, Any]:
        """Register somebody whom the doctor treats."""
        answer = await self.call("POST", "/v1/patients", body=self.person(**changes))
        assert answer.status_code == 201, answer.text
        if treated:
            await self.treat(answer.json()["patient_id"])
        return dict(answer.json())

    async def treat(self, patient_id: str, **changes: Any) -> CareRelationship:
        """Put a patient into the doctor's care."""
        now = self.patients.clock.now()
        values: dict[str, Any] = {
            "kind": CareKind.APPOINTMENT,
            "source_id": uuid7(),
            "version": 1,
            "patient_id": UUID(patient_id),
            "practitioner_id": self.doctor_id,
            "centre_id": None,
            "department_id": None,
            "begins_at": now - timedelta(days=1),
            "ends_at": now + timedelta(days=1),
            **changes,
        }
        relationship = CareRelationship(**values)
        async with self.patients.runtime.database.transaction() as tx:
            await care.keep(tx, [relationship])
        return relationship

    async def named(self, family: str, given: str | None = None, patronymic: str | None = None) -> str:
        name = {"family": family, "given": given, "patronymic": patronymic}
        return str((await self.register(name=name))["patient_id"])

    async def find(self, **criteria: Any) -> list[str]:
        answer = await self.call("POST", "/v1/patients/search", body=criteria)
        assert answer.status_code == 200, answer.text
        return [item["patient_id"] for item in answer.json()["items"]]

    async def read(self, path: str, caller: Principal | str = "doctor") -> Any:
        answer = await self.call("GET", path, caller)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def patient(self, patient_id: str) -> Principal:
        """The patient's own login."""
        return self.caller("patient", patient_id=UUID(patient_id))

    async def lab_result(self, event: str, *, event_id: UUID | None = None, **changes: Any) -> str:
        """Deliver a lab result's event (`received`, `corrected`, `retracted`); returns the disposition."""
        example = contracts.examples(f"{LAB}-{event}.v1")[0]
        data = {**example["data"], **{k: v for k, v in changes.items() if k in example["data"]}}
        private = dict(example.get("private") or {})
        private.update({k: v for k, v in changes.items() if k not in data})
        return await self.patients.deliver(
            f"{LAB}-{event}.v1", data, private or None, version=data["version"], event_id=event_id
        )

    async def audited(self) -> list[dict[str, Any]]:
        """Return the audit records so far, oldest first."""
        async with self.patients.runtime.database.transaction() as tx:
            found = await tx.fetch_all(select(audit_outbox.c.record).order_by(audit_outbox.c.id))
        return [json.loads(row.record) for row in found]

    async def rows(self, table: Table) -> list[dict[str, Any]]:
        async with self.patients.runtime.database.transaction() as tx:
            return [dict(row._mapping) for row in await tx.fetch_all(select(table))]


@pytest.fixture
async def clinic(patients: ServiceHarness) -> Clinic:
    made = Clinic(patients)
    await patients.deliver_example("identity.centre-opened.v1", centre_id=str(made.centre_id))
    await patients.deliver_example(
        "identity.department-opened.v1",
        department_id=str(made.department_id),
        centre_id=str(made.centre_id),
    )
    await patients.deliver_example("identity.staff-member-added.v1", staff_id=str(made.doctor_id))
    return made
