"""Booking through HTTP on a real database: conflicts, concurrency, moves."""

import asyncio
import random
from datetime import timedelta
from uuid import UUID

import pytest
from clinic_scheduling import tables
from clinic_shared.ids import uuid7
from sqlalchemy import func, select, text

from .conftest import Clinic


async def test_a_booking_is_answered_published_and_audited(clinic: Clinic) -> None:
    answer = await clinic.book(reason="Fictitious reason")
    assert answer.status_code == 201, answer.text
    booked = answer.json()
    assert booked["status"] == "booked"
    [event] = await clinic.scheduling.events("scheduling.appointment-booked.v1")
    assert event.data["appointment_id"] == booked["appointment_id"]
    assert event.data["time_zone"] == "Europe/Moscow"
    assert event.private["reason"] == "Fictitious reason"
    assert event.partition_key == clinic.patient_id


async def test_every_conflict_is_listed_and_nothing_is_held(clinic: Clinic) -> None:
    await clinic.book()
    other = await clinic.add_patient()
    answer = await clinic.book(patient_id=other)
    assert answer.status_code == 409
    problem = answer.json()
    assert problem["type"].endswith("/slot-taken")
    assert {c["resource_kind"] for c in problem["conflicts"]} == {"practitioner", "room"}
    assert str(clinic.patient_id) not in answer.text


async def test_times_that_touch_are_both_booked(clinic: Clinic) -> None:
    first = await clinic.book()
    second = await clinic.book(starts_at=(clinic.tomorrow_at_ten + timedelta(minutes=30)).isoformat())
    assert (first.status_code, second.status_code) == (201, 201)


async def test_overlap_with_a_different_start_is_refused(clinic: Clinic) -> None:
    await clinic.book()
    answer = await clinic.book(starts_at=(clinic.tomorrow_at_ten + timedelta(minutes=29)).isoformat())
    assert answer.status_code == 409


async def test_two_hundred_concurrent_bookings_never_overlap_and_none_deadlocks(clinic: Clinic) -> None:
    """Overlapping starts, one practitioner, one room, in random order: as many as fit, the rest told why."""
    starts = [clinic.tomorrow_at_ten + timedelta(minutes=10 * random.randrange(12)) for _ in range(200)]
    answers = await asyncio.gather(*(clinic.book(starts_at=s.isoformat()) for s in starts))
    codes = {answer.status_code for answer in answers}
    assert codes == {201, 409}
    refused = [a.json() for a in answers if a.status_code == 409]
    assert all({c["resource_kind"] for c in r["conflicts"]} == {"practitioner", "room"} for r in refused)
    booked = sorted(a.json()["starts_at"] for a in answers if a.status_code == 201)
    assert 1 <= len(booked) <= 8
    async with clinic.scheduling.runtime.database.transaction() as tx:
        overlapping = await tx.fetch_one(
            text(
                "SELECT count(*) FROM allocation a JOIN allocation b ON a.resource_id = b.resource_id "
                "AND a.appointment_id < b.appointment_id AND a.during && b.during"
            )
        )
        kept = await tx.fetch_one(select(func.count()).select_from(tables.allocation))
    assert overlapping is not None
    assert overlapping[0] == 0
    assert kept is not None
    assert kept[0] == 2 * len(booked)


async def test_the_constraint_refuses_an_overlap_even_when_the_check_is_blind(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sees_nothing(*_: object) -> list[object]:
        return []

    await clinic.book()
    monkeypatch.setattr("clinic_scheduling.store.list_allocations", sees_nothing)
    answer = await clinic.book()
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/slot-taken")


async def test_a_patient_who_has_not_arrived_here_yet_is_worth_another_try(clinic: Clinic) -> None:
    answer = await clinic.book(patient_id=uuid7())
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/reference-not-yet-known")
    assert answer.headers["Retry-After"] == "1"


async def test_outside_the_practitioner_s_hours_is_refused(clinic: Clinic) -> None:
    answer = await clinic.book(starts_at=(clinic.tomorrow_at_ten + timedelta(hours=9)).isoformat())
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/outside-availability")


async def test_the_past_is_refused(clinic: Clinic) -> None:
    answer = await clinic.book(starts_at=(clinic.scheduling.clock.now() - timedelta(hours=1)).isoformat())
    assert answer.status_code == 422


async def test_what_the_service_needs_must_be_named(clinic: Clinic) -> None:
    body = clinic.booking()
    del body["room_id"]
    answer = await clinic.post("/v1/appointments", body)
    assert answer.status_code == 422
    assert answer.json()["missing"] == ["room"]


async def test_the_same_key_books_once_and_answers_the_same(clinic: Clinic) -> None:
    caller = clinic.scheduling.principal("registrar")
    headers = clinic.scheduling.headers(caller, key="one-booking")
    first = await clinic.scheduling.http.post("/v1/appointments", json=clinic.booking(), headers=headers)
    again = await clinic.scheduling.http.post("/v1/appointments", json=clinic.booking(), headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert len(await clinic.scheduling.events("scheduling.appointment-booked.v1")) == 1


async def test_rescheduling_keeps_the_id_and_frees_the_old_time(clinic: Clinic) -> None:
    booked = (await clinic.book()).json()
    later = clinic.tomorrow_at_ten + timedelta(hours=1)
    path = f"/v1/appointments/{booked['appointment_id']}/reschedule"
    moved = await clinic.post(path, {"starts_at": later.isoformat()})
    assert moved.status_code == 200, moved.text
    assert moved.json()["appointment_id"] == booked["appointment_id"]
    assert moved.json()["version"] == 2
    assert (await clinic.book()).status_code == 201


async def test_a_refused_move_leaves_the_appointment_where_it_was(clinic: Clinic) -> None:
    mine = (await clinic.book()).json()
    later = clinic.tomorrow_at_ten + timedelta(hours=1)
    await clinic.book(starts_at=later.isoformat())
    path = f"/v1/appointments/{mine['appointment_id']}/reschedule"
    refused = await clinic.post(path, {"starts_at": later.isoformat()})
    assert refused.status_code == 409
    assert (await clinic.book()).status_code == 409, "the old time must still be taken"


async def test_an_appointment_may_move_within_its_own_time(clinic: Clinic) -> None:
    mine = (await clinic.book()).json()
    a_little_later = clinic.tomorrow_at_ten + timedelta(minutes=15)
    path = f"/v1/appointments/{mine['appointment_id']}/reschedule"
    assert (await clinic.post(path, {"starts_at": a_little_later.isoformat()})).status_code == 200


async def test_a_change_of_what_was_not_seen_is_refused(clinic: Clinic) -> None:
    mine = (await clinic.book()).json()
    path = f"/v1/appointments/{mine['appointment_id']}"
    assert (await clinic.post(f"{path}/confirm", {}, "registrar", **{"If-Match": '"1"'})).status_code == 200
    stale = await clinic.post(f"{path}/cancel", {}, "registrar", **{"If-Match": '"1"'})
    assert stale.status_code == 412


async def test_cancelling_frees_the_time_and_twice_is_refused(clinic: Clinic) -> None:
    mine = (await clinic.book()).json()
    path = f"/v1/appointments/{mine['appointment_id']}/cancel"
    assert (await clinic.post(path, {"reason_code": "patient"})).status_code == 200
    assert (await clinic.post(path, {"reason_code": "patient"})).status_code == 409
    assert (await clinic.book()).status_code == 201


async def test_of_two_cancellations_at_once_one_wins(clinic: Clinic) -> None:
    mine = (await clinic.book()).json()
    path = f"/v1/appointments/{mine['appointment_id']}/cancel"
    answers = await asyncio.gather(*(clinic.post(path) for _ in range(8)))
    assert sorted(a.status_code for a in answers) == [200] + [409] * 7
    assert len(await clinic.scheduling.events("scheduling.appointment-cancelled.v1")) == 1


async def test_a_visit_goes_from_arrival_to_completion(clinic: Clinic) -> None:
    mine = (await clinic.book()).json()
    path = f"/v1/appointments/{mine['appointment_id']}"
    assert (await clinic.post(f"{path}/complete")).status_code == 409
    assert (await clinic.post(f"{path}/arrive")).status_code == 200
    assert (await clinic.post(f"{path}/complete")).json()["status"] == "completed"
    types = [e.type for e in await clinic.scheduling.events() if e.subject == UUID(mine["appointment_id"])]
    assert types == [
        "scheduling.appointment-booked.v1",
        "scheduling.patient-arrived.v1",
        "scheduling.appointment-completed.v1",
    ]


async def test_an_accepted_referral_is_booked_for_its_patient_and_department_only(clinic: Clinic) -> None:
    referral_id = uuid7()
    refused = await clinic.book(referral_id=referral_id)
    assert refused.json()["type"].endswith("/reference-not-yet-known")
    await clinic.scheduling.deliver_example(
        "referrals.referral-accepted.v1",
        referral_id=str(referral_id),
        patient_id=str(clinic.patient_id),
        to_department_id=str(clinic.department_id),
    )
    other = await clinic.add_patient()
    assert (await clinic.book(referral_id=referral_id, patient_id=other)).status_code == 409
    assert (await clinic.book(referral_id=referral_id)).status_code == 201
