"""Opening a record in an emergency: who may, for how long, who is told, who judges it."""

from typing import Any
from uuid import UUID

import pytest
from clinic_patients.break_glass_domain import STARTS_A_DAY
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from .conftest import Clinic

REASON = {"reason_code": "emergency", "reason": "Вымышленная неотложная помощь"}


@pytest.fixture
async def stranger(clinic: Clinic) -> str:
    return str((await clinic.register(treated=False))["patient_id"])


async def open_record(
    clinic: Clinic, patient_id: str, caller: Principal | str = "doctor", **changes: Any
) -> Any:
    answer = await clinic.call("POST", f"/v1/patients/{patient_id}/break-glass", caller, REASON | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def reads(clinic: Clinic, patient_id: str, caller: Principal | str = "doctor") -> int:
    return (await clinic.call("GET", f"/v1/patients/{patient_id}/timeline", caller)).status_code


async def test_it_opens_one_record_to_one_person_for_an_hour(clinic: Clinic, stranger: str) -> None:
    other = str((await clinic.register(treated=False))["patient_id"])
    opened = await open_record(clinic, stranger)
    assert opened["state"] == "active"
    colleague = clinic.caller("doctor", subject=uuid7())
    seen = [
        await reads(clinic, stranger),
        await reads(clinic, other),
        await reads(clinic, stranger, colleague),
    ]
    assert seen == [200, 404, 404]
    clinic.patients.clock.advance(minutes=59)
    assert await reads(clinic, stranger) == 200
    clinic.patients.clock.advance(minutes=1)
    assert await reads(clinic, stranger) == 404


@pytest.mark.parametrize(
    "role", ["registrar", "management", "system-administrator", "biller", "privacy-officer", "patient"]
)
async def test_only_clinicians_do_it(clinic: Clinic, stranger: str, role: str) -> None:
    caller = clinic.patient(stranger) if role == "patient" else role
    answer = await clinic.call("POST", f"/v1/patients/{stranger}/break-glass", caller, REASON)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "wrong", [{"reason": "сто причин"[:9]}, {"reason": " " * 20}, {"reason_code": "curiosity"}]
)
async def test_it_needs_a_reason(clinic: Clinic, stranger: str, wrong: dict[str, str]) -> None:
    answer = await clinic.call("POST", f"/v1/patients/{stranger}/break-glass", "doctor", REASON | wrong)
    assert answer.status_code == 422
    assert await reads(clinic, stranger) == 404


async def test_nobody_s_record_is_opened(clinic: Clinic) -> None:
    answer = await clinic.call("POST", f"/v1/patients/{uuid7()}/break-glass", "doctor", REASON)
    assert answer.status_code == 404


async def test_it_opens_no_more_than_a_relationship_does(clinic: Clinic, stranger: str) -> None:
    await open_record(clinic, stranger)
    answer = await clinic.call(
        "POST",
        f"/v1/patients/{stranger}/consents",
        "doctor",
        {"kind": "messaging", "status": "granted", "text_version": "messaging-2026-01"},
    )
    assert answer.status_code == 403


async def test_whatever_is_read_under_it_is_marked_in_the_audit(clinic: Clinic, stranger: str) -> None:
    opened = await open_record(clinic, stranger)
    await reads(clinic, stranger)
    started, read = (await clinic.audited())[-2:]
    assert (started["entity"]["type"], started["details"]["code"]) == ("BreakGlass", "110127")
    assert started["details"]["purpose"] == "BTG"
    assert read["details"]["relationship"] == "break-glass"
    assert read["details"]["relationship_source"] == opened["break_glass_id"]
    assert REASON["reason"] not in str(await clinic.audited())


async def test_the_privacy_officer_hears_of_it_at_once_and_of_its_end(clinic: Clinic, stranger: str) -> None:
    opened = await open_record(clinic, stranger)
    [told] = await clinic.patients.events("patients.break-glass-started.v1")
    assert told.data["staff_id"] == str(clinic.doctor_id)
    assert REASON["reason"] not in str(told.data)
    [waiting] = (await clinic.read("/v1/break-glass", "privacy-officer"))["items"]
    assert waiting == opened
    clinic.patients.clock.advance(hours=2)
    await clinic.patients.fire_timers()
    [ended] = await clinic.patients.events("patients.break-glass-ended.v1")
    assert ended.data["ended_at"] == opened["ends_at"]
    assert (await clinic.audited())[-1]["details"]["code"] == "110138"


async def test_whoever_opened_it_closes_it_before_its_time(clinic: Clinic, stranger: str) -> None:
    opened = await open_record(clinic, stranger)
    path = f"/v1/break-glass/{opened['break_glass_id']}/end"
    assert (await clinic.call("POST", path, clinic.caller("doctor", subject=uuid7()))).status_code == 404
    assert (await clinic.call("POST", path, "doctor")).json()["state"] == "ended"
    assert await reads(clinic, stranger) == 404
    assert (await clinic.call("POST", path, "doctor")).status_code == 409


async def test_the_patient_is_told_a_day_later(clinic: Clinic, stranger: str) -> None:
    await open_record(clinic, stranger)
    path = f"/v1/patients/{stranger}/break-glass"
    assert await clinic.read(path, clinic.patient(stranger)) == []
    assert len(await clinic.read(path, "privacy-officer")) == 1
    clinic.patients.clock.advance(hours=24)
    [told] = await clinic.read(path, clinic.patient(stranger))
    assert told["staff_name"] == "Врачева Тестина Примеровна"
    assert "reason" not in told
    assert (await clinic.call("GET", path, clinic.patient(str(uuid7())))).status_code == 404


async def test_what_nobody_judges_in_time_is_complained_of(clinic: Clinic, stranger: str) -> None:
    await open_record(clinic, stranger)
    clinic.patients.clock.advance(hours=72)
    await clinic.patients.fire_timers()
    assert len(await clinic.patients.events("patients.break-glass-overdue.v1")) == 1
    [waiting] = (await clinic.read("/v1/break-glass", "privacy-officer"))["items"]
    assert waiting["overdue_at"] is not None


async def judged(clinic: Clinic, break_glass_id: str, verdict: str) -> int:
    body = {"verdict": verdict, "comment": "Вымышленное заключение"}
    path = f"/v1/break-glass/{break_glass_id}/review"
    return (await clinic.call("POST", path, "privacy-officer", body)).status_code


async def test_what_was_no_emergency_is_not_repeated(clinic: Clinic, stranger: str) -> None:
    opened = await open_record(clinic, stranger)
    assert await judged(clinic, opened["break_glass_id"], "unjustified") == 409
    await clinic.call("POST", f"/v1/break-glass/{opened['break_glass_id']}/end", "doctor")
    assert await judged(clinic, opened["break_glass_id"], "unjustified") == 200
    answer = await clinic.call("POST", f"/v1/patients/{stranger}/break-glass", "doctor", REASON)
    assert answer.status_code == 403
    assert answer.json()["type"].endswith("/break-glass-suspended")
    assert (await clinic.read("/v1/break-glass", "privacy-officer"))["items"] == []
    clinic.patients.clock.advance(days=91)
    assert (await open_record(clinic, stranger))["state"] == "active"


async def test_nobody_judges_themselves(clinic: Clinic, stranger: str) -> None:
    both = clinic.caller("doctor", "privacy-officer")
    opened = await open_record(clinic, stranger, both)
    await clinic.call("POST", f"/v1/break-glass/{opened['break_glass_id']}/end", both)
    body = {"verdict": "justified", "comment": "Вымышленное заключение"}
    answer = await clinic.call("POST", f"/v1/break-glass/{opened['break_glass_id']}/review", both, body)
    assert answer.status_code == 409


async def test_the_fourth_within_a_day_takes_a_second_clinician(clinic: Clinic, stranger: str) -> None:
    for _ in range(STARTS_A_DAY):
        await open_record(clinic, stranger)
    other = str((await clinic.register(treated=False))["patient_id"])
    asked = await open_record(clinic, other)
    assert asked["state"] == "requested"
    assert await reads(clinic, other) == 404
    path = f"/v1/break-glass/{asked['break_glass_id']}/approve"
    assert (await clinic.call("POST", path, "doctor")).status_code == 409
    colleague = clinic.caller("doctor", subject=uuid7())
    approved = (await clinic.call("POST", path, colleague)).json()
    assert (approved["state"], UUID(approved["approved_by"])) == ("active", colleague.subject)
    assert await reads(clinic, other) == 200
    assert await reads(clinic, other, colleague) == 404


async def test_two_that_wait_for_judgement_take_a_second_clinician(clinic: Clinic, stranger: str) -> None:
    opened = [await open_record(clinic, stranger) for _ in range(2)]
    clinic.patients.clock.advance(days=2)
    await clinic.patients.fire_timers()
    assert (await open_record(clinic, stranger))["state"] == "requested"
    assert await judged(clinic, opened[0]["break_glass_id"], "justified") == 200
    assert (await open_record(clinic, stranger))["state"] == "active"
