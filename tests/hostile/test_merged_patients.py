"""A merge as patients tells it, heard by each service: one person by either record, and a stranger gains nothing."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clinic_shared.auth import TokenSigner
from clinic_shared.service import Service
from clinic_shared.testing import FixedClock, Servers, ServiceHarness
from clinic_shared.testing_examples import NAMED, OTHER_DEPARTMENT, service_named

HEARING = ("identity", "scheduling", "referrals", "billing", "audit")
LISTS = {"scheduling": "/v1/appointments", "referrals": "/v1/referrals", "billing": "/v1/invoices"}
LOGIN = "anna.testova@example.org"
REASON = {"reason": "Fictitious double registration"}


@dataclass
class Clinic:
    services: dict[str, ServiceHarness]

    async def call(
        self, name: str, method: str, path: str, by: str = "registrar", *, token: str = "", **sent: Any
    ) -> Any:
        """Call a service as somebody of a role, or with a token of identity's; returns what it answers."""
        service = self.services[name]
        headers = service.headers(service.principal(by))
        if token:
            headers["Authorization"] = f"Bearer {token}"
        answer = await service.http.request(method, path, headers=headers, **sent)
        assert answer.is_success, answer.text
        return answer.json()

    async def tell(self) -> None:
        """Let all services hear what patients has told so far; what they have heard before is a duplicate."""
        for event in await self.services["patients"].events():
            for name in HEARING:
                if event.type in self.services[name].service.handlers.subscriptions:
                    await self.services[name].deliver(
                        event.type,
                        event.data,
                        subject=event.subject,
                        version=event.aggregate_version,
                        event_id=event.event_id,
                    )

    async def register(self, given: str) -> str:
        name = {"family": "Testova", "given": given}
        person = {"name": name, "birth_on": "1990-01-01", "sex": "female", "centre_id": NAMED["centre_id"]}
        registered = await self.call("patients", "POST", "/v1/patients", json=person)
        await self.tell()
        return str(registered["patient_id"])

    async def prepare(self) -> None:
        """Offer a service that costs something, and somebody who renders it on weekdays."""
        offered = {
            "code": "dermatology-consultation",
            "name": "Consultation",
            "duration_seconds": 1800,
            "department_ids": [NAMED["department_id"]],
            "needs": ["practitioner"],
        }
        made = await self.call("scheduling", "POST", "/v1/services", "system-administrator", json=offered)
        self.service_id = made["service_id"]
        hours = [{"weekday": day, "starts_local": "09:00", "ends_local": "17:00"} for day in range(5)]
        weekly = {"practitioner_id": NAMED["staff_id"], "centre_id": NAMED["centre_id"], "weekly": hours}
        await self.call("scheduling", "PUT", "/v1/availability", json=weekly)
        price = {
            "service_code": offered["code"],
            "centre_id": NAMED["centre_id"],
            "amount_minor": 1000,
            "currency": "RUB",
            "valid_from": "2026-01-01",
        }
        await self.call("billing", "POST", "/v1/prices", "biller", json=price)

    async def care_for(self, patient_id: str, *, hour: int) -> dict[str, str]:
        """Book, refer and invoice; returns the id of each by service."""
        now = self.services["scheduling"].clock.now()
        booking = {
            "patient_id": patient_id,
            "service_id": self.service_id,
            "centre_id": NAMED["centre_id"],
            "department_id": NAMED["department_id"],
            "practitioner_id": NAMED["staff_id"],
            "starts_at": (now.replace(hour=hour, minute=0) + timedelta(days=1)).isoformat(),
        }
        booked = await self.call("scheduling", "POST", "/v1/appointments", json=booking)
        referral = {
            "patient_id": patient_id,
            "from_department_id": NAMED["department_id"],
            "to_department_id": OTHER_DEPARTMENT,
            "question": "Fictitious question",
        }
        referred = await self.call("referrals", "POST", "/v1/referrals", "doctor", json=referral)
        visit = {"appointment_id": booked["appointment_id"], "patient_id": patient_id}
        await self.services["billing"].deliver_example("scheduling.appointment-completed.v1", **visit)
        asked = {"appointment_id": booked["appointment_id"]}
        [invoice] = (await self.call("billing", "GET", "/v1/invoices", "biller", params=asked))["items"]
        return {
            "scheduling": booked["appointment_id"],
            "referrals": referred["referral_id"],
            "billing": invoice["invoice_id"],
        }

    async def seen(self, *, token: str = "", **query: str) -> dict[str, set[str]]:
        """Return what the lists show, by service: to the desk, or to whose token it is."""
        found = {}
        for name, path in LISTS.items():
            by = "biller" if name == "billing" else "registrar"
            items = (await self.call(name, "GET", path, by, token=token, params=query))["items"]
            key = {"scheduling": "appointment_id", "referrals": "referral_id", "billing": "invoice_id"}[name]
            found[name] = {item[key] for item in items}
        return found

    async def log_in(self, login: str, password: str) -> str:
        credentials = {"login": login, "password": password}
        return str((await self.call("identity", "POST", "/v1/auth/login", json=credentials))["access_token"])

    async def invite(self, patient_id: str, login: str) -> str:
        asked = {"patient_id": patient_id, "login": login}
        invited = await self.call("identity", "POST", "/v1/users/patients", json=asked)
        return str(invited["initial_password"])


@pytest.fixture
async def clinic(
    servers: Servers, database_of: Callable[[Service], str], signer: TokenSigner, tmp_path: Path
) -> AsyncIterator[Clinic]:
    clock = FixedClock()
    async with AsyncExitStack() as stack:
        started = {}
        for name in ("patients", *HEARING):
            running = service_named(
                name,
                database_of=database_of,
                amqp_url=servers.amqp_url,
                signer=signer,
                clock=clock,
                folder=tmp_path,
            )
            started[name] = await stack.enter_async_context(running)
        made = Clinic(started)
        await made.prepare()
        yield made


def together(*ids: dict[str, str]) -> dict[str, set[str]]:
    return {name: {one[name] for one in ids} for name in LISTS}


async def test_a_merge_reaches_every_service_and_its_undoing_too(clinic: Clinic) -> None:
    anna, double, stranger = [await clinic.register(name) for name in ("Anna", "Anne", "Sonya")]
    of_anna, of_double = await clinic.care_for(anna, hour=7), await clinic.care_for(double, hour=8)
    password = await clinic.invite(double, LOGIN)
    strangers = await clinic.log_in("+70000000002", await clinic.invite(stranger, "+70000000002"))
    assert await clinic.seen(token=await clinic.log_in(LOGIN, password)) == together(of_double)

    path = f"/v1/patients/{anna}"
    asked = await clinic.call(
        "patients", "POST", f"{path}/$merge", json={"source_patient_id": double, **REASON}
    )
    await clinic.tell()
    assert await clinic.seen(patient_id=anna) == together(of_anna)
    await clinic.call("patients", "POST", f"{path}/merges/{asked['merge_id']}/approve")
    await clinic.tell()
    person = await clinic.log_in(LOGIN, password)
    assert (await clinic.call("identity", "GET", "/v1/me", token=person))["patient_id"] == anna
    assert (await clinic.call("patients", "GET", path, token=person))["replaces"] == [double]
    await clinic.call("audit", "GET", f"{path}/access-log", token=person)
    for shown in (
        await clinic.seen(patient_id=anna),
        await clinic.seen(patient_id=double),
        await clinic.seen(token=person),
    ):
        assert shown == together(of_anna, of_double)
    assert (
        await clinic.seen(token=strangers)
        == together()
        == await clinic.seen(token=strangers, patient_id=anna)
    )

    await clinic.call("patients", "POST", f"{path}/merges/{asked['merge_id']}/undo", json=REASON)
    await clinic.tell()
    assert await clinic.seen(patient_id=anna) == together(of_anna)
    assert await clinic.seen(patient_id=double) == together(of_double)
    assert await clinic.seen(token=await clinic.log_in(LOGIN, password)) == together(of_double)
