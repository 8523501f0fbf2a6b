"""Identity with its real signing key, so that the tokens it issues and those of the harness both count."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from clinic_identity.app import service
from clinic_shared.auth import TokenSigner
from clinic_shared.events import audit_outbox
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.service import Service
from clinic_shared.testing import FixedClock, Servers, ServiceHarness, harness
from sqlalchemy import select

ADMIN_LOGIN = "admin@example.org"
ADMIN_PASSWORD = "only-for-these-tests"
CHEAP = {"password_iterations": 1, "password_memory_kib": 8, "password_threads": 2}


@pytest.fixture(scope="session")
def secrets_dir(signer: TokenSigner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "signing-key.pem").write_bytes(signer.key.as_pem(private=True))
    return folder


@dataclass
class Installation:
    """What it takes to start another identity process on the same database."""

    database_url: str
    amqp_url: str
    signer: TokenSigner
    clock: FixedClock
    settings: dict[str, Any] = field(default_factory=dict)

    def start(self, **changes: Any) -> Any:
        return harness(
            service,
            database_url=self.database_url,
            amqp_url=self.amqp_url,
            signer=self.signer,
            clock=self.clock,
            **{**self.settings, **changes},
        )


@pytest.fixture
def installation(
    servers: Servers,
    database_of: Callable[[Service], str],
    signer: TokenSigner,
    clock: FixedClock,
    secrets_dir: Path,
) -> Installation:
    settings = {
        **CHEAP,
        "secrets_dir": secrets_dir,
        "bootstrap_admin_login": ADMIN_LOGIN,
        "bootstrap_admin_password": ADMIN_PASSWORD,
    }
    return Installation(database_of(service), servers.amqp_url, signer, clock, settings)


@pytest_asyncio.fixture
async def identity(installation: Installation) -> AsyncIterator[ServiceHarness]:
    async with installation.start() as running:
        yield running


@dataclass
class Network:
    """A network of clinics as its administrator builds it, over HTTP."""

    identity: ServiceHarness
    admin: Principal

    async def post(self, path: str, body: Any = None, *, by: Principal | None = None) -> httpx.Response:
        headers = self.identity.headers(by or self.admin)
        return await self.identity.http.post(path, json=body if body is not None else {}, headers=headers)

    async def get(self, path: str, *, by: Principal | None = None) -> httpx.Response:
        return await self.identity.http.get(path, headers=self.identity.headers(by or self.admin))

    async def put(self, path: str, body: Any, *, version: int | None) -> httpx.Response:
        headers = self.identity.headers(self.admin)
        if version is not None:
            headers["If-Match"] = f'"{version}"'
        return await self.identity.http.put(path, json=body, headers=headers)

    def centre(self, **changes: Any) -> dict[str, Any]:
        return {
            "code": "test-centre",
            "name": "Test centre",
            "legal_entity": {"name": "Test Clinic Ltd"},
            "currency": "RUB",
            "time_zone": "Europe/Moscow",
            "language": "ru",
            "address": "1 Example Street, Testograd",
            "phone": "+70000000100",
            **changes,
        }

    async def open_centre(self, **changes: Any) -> dict[str, Any]:
        return _created(await self.post("/v1/centres", self.centre(**changes)))

    async def open_department(self, centre_id: str, code: str = "dermatology") -> dict[str, Any]:
        body = {"centre_id": centre_id, "code": code, "name": code.title(), "specialty": code}
        return _created(await self.post("/v1/departments", body))

    def member(self, **changes: Any) -> dict[str, Any]:
        return {
            "name": {"family": "Vracheva", "given": "Testina"},
            "login": "testina.vracheva@example.org",
            "roles": ["doctor"],
            "practitioner": True,
            "specialty": "dermatology",
            **changes,
        }

    async def add_member(self, **changes: Any) -> dict[str, Any]:
        return _created(await self.post("/v1/staff", self.member(**changes)))

    async def know_patient(self) -> UUID:
        patient_id = uuid7()
        await self.identity.deliver_example("patients.patient-registered.v1", patient_id=str(patient_id))
        return patient_id

    async def log_in(self, login: str, password: str, *, address: str = "203.0.113.7") -> httpx.Response:
        return await self.identity.http.post(
            "/v1/auth/login",
            json={"login": login, "password": password},
            headers={"X-Forwarded-For": address},
        )

    async def session_of(self, login: str, password: str) -> dict[str, Any]:
        answer = await self.log_in(login, password)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def refresh(self, refresh_token: str) -> httpx.Response:
        return await self.identity.http.post("/v1/auth/refresh", json={"refresh_token": refresh_token})

    async def audit(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the audit records that have these members, oldest first."""
        async with self.identity.runtime.database.transaction() as tx:
            rows = await tx.fetch_all(select(audit_outbox.c.record).order_by(audit_outbox.c.id))
        records = [json.loads(row.record) for row in rows]
        return [record for record in records if wanted.items() <= record.items()]

    async def with_token(self, method: str, path: str, token: str, body: Any = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return await self.identity.http.request(method, path, json=body, headers=headers)


def _created(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.fixture
def network(identity: ServiceHarness) -> Network:
    return Network(identity, identity.principal("system-administrator"))
