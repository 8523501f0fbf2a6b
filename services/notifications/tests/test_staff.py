"""Members of staff are told that something waits for their answer, wherever they are reached; never about whom."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_notifications import tables
from clinic_shared.ids import uuid7

from .conftest import PHONE, Clinic, wire

ADMIN = "system-administrator"
CONTACTS = "/v1/messages/staff-contacts"


async def reach(clinic: Clinic, staff_id: UUID, *roles: str, **contact: Any) -> httpx.Response:
    caller = clinic.notifications.principal(*(roles or (ADMIN,)))
    return await clinic.notifications.http.put(
        f"{CONTACTS}/{staff_id}", json=contact, headers=clinic.notifications.headers(caller)
    )


async def assign(clinic: Clinic, staff_id: UUID, obligation_id: UUID, **changes: Any) -> None:
    known: dict[str, Any] = {
        "obligation_id": str(obligation_id),
        "version": 1,
        "owner_id": str(staff_id),
        "centre_id": str(clinic.centre_id),
        "department_id": str(clinic.department_id),
        "due_at": wire(clinic.notifications.clock.now() + timedelta(hours=1)),
    }
    await clinic.notifications.deliver_example("lab-integration.obligation-assigned.v1", **known | changes)


@pytest.fixture
async def doctor(clinic: Clinic) -> UUID:
    staff_id = uuid7()
    answer = await reach(clinic, staff_id, phone=PHONE, language="en", channels=["sms"])
    assert answer.status_code == 200, answer.text
    return staff_id


async def test_whoever_is_asked_is_told_with_the_task_and_nothing_of_the_patient(
    clinic: Clinic, doctor: UUID
) -> None:
    obligation_id = uuid7()
    await assign(clinic, doctor, obligation_id)
    await clinic.send_due()
    await clinic.callbacks_done()
    [received] = await clinic.inbox()
    assert (received["channel"], received["to"]) == ("sms", PHONE)
    assert "critical" in received["text"]
    assert str(obligation_id) in received["text"]
    [message] = await clinic.messages()
    assert (message["staff_id"], message["patient_id"]) == (str(doctor), None)
    assert (message["status"], message["purpose"]) == ("delivered", "critical-result")
    queued = (await clinic.notifications.events("notifications.message-queued.v1"))[0]
    assert queued.data["patient_id"] is None


async def test_each_who_is_asked_is_told_once(clinic: Clinic, doctor: UUID) -> None:
    obligation_id, head = uuid7(), uuid7()
    await reach(clinic, head, email="head@example.org", channels=["sms", "email"])
    for _ in range(2):
        await assign(clinic, doctor, obligation_id)
    await assign(clinic, head, obligation_id, version=2)
    await clinic.send_due()
    assert sorted(m["channel"] for m in await clinic.inbox()) == ["email", "sms"]


async def test_a_vendor_that_refuses_is_followed_by_the_next_channel(clinic: Clinic) -> None:
    staff_id = uuid7()
    await reach(clinic, staff_id, phone=PHONE, channels=["whatsapp", "sms"])
    await clinic.fault("whatsapp", code="132015")
    await assign(clinic, staff_id, uuid7(), kind="retraction")
    await clinic.send_due()
    await clinic.send_due()
    assert [(m["channel"], m["status"]) for m in await clinic.messages(purpose="answer-needed")] == [
        ("whatsapp", "failed"),
        ("sms", "sent"),
    ]


async def test_of_somebody_who_can_t_be_reached_the_ledger_of_messages_says_so(clinic: Clinic) -> None:
    await assign(clinic, uuid7(), uuid7())
    await clinic.send_due()
    [message] = await clinic.messages()
    assert (message["status"], message["failure_code"]) == ("failed", "no-address")


async def test_what_is_answered_by_then_or_asked_of_the_next_is_not_told_late(
    clinic: Clinic, doctor: UUID
) -> None:
    await assign(clinic, doctor, uuid7())
    clinic.notifications.clock.advance(hours=2)
    await clinic.send_due()
    assert [m["status"] for m in await clinic.messages()] == ["expired"]
    assert await clinic.inbox() == []


async def test_a_patient_doesn_t_see_what_staff_are_told(clinic: Clinic, doctor: UUID) -> None:
    await assign(clinic, doctor, uuid7())
    [row] = await clinic.rows(tables.message)
    patient = clinic.notifications.principal("patient", patient_id=clinic.patient_id)
    answer = await clinic.notifications.http.get(
        f"/v1/messages/{row['message_id']}", headers=clinic.notifications.headers(patient)
    )
    assert answer.status_code == 404


async def test_contacts_are_the_administrator_s_and_change_by_version(clinic: Clinic, doctor: UUID) -> None:
    assert (await reach(clinic, doctor, "registrar", phone=PHONE)).status_code == 403
    assert (await reach(clinic, doctor, phone="12")).status_code == 422
    shown = await clinic.get(f"{CONTACTS}/{doctor}", ADMIN)
    assert (shown.json()["version"], shown.json()["channels"]) == (1, ["sms"])
    caller = clinic.notifications.headers(clinic.notifications.principal(ADMIN)) | {"If-Match": '"7"'}
    stale = await clinic.notifications.http.put(f"{CONTACTS}/{doctor}", json={"phone": PHONE}, headers=caller)
    assert stale.status_code == 412
