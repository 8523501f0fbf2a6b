"""Merged patients: who was replaced is written to as the person that they are."""

from uuid import UUID

from clinic_shared.ids import uuid7

from .conftest import PHONE, Clinic

OLD_PHONE = "+70000000009"


async def merged(clinic: Clinic, source: UUID, *, undone: bool = False) -> None:
    name = "unmerged" if undone else "merged"
    await clinic.notifications.deliver_example(
        f"patients.patients-{name}.v1",
        version=3 if undone else 2,
        merge_id=str(clinic.centre_id),
        source_patient_id=str(source),
        target_patient_id=str(clinic.patient_id),
    )
    await clinic.notifications.deliver_example(
        "patients.patient-updated.v1",
        version=3 if undone else 2,
        patient_id=str(source),
        status="active" if undone else "merged",
        phones=[OLD_PHONE],
    )


async def told(clinic: Clinic) -> list[str]:
    await clinic.send_due()
    return [message["to"].removeprefix("+") for message in await clinic.inbox()]


async def test_an_appointment_of_the_replaced_record_is_told_to_the_person(clinic: Clinic) -> None:
    double = await clinic.register(phones=[OLD_PHONE])
    await merged(clinic, double)
    await clinic.book(patient_id=double)
    assert await told(clinic) == [PHONE.removeprefix("+")]


async def test_what_one_record_has_refused_the_person_has_refused(clinic: Clinic) -> None:
    double = await clinic.register(phones=[OLD_PHONE])
    await clinic.notifications.deliver_example(
        "patients.consent-changed.v1",
        consent_id=str(uuid7()),
        patient_id=str(double),
        kind="messaging",
        status="withdrawn",
        channel=None,
    )
    await merged(clinic, double)
    await clinic.book()
    assert await told(clinic) == []
    assert await clinic.statuses(purpose="appointment-confirmation") == ["failed"]


async def test_undone_each_is_reached_by_themselves(clinic: Clinic) -> None:
    double = await clinic.register(phones=[OLD_PHONE])
    await merged(clinic, double)
    await merged(clinic, double, undone=True)
    await clinic.book(patient_id=double)
    assert await told(clinic) == [OLD_PHONE.removeprefix("+")]


async def test_messages_about_any_record_are_the_persons(clinic: Clinic) -> None:
    double = await clinic.register(phones=[OLD_PHONE])
    await clinic.book(patient_id=double)
    before = await clinic.messages(patient_id=str(double))
    assert {message["status"] for message in before} >= {"planned"}
    assert await clinic.messages(patient_id=str(clinic.patient_id)) == []
    await merged(clinic, double)
    assert await clinic.messages(patient_id=str(clinic.patient_id)) == before
    await merged(clinic, double, undone=True)
    assert await clinic.messages(patient_id=str(clinic.patient_id)) == []
