"""Events in: once, twice, late, and malformed."""

import pytest
from clinic_notifications import tables
from clinic_notifications.app import service
from clinic_shared import contracts
from clinic_shared.events import Origin
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness
from pydantic import ValidationError
from sqlalchemy import Table, select

from .conftest import OPENS

EVENT_TYPES = sorted(service.handlers.subscriptions)

SAID = {
    "scheduling.appointment-booked.v1": "appointment-confirmation",
    "scheduling.appointment-rescheduled.v1": "appointment-change",
    "scheduling.appointment-cancelled.v1": "appointment-cancellation",
    "referrals.referral-accepted.v1": "referral-update",
    "patients.lab-result-filed.v1": "result-ready",
    "billing.invoice-issued.v1": "invoice",
    "billing.payment-received.v1": "payment-received",
    "identity.new-device-seen.v1": "new-device",
    "identity.password-changed.v1": "password-changed",
    "identity.one-time-code-requested.v1": "sign-in-code",
}


def test_the_subscriptions_are_those_of_the_contract() -> None:
    assert set(EVENT_TYPES) == {event.type for event in contracts.load().consumed_by("notifications")}


async def rows(notifications: ServiceHarness, table: Table) -> list[dict[str, object]]:
    async with notifications.runtime.database.transaction() as tx:
        found = await tx.fetch_all(select(table))
        return [vars(OPENS[table].opened(tx, row)) if table in OPENS else row._asdict() for row in found]


async def test_every_example_delivered_twice_takes_effect_once(notifications: ServiceHarness) -> None:
    for event_type in EVENT_TYPES:
        for example in contracts.examples(event_type):
            event_id = uuid7()
            for expected in ("applied", "duplicate"):
                disposition = await notifications.deliver(
                    event_type, example["data"], example.get("private"), event_id=event_id
                )
                assert disposition == expected, event_type


@pytest.mark.parametrize("event_type", sorted(SAID))
async def test_what_patients_are_told_is_queued_once_and_published(
    notifications: ServiceHarness, event_type: str
) -> None:
    for _ in range(2):
        await notifications.deliver_example(event_type)
    [message] = await rows(notifications, tables.message)
    assert message["patient_id"] is not None
    assert message["purpose"] == SAID[event_type]
    [event] = await notifications.events("notifications.message-queued.v1")
    assert event.data["about_id"] == str(message["about_id"])


async def test_nobody_is_told_of_what_is_replayed(notifications: ServiceHarness) -> None:
    for event_type in EVENT_TYPES:
        for example in contracts.examples(event_type):
            told = (event_type, example["data"], example.get("private"))
            assert await notifications.deliver(*told, origin=Origin.REPLAY) == "applied"
    assert await rows(notifications, tables.message) == []
    # Who asked for an export and never got this part gets it now; a part that is there already changes nothing.
    assert {event.type for event in await notifications.events()} == {"notifications.export-part-ready.v1"}


async def test_the_others_tell_patients_nothing(notifications: ServiceHarness) -> None:
    for event_type in sorted(set(EVENT_TYPES) - set(SAID)):
        await notifications.deliver_example(event_type)
    assert [m for m in await rows(notifications, tables.message) if m["patient_id"] is not None] == []


async def test_a_preliminary_result_is_not_announced(notifications: ServiceHarness) -> None:
    await notifications.deliver_example("patients.lab-result-filed.v1", status="preliminary")
    assert await rows(notifications, tables.message) == []


async def test_an_older_version_of_a_result_is_not_announced_after_a_newer(
    notifications: ServiceHarness,
) -> None:
    await notifications.deliver_example("patients.lab-result-filed.v1", version=3, status="corrected")
    await notifications.deliver_example("patients.lab-result-filed.v1", version=2)
    [message] = await rows(notifications, tables.message)
    assert message["about_version"] == 3


async def test_an_older_version_that_arrives_late_changes_no_projection(
    notifications: ServiceHarness,
) -> None:
    await notifications.deliver_example("identity.centre-changed.v1", version=3, name="Новый центр")
    await notifications.deliver_example("identity.centre-opened.v1", version=1)
    await notifications.deliver_example("patients.patient-updated.v1", version=2, phones=["+70000000002"])
    await notifications.deliver_example("patients.patient-registered.v1", version=1)
    [centre] = await rows(notifications, tables.centre)
    [patient] = await rows(notifications, tables.patient)
    assert (centre["name"], patient["phones"]) == ("Новый центр", ["+70000000002"])


async def test_an_erased_patient_has_no_address_any_more(notifications: ServiceHarness) -> None:
    await notifications.deliver_example("patients.patient-registered.v1")
    example = contracts.examples("patients.patient-updated.v1")[0]
    await notifications.deliver("patients.patient-updated.v1", example["data"] | {"version": 9}, None)
    [patient] = await rows(notifications, tables.patient)
    assert (patient["phones"], patient["emails"]) == ([], [])


async def test_a_booking_whose_private_part_is_gone_is_still_announced(notifications: ServiceHarness) -> None:
    example = contracts.examples("scheduling.appointment-booked.v1")[0]
    await notifications.deliver("scheduling.appointment-booked.v1", example["data"], None)
    assert len(await rows(notifications, tables.message)) == 1


async def test_a_malformed_event_changes_nothing(
    notifications: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The contract would refuse to have it sent; an older or broken producer might.
    monkeypatch.setattr(contracts, "validate_event", lambda *_: None)
    example = contracts.examples("scheduling.appointment-booked.v1")[0]
    broken = {name: value for name, value in example["data"].items() if name != "starts_at"}
    with pytest.raises(ValidationError):
        await notifications.deliver("scheduling.appointment-booked.v1", broken)
    assert await rows(notifications, tables.appointment) == []
