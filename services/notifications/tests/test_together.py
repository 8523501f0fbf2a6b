"""Results that follow one another: the first is told at once, the others in one message."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from clinic_notifications import store, tables, together
from clinic_notifications.domain import Subject
from clinic_notifications.together import WINDOW
from clinic_notifications.together_store import Desk
from clinic_shared.ids import uuid7

from .conftest import Clinic

FILED = "patients.lab-result-filed.v1"


async def result(clinic: Clinic, result_id: UUID | None = None, **changes: Any) -> UUID:
    result_id = result_id or uuid7()
    await clinic.notifications.deliver_example(FILED, **filed(clinic, result_id) | changes)
    return result_id


def filed(clinic: Clinic, result_id: UUID) -> dict[str, Any]:
    return {
        "result_id": str(result_id),
        "patient_id": str(clinic.patient_id),
        "centre_id": str(clinic.centre_id),
        "department_id": str(clinic.department_id),
        "version": 1,
        "status": "final",
    }


async def window_passes(clinic: Clinic) -> None:
    """By both clocks: the service's own, and the database's, which the sender goes by."""
    clinic.notifications.clock.advance(seconds=WINDOW.total_seconds() + 1)
    await clinic.try_now()


async def told(clinic: Clinic) -> int:
    await clinic.send_due()
    return len(await clinic.inbox())


async def test_twelve_results_are_two_messages_and_each_is_told_of_once(clinic: Clinic) -> None:
    results = [await result(clinic)]
    assert await told(clinic) == 1
    results += [await result(clinic) for _ in range(11)]
    assert await told(clinic) == 1
    await window_passes(clinic)
    assert len(await clinic.inbox()) == 2
    messages = await clinic.messages(purpose="result-ready")
    also = [joined["id"] for message in messages for joined in message["also_about"]]
    assert sorted([message["about_id"] for message in messages] + also) == sorted(map(str, results))


async def test_results_of_one_batch_share_a_message(clinic: Clinic) -> None:
    await clinic.notifications.deliver_together(FILED, *(filed(clinic, uuid7()) for _ in range(12)))
    assert await told(clinic) == 1
    [message] = await clinic.messages(purpose="result-ready")
    assert len(message["also_about"]) == 11


async def test_what_is_delivered_again_is_told_of_once(clinic: Clinic) -> None:
    results = [uuid7() for _ in range(3)]
    for _ in range(2):
        await clinic.notifications.deliver_together(FILED, *(filed(clinic, r) for r in results))
    assert await told(clinic) == 1
    await window_passes(clinic)
    await result(clinic, results[1])
    assert await told(clinic) == 1


async def test_an_older_version_joins_nothing_once_a_newer_was_told(clinic: Clinic) -> None:
    await result(clinic)
    joined = await result(clinic, version=3, status="corrected")
    assert [row["about_id"] for row in await clinic.rows(tables.joined_subject)] == [joined]
    assert await told(clinic) == 1
    clinic.notifications.clock.advance(seconds=2 * WINDOW.total_seconds())
    await result(clinic, joined, version=2, status="corrected")
    assert await told(clinic) == 1


async def test_results_that_are_far_apart_are_told_one_by_one_and_at_once(clinic: Clinic) -> None:
    for count in (1, 2, 3):
        await result(clinic)
        assert await told(clinic) == count
        clinic.notifications.clock.advance(seconds=2 * WINDOW.total_seconds())


async def test_another_patient_and_another_department_wait_for_nobody(clinic: Clinic) -> None:
    await result(clinic)
    await result(clinic, patient_id=str(await clinic.register()))
    elsewhere = uuid7()
    await clinic.notifications.deliver_example(
        "identity.department-opened.v1", department_id=str(elsewhere), centre_id=str(clinic.centre_id)
    )
    await result(clinic, department_id=str(elsewhere))
    assert await told(clinic) == 3


async def test_a_call_to_a_doctor_waits_for_no_results(clinic: Clinic) -> None:
    for _ in range(3):
        await clinic.notifications.deliver_example(
            "lab-integration.obligation-assigned.v1", obligation_id=str(uuid7())
        )
    waiting = [row["send_at"] - row["queued_at"] for row in await clinic.rows(tables.message)]
    assert waiting == [timedelta(0)] * 3


async def test_what_the_sender_has_taken_is_joined_by_nothing(clinic: Clinic) -> None:
    """Its text may be on its way: who comes then gets a message of their own."""
    await result(clinic)
    async with clinic.notifications.runtime.database.transaction() as tx:
        assert len(await store.claim_due(tx, limit=8, lease=timedelta(minutes=3))) == 1
    await result(clinic)
    assert len(await clinic.rows(tables.message)) == 2
    assert await clinic.rows(tables.joined_subject) == []


async def test_a_sender_takes_nothing_that_a_result_is_about_to_join(clinic: Clinic) -> None:
    await result(clinic)
    database = clinic.notifications.runtime.database
    async with database.transaction() as joining:
        desk = Desk(
            patient_id=clinic.patient_id, centre_id=clinic.centre_id, department_id=clinic.department_id
        )
        await together.announce_result(joining, Subject(type="lab-result", id=uuid7(), version=1), desk)
        assert await clinic.send_due() == 0
    assert await clinic.send_due() == 1
    assert len(await clinic.rows(tables.joined_subject)) == 1
