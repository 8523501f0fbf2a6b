"""The loop from question to answer, and what is refused on the way."""

import asyncio

import pytest
from clinic_referrals import tables
from clinic_shared.ids import uuid7
from clinic_shared.testing import assert_tables_match

from .conftest import Clinic


async def test_the_whole_loop_is_published_step_by_step(clinic: Clinic) -> None:
    referral_id, appointment_id = await clinic.accepted(), uuid7()
    await clinic.appointment("appointment-booked", referral_id, appointment_id)
    await clinic.appointment("appointment-completed", referral_id, appointment_id)
    assert await clinic.status_of(referral_id) == "seen"
    await clinic.post(f"/{referral_id}/report", clinic.receiver, {"outcome": "Fictitious outcome"})
    closed = await clinic.post(f"/{referral_id}/close", clinic.sender, {"reason_code": "completed"})
    assert closed.json()["status"] == "closed"
    assert closed.json()["outcome"] == "Fictitious outcome"
    events = await clinic.referrals.events()
    assert [e.type.split("-")[-1] for e in events] == [
        f"{step}.v1" for step in ("created", "accepted", "booked", "seen", "reported", "closed")
    ]
    assert [e.aggregate_version for e in events] == [1, 2, 3, 4, 5, 6]
    assert {e.partition_key for e in events} == {clinic.patient_id}


@pytest.mark.parametrize("step", ["report", "close-as-receiver", "accept-as-sender", "decline-as-sender"])
async def test_moves_that_are_not_theirs_or_not_yet_are_refused(clinic: Clinic, step: str) -> None:
    referral_id = await clinic.create()
    moves = {
        "report": ("report", clinic.receiver, {"outcome": "Too early"}, 409),
        "close-as-receiver": ("close", clinic.receiver, {}, 403),
        "accept-as-sender": ("accept", clinic.sender, {}, 403),
        "decline-as-sender": ("decline", clinic.sender, {"reason_code": "no-capacity"}, 403),
    }
    path, caller, body, status = moves[step]
    answer = await clinic.post(f"/{referral_id}/{path}", caller, body)
    assert answer.status_code == status, answer.text
    assert await clinic.status_of(referral_id) == "created"


async def test_of_two_answers_at_once_one_counts(clinic: Clinic) -> None:
    referral_id = await clinic.create()
    answers = await asyncio.gather(
        *(clinic.post(f"/{referral_id}/accept", clinic.receiver) for _ in range(6))
    )
    assert sorted(a.status_code for a in answers) == [200] + [409] * 5


async def test_an_appointment_that_falls_through_leaves_the_patient_waiting(clinic: Clinic) -> None:
    referral_id, first, second = await clinic.accepted(), uuid7(), uuid7()
    await clinic.appointment("appointment-booked", referral_id, first)
    assert await clinic.status_of(referral_id) == "booked"
    await clinic.appointment("appointment-missed", referral_id, first)
    assert await clinic.status_of(referral_id) == "accepted"
    await clinic.appointment("appointment-booked", referral_id, second)
    # What comes late of the first appointment no longer concerns the referral.
    await clinic.appointment("appointment-cancelled", referral_id, first)
    assert await clinic.status_of(referral_id) == "booked"


async def test_an_encounter_recorded_before_completion_counts_as_seen_once(clinic: Clinic) -> None:
    referral_id, appointment_id = await clinic.accepted(), uuid7()
    await clinic.appointment("appointment-booked", referral_id, appointment_id)
    await clinic.referrals.deliver_example("patients.encounter-recorded.v1", referral_id=referral_id)
    await clinic.appointment("appointment-completed", referral_id, appointment_id)
    assert len(await clinic.referrals.events("referrals.referral-seen.v1")) == 1


async def test_appointments_without_a_referral_change_nothing(clinic: Clinic) -> None:
    await clinic.appointment("appointment-booked", None, uuid7())
    assert await clinic.referrals.events() == []


async def test_a_department_can_t_refer_to_itself(clinic: Clinic) -> None:
    answer = await clinic.post("", clinic.sender, clinic.request(to_department_id=str(clinic.dermatology)))
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("/referral-to-self")


async def test_what_is_not_known_here_yet_is_worth_another_try(clinic: Clinic) -> None:
    for field in ("patient_id", "to_department_id", "to_practitioner_id"):
        answer = await clinic.post("", clinic.sender, clinic.request(**{field: str(uuid7())}))
        assert answer.json()["type"].endswith("/reference-not-yet-known"), field
        assert answer.json()["reference"] == field


async def test_a_named_practitioner_must_work_in_the_receiving_department(clinic: Clinic) -> None:
    practitioner_id = str(uuid7())
    await clinic.referrals.deliver_example(
        "identity.staff-member-added.v1", staff_id=practitioner_id, department_ids=[str(clinic.dermatology)]
    )
    answer = await clinic.post("", clinic.sender, clinic.request(to_practitioner_id=practitioner_id))
    assert answer.status_code == 422
    await clinic.referrals.deliver_example(
        "identity.staff-member-moved.v1",
        version=2,
        staff_id=practitioner_id,
        department_ids=[str(clinic.dietetics)],
    )
    await clinic.create(to_practitioner_id=practitioner_id)


async def test_tables_and_migrations_agree(clinic: Clinic) -> None:
    await assert_tables_match(tables.metadata, clinic.referrals)
