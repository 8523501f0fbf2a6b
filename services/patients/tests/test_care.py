"""Whom staff reach, and why: care relationships as they follow from events, and what the audit is told."""

import importlib.util
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from clinic_patients import care_telling, tables
from clinic_patients.app import service
from clinic_shared import contracts
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.timers import Timer
from sqlalchemy import delete, text

from .conftest import Clinic
from .test_chart import CHART, visit

BOOKED = "scheduling.appointment-booked.v1"


@pytest.fixture
async def stranger(clinic: Clinic) -> str:
    """Somebody whom nobody treats yet."""
    return str((await clinic.register(treated=False))["patient_id"])


async def status(clinic: Clinic, patient_id: str, caller: Principal | str = "doctor") -> int:
    return (await clinic.call("GET", f"/v1/patients/{patient_id}/timeline", caller)).status_code


async def happened(clinic: Clinic, event: str, patient_id: str, **changes: Any) -> dict[str, Any]:
    """Deliver an event about the patient that happens today."""
    today = clinic.patients.clock.now().isoformat().replace("+00:00", "Z")
    times = {"starts_at": today, "placed_at": today, "created_at": today}
    known = {"patient_id": patient_id, **times, **changes}
    fields = contracts.examples(event)[0]["data"].keys() | {"version"}
    return await clinic.patients.deliver_example(event, **{k: v for k, v in known.items() if k in fields})


async def denials(clinic: Clinic) -> list[dict[str, Any]]:
    return [record for record in await clinic.audited() if record["outcome"] == "4"]


async def test_a_patient_of_nobody_answers_like_nobody(clinic: Clinic, stranger: str) -> None:
    for path in ("", *(f"/{part}" for part in (*CHART, "consents"))):
        there = await clinic.call("GET", f"/v1/patients/{stranger}{path}", "doctor")
        nowhere = await clinic.call("GET", f"/v1/patients/{uuid7()}{path}", "doctor")
        bodies = []
        for answer in (there, nowhere):
            assert answer.status_code == 404, path
            bodies.append({k: v for k, v in answer.json().items() if k not in {"instance", "request_id"}})
        assert bodies[0] == bodies[1]
        assert there.headers.keys() == nowhere.headers.keys()


async def test_a_refusal_tells_the_audit_whose_record_it_was(clinic: Clinic, stranger: str) -> None:
    await status(clinic, stranger)
    [denial] = await denials(clinic)
    assert (denial["patient"], denial["reason"]) == (stranger, "concealed")
    assert denial["details"]["decision"] == "out-of-reach"
    assert denial["details"]["permission"] == "chart.read"


async def test_an_appointment_opens_the_chart_and_its_cancellation_closes_it(
    clinic: Clinic, stranger: str
) -> None:
    mine = {"practitioner_id": str(clinic.doctor_id)}
    booked = await happened(clinic, BOOKED, stranger, **mine)
    assert await status(clinic, stranger) == 200
    assert await status(clinic, stranger, clinic.caller("doctor", subject=uuid7())) == 404
    await happened(clinic, "scheduling.appointment-cancelled.v1", stranger, version=2, **mine)
    assert await status(clinic, stranger) == 404
    late = {"appointment_id": booked["appointment_id"], **mine}
    await happened(clinic, BOOKED, stranger, **late)
    assert await status(clinic, stranger) == 404


async def test_an_appointment_opens_the_chart_for_its_season_only(clinic: Clinic, stranger: str) -> None:
    today = clinic.patients.clock.now()
    for days, expected in ((31, 404), (30, 200), (-89, 200), (-91, 404)):
        starts_at = (today + timedelta(days=days)).isoformat().replace("+00:00", "Z")
        await happened(
            clinic,
            BOOKED,
            stranger,
            practitioner_id=str(clinic.doctor_id),
            starts_at=starts_at,
            version=100 - days,
        )
        assert await status(clinic, stranger) == expected, days


async def test_the_department_that_is_visited_treats_together(clinic: Clinic, stranger: str) -> None:
    await happened(clinic, BOOKED, stranger, department_id=str(clinic.department_id))
    here = clinic.caller(
        "doctor", subject=uuid7(), network=False, department_ids=frozenset({clinic.department_id})
    )
    elsewhere = clinic.caller("doctor", subject=uuid7(), network=False, department_ids=frozenset({uuid7()}))
    assert [await status(clinic, stranger, who) for who in (here, elsewhere)] == [200, 404]


async def test_the_asked_department_reads_from_acceptance_until_a_month_after(
    clinic: Clinic, stranger: str
) -> None:
    asked = clinic.caller(
        "doctor", subject=uuid7(), network=False, department_ids=frozenset({clinic.department_id})
    )
    today = clinic.patients.clock.now()

    async def referral(step: str, version: int, **changes: Any) -> None:
        place = {"to_department_id": str(clinic.department_id), "from_department_id": str(uuid7())}
        event = f"referrals.referral-{step}.v1"
        await happened(clinic, event, stranger, version=version, **place, **changes)

    await referral("created", 1)
    assert await status(clinic, stranger, asked) == 404
    accepted_at = today.isoformat().replace("+00:00", "Z")
    await referral("accepted", 2, accepted_at=accepted_at)
    assert await status(clinic, stranger, asked) == 200
    for days, version, expected in ((29, 3, 200), (31, 4, 404)):
        closed_at = (today - timedelta(days=days)).isoformat().replace("+00:00", "Z")
        accepted_at = (today - timedelta(days=40)).isoformat().replace("+00:00", "Z")
        await referral("closed", version, accepted_at=accepted_at, closed_at=closed_at)
        assert await status(clinic, stranger, asked) == expected


async def test_who_orders_sees_what_comes_back(clinic: Clinic, stranger: str) -> None:
    author = {"practitioner_id": str(clinic.doctor_id)}
    await happened(clinic, "lab-integration.lab-order-placed.v1", stranger, **author)
    assert await status(clinic, stranger) == 200


async def test_every_read_of_a_chart_says_why(clinic: Clinic, stranger: str) -> None:
    booked = await happened(clinic, BOOKED, stranger, practitioner_id=str(clinic.doctor_id))
    for path in CHART:
        await clinic.read(f"/v1/patients/{stranger}/{path}")
    reads = [r for r in await clinic.audited() if r["action"] == "R"]
    assert len(reads) == len(CHART)
    for read in reads:
        assert read["details"]["decision"] == "relationship"
        assert read["details"]["relationship"] == "appointment"
        assert read["details"]["relationship_source"] == booked["appointment_id"]


async def test_a_note_may_come_before_the_appointment_that_it_rests_on(clinic: Clinic, stranger: str) -> None:
    for patient_id in (stranger, str(uuid7())):
        body = visit(clinic, appointment_id=str(uuid7()))
        answer = await clinic.call("POST", f"/v1/patients/{patient_id}/encounters", "doctor", body)
        assert answer.status_code == 409
        assert answer.json()["reference"] == "appointment_id"
    answer = await clinic.call("POST", f"/v1/patients/{stranger}/encounters", "doctor", visit(clinic))
    assert answer.status_code == 404


async def test_whoever_has_seen_the_patient_goes_on_to(clinic: Clinic, stranger: str) -> None:
    today = clinic.patients.clock.now()
    await clinic.treat(stranger, ends_at=today + timedelta(hours=1))
    answer = await clinic.call("POST", f"/v1/patients/{stranger}/encounters", "doctor", visit(clinic))
    assert answer.status_code == 201
    clinic.patients.clock.advance(days=2)
    assert await status(clinic, stranger) == 200


async def test_doctors_find_whom_they_treat_and_nobody_else(clinic: Clinic, stranger: str) -> None:
    known = (await clinic.register(phones=["8 (000) 000-00-02"]))["patient_id"]
    found = await clinic.call("POST", "/v1/patients/search", "doctor", {"name": "Тестова"})
    assert [one["patient_id"] for one in found.json()["items"]] == [known]
    [record] = [r for r in await clinic.audited() if r["action"] == "R"]
    assert (record["patient"], record["details"]["relationship"]) == (known, "appointment")


async def test_a_desk_finds_whoever_is_registered_or_expected_there(clinic: Clinic, stranger: str) -> None:
    other_centre, other_department = uuid7(), uuid7()
    await clinic.patients.deliver_example(
        "identity.department-opened.v1",
        department_id=str(other_department),
        centre_id=str(other_centre),
    )

    async def finds(**place: Any) -> bool:
        desk = clinic.caller("registrar", network=False, **place)
        found = await clinic.call("POST", "/v1/patients/search", desk, {"name": "Тестова"})
        read = await clinic.call("GET", f"/v1/patients/{stranger}", desk)
        shown = bool(found.json()["items"])
        assert read.status_code == (200 if shown else 404)
        return shown

    other = {"centre_ids": frozenset({other_centre})}
    assert await finds(centre_ids=frozenset({clinic.centre_id}))
    assert await finds(department_ids=frozenset({clinic.department_id}))
    assert not await finds(**other)
    assert not await finds(department_ids=frozenset({other_department}))
    place = {"centre_id": str(other_centre), "department_id": str(other_department)}
    await happened(clinic, BOOKED, stranger, **place)
    assert await finds(**other)
    assert await finds(department_ids=frozenset({other_department}))


async def test_what_went_on_before_is_taken_over_as_it_would_be_derived(
    clinic: Clinic, stranger: str
) -> None:
    """By the migration, for doctors who are in the middle of treating somebody."""
    await happened(clinic, BOOKED, stranger, practitioner_id=str(clinic.doctor_id))
    await happened(clinic, "lab-integration.lab-order-placed.v1", stranger)
    await happened(clinic, BOOKED, stranger, appointment_id=str(uuid7()), starts_at="2020-01-01T00:00:00Z")
    derived = {row["kind"]: row for row in await clinic.rows(tables.care_relationship)}
    path = service.migrations_dir / "versions/0007_care_relationships.py"
    spec = importlib.util.spec_from_file_location("migration", path)
    assert spec
    assert spec.loader
    migration = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(migration)
    async with clinic.patients.runtime.database.transaction() as tx:
        await tx.execute(delete(tables.care_relationship))
        await tx.execute(text(migration.FROM_TIMELINE.replace("now()", "timestamptz '2026-03-02'")))
    taken = {row["kind"]: row for row in await clinic.rows(tables.care_relationship)}
    assert UUID(stranger) == taken["appointment"]["patient_id"]
    assert taken["lab-order"] == derived["lab-order"]


async def told(clinic: Clinic) -> list[tuple[str, str, int]]:
    events = await clinic.patients.events()
    return [
        (
            event.type.split(".")[1].removeprefix("care-relationship-"),
            event.data["kind"],
            event.data["version"],
        )
        for event in events
        if ".care-relationship-" in event.type
    ]


async def test_the_others_are_told_of_what_changes_and_of_nothing_else(clinic: Clinic, stranger: str) -> None:
    mine = {"practitioner_id": str(clinic.doctor_id)}
    await happened(clinic, BOOKED, stranger, **mine)
    await happened(clinic, "scheduling.patient-arrived.v1", stranger, version=2, **mine)
    assert await told(clinic) == [("started", "appointment", 1)]
    await happened(clinic, "scheduling.appointment-cancelled.v1", stranger, version=3, **mine)
    assert await told(clinic) == [("started", "appointment", 1), ("ended", "appointment", 3)]


async def test_what_was_taken_over_is_told_in_batches(
    clinic: Clinic, stranger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(care_telling, "BATCH", 2)
    for _ in range(5):
        await clinic.treat(stranger)
    before = await told(clinic)
    first = Timer(
        kind=care_telling.KIND,
        subject=care_telling.NOBODY,
        subject_version=1,
        due_at=clinic.patients.clock.now(),
    )
    async with clinic.patients.runtime.database.transaction() as tx:
        await tx.schedule(first)
    await clinic.patients.fire_timers()
    assert len(await told(clinic)) == len(before) + 5
