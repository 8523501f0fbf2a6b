"""Merged patients: one person's appointments under any of their records, and apart again where it was a mistake."""

from typing import Any
from uuid import UUID

import pytest
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from .conftest import Clinic


@pytest.fixture
async def double(clinic: Clinic) -> UUID:
    """A second record of the clinic's patient."""
    return await clinic.add_patient()


async def booked(clinic: Clinic, patient_id: UUID, *, hours: int) -> str:
    time = clinic.tomorrow_at_ten.replace(hour=clinic.tomorrow_at_ten.hour + hours)
    answer = await clinic.book(patient_id=patient_id, starts_at=time.isoformat())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["appointment_id"])


async def listed(clinic: Clinic, caller: Principal, **query: Any) -> list[str]:
    headers = clinic.scheduling.headers(caller)
    answer = await clinic.scheduling.http.get("/v1/appointments", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return [item["appointment_id"] for item in answer.json()["items"]]


async def at_the_desk(clinic: Clinic, patient_id: UUID) -> list[str]:
    return await listed(clinic, clinic.scheduling.principal("registrar"), patient_id=str(patient_id))


async def test_the_appointments_of_both_records_are_seen_under_either(clinic: Clinic, double: UUID) -> None:
    first, second = await booked(clinic, clinic.patient_id, hours=0), await booked(clinic, double, hours=1)
    await clinic.scheduling.tell_of_merge(double, clinic.patient_id)
    assert await at_the_desk(clinic, clinic.patient_id) == [first, second]
    assert await at_the_desk(clinic, double) == [first, second]


async def test_what_is_booked_for_the_replaced_record_is_the_others(clinic: Clinic, double: UUID) -> None:
    await clinic.scheduling.tell_of_merge(double, clinic.patient_id)
    answer = await clinic.book(patient_id=double)
    assert answer.json()["patient_id"] == str(clinic.patient_id)
    [event] = await clinic.scheduling.events("scheduling.appointment-booked.v1")
    assert event.data["patient_id"] == str(clinic.patient_id)


async def test_a_referral_of_one_record_is_booked_for_the_other(clinic: Clinic, double: UUID) -> None:
    referral_id = uuid7()
    await clinic.scheduling.deliver_example(
        "referrals.referral-accepted.v1",
        referral_id=str(referral_id),
        patient_id=str(double),
        to_department_id=str(clinic.department_id),
    )
    refused = await clinic.book(referral_id=referral_id)
    assert refused.json()["type"].endswith("referral-mismatch")
    await clinic.scheduling.tell_of_merge(double, clinic.patient_id)
    assert (await clinic.book(referral_id=referral_id)).status_code == 201


async def test_who_treats_one_record_sees_the_appointments_of_the_other(clinic: Clinic, double: UUID) -> None:
    doctor = clinic.scheduling.principal("doctor", network=False)
    await clinic.scheduling.deliver_example(
        "patients.care-relationship-started.v1",
        source_id=str(uuid7()),
        patient_id=str(clinic.patient_id),
        practitioner_id=str(doctor.subject),
        department_id=None,
        begins_at="2020-01-01T00:00:00Z",
        ends_at=None,
    )
    of_double = await booked(clinic, double, hours=0)
    headers = clinic.scheduling.headers(doctor)

    async def status() -> int:
        path = f"/v1/appointments/{of_double}"
        return (await clinic.scheduling.http.get(path, headers=headers)).status_code

    assert await status() == 404
    assert await listed(clinic, doctor, patient_id=str(clinic.patient_id)) == []
    merge_id = await clinic.scheduling.tell_of_merge(double, clinic.patient_id)
    assert await status() == 200
    assert await listed(clinic, doctor, patient_id=str(clinic.patient_id)) == [of_double]
    await clinic.scheduling.tell_of_merge(double, clinic.patient_id, merge_id=merge_id, undone=True)
    assert await status() == 404


async def test_a_patient_reaches_the_records_that_their_token_names_and_no_others(
    clinic: Clinic, double: UUID
) -> None:
    of_double = await booked(clinic, double, hours=0)
    await clinic.scheduling.tell_of_merge(double, clinic.patient_id)
    both = frozenset({clinic.patient_id, double})
    person = clinic.scheduling.principal("patient", patient_id=clinic.patient_id, patient_records=both)
    stranger = clinic.scheduling.principal("patient", patient_id=await clinic.add_patient())
    assert await listed(clinic, person) == [of_double]
    assert await listed(clinic, stranger) == []
    assert await listed(clinic, stranger, patient_id=str(clinic.patient_id)) == []
    refused = await clinic.scheduling.http.post(
        "/v1/appointments",
        json=clinic.booking(patient_id=double),
        headers=clinic.scheduling.headers(stranger),
    )
    assert refused.status_code == 404


async def test_undone_each_has_their_own_appointments_again(clinic: Clinic, double: UUID) -> None:
    first, second = await booked(clinic, clinic.patient_id, hours=0), await booked(clinic, double, hours=1)
    merge_id = await clinic.scheduling.tell_of_merge(double, clinic.patient_id)
    later = await booked(clinic, double, hours=2)
    await clinic.scheduling.tell_of_merge(double, clinic.patient_id, merge_id=merge_id, undone=True)
    # Told late, of what was before: changes nothing.
    await clinic.scheduling.tell_of_merge(double, clinic.patient_id, merge_id=merge_id)
    assert await at_the_desk(clinic, clinic.patient_id) == [first, later]
    assert await at_the_desk(clinic, double) == [second]


async def test_a_merge_that_is_told_before_the_patient_loses_nothing(clinic: Clinic) -> None:
    late = uuid7()
    await clinic.scheduling.tell_of_merge(late, clinic.patient_id)
    await clinic.scheduling.deliver_example("patients.patient-registered.v1", patient_id=str(late))
    made = await booked(clinic, late, hours=0)
    assert await at_the_desk(clinic, late) == [made] == await at_the_desk(clinic, clinic.patient_id)
