"""Merged patients: one person's referrals under any of their records, and apart again where it was a mistake."""

from uuid import UUID

import pytest
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from .conftest import Clinic


@pytest.fixture
async def double(clinic: Clinic) -> UUID:
    """A second record of the clinic's patient."""
    patient_id = uuid7()
    await clinic.referrals.deliver_example("patients.patient-registered.v1", patient_id=str(patient_id))
    return patient_id


async def listed(clinic: Clinic, patient_id: UUID, caller: Principal | None = None) -> list[str]:
    answer = await clinic.referrals.http.get(
        "/v1/referrals",
        params={"patient_id": str(patient_id)},
        headers=clinic.referrals.headers(caller or clinic.sender),
    )
    assert answer.status_code == 200, answer.text
    return [item["referral_id"] for item in answer.json()["items"]]


async def test_the_referrals_of_both_records_are_seen_under_either_until_that_is_undone(
    clinic: Clinic, double: UUID
) -> None:
    first, second = await clinic.create(), await clinic.create(patient_id=str(double))
    merge_id = await clinic.referrals.tell_of_merge(double, clinic.patient_id)
    assert await listed(clinic, clinic.patient_id) == [first, second] == await listed(clinic, double)
    await clinic.referrals.tell_of_merge(double, clinic.patient_id, merge_id=merge_id, undone=True)
    # Told late, of what was before: changes nothing.
    await clinic.referrals.tell_of_merge(double, clinic.patient_id, merge_id=merge_id)
    assert await listed(clinic, clinic.patient_id) == [first]
    assert await listed(clinic, double) == [second]


async def test_a_referral_of_a_replaced_record_is_the_one_s_in_use(clinic: Clinic, double: UUID) -> None:
    await clinic.referrals.tell_of_merge(double, clinic.patient_id)
    answer = await clinic.post("", clinic.sender, clinic.request(patient_id=str(double)))
    assert answer.json()["patient_id"] == str(clinic.patient_id)


async def test_an_appointment_of_either_record_books_the_referral(clinic: Clinic, double: UUID) -> None:
    referral_id = await clinic.create(patient_id=str(double))
    await clinic.post(f"/{referral_id}/accept", clinic.receiver)
    await clinic.referrals.tell_of_merge(double, clinic.patient_id)
    await clinic.appointment("appointment-booked", referral_id, uuid7())
    assert await clinic.status_of(referral_id) == "booked"


async def test_a_patient_sees_the_referrals_of_their_records_and_nobody_elses(
    clinic: Clinic, double: UUID
) -> None:
    referral_id = await clinic.create(patient_id=str(double))
    await clinic.referrals.tell_of_merge(double, clinic.patient_id)
    both = frozenset({clinic.patient_id, double})
    person = clinic.referrals.principal("patient", patient_id=clinic.patient_id, patient_records=both)
    stranger = clinic.referrals.principal("patient", patient_id=uuid7())
    assert await listed(clinic, clinic.patient_id, person) == [referral_id]
    assert await listed(clinic, clinic.patient_id, stranger) == []
