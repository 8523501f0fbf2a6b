"""Reminders, with the mistakes of other reminder engines as regression tests."""

from datetime import timedelta
from typing import Any

from clinic_notifications.channels import Letter
from clinic_notifications.domain import Channel
from clinic_notifications.sending import Vendors
from clinic_shared import contracts
from clinic_shared.events import Origin
from clinic_shared.ids import uuid7
from clinic_shared.testing import FixedClock

from .conftest import Clinic

REMINDER = "appointment_reminder"


async def reminders(clinic: Clinic) -> list[dict[str, Any]]:
    return [m for m in await clinic.inbox() if m["template"] == REMINDER]


async def test_a_patient_is_reminded_a_day_and_two_hours_before(clinic: Clinic, clock: FixedClock) -> None:
    await clinic.book()
    planned = await clinic.messages(status="planned")
    assert [m["occurrence"] for m in sorted(planned, key=lambda m: m["send_at"])] == ["24h", "2h"]
    clock.advance(hours=24, minutes=59)
    await clinic.tick()
    assert await reminders(clinic) == []
    clock.advance(minutes=1)
    await clinic.tick()
    assert len(await reminders(clinic)) == 1
    clock.advance(hours=22)
    await clinic.tick()
    assert len(await reminders(clinic)) == 2


async def test_a_reminder_keeps_the_id_under_which_it_was_planned(clinic: Clinic, clock: FixedClock) -> None:
    await clinic.book()
    [planned] = [m for m in await clinic.messages(status="planned") if m["occurrence"] == "24h"]
    clock.advance(hours=25)
    await clinic.tick()
    answer = await clinic.get(f"/v1/messages/{planned['message_id']}")
    assert answer.json()["status"] in {"sent", "delivered", "read"}


async def test_reminder_batch_continues_after_bad_recipient(clinic: Clinic, clock: FixedClock) -> None:
    """Bahmni returns from the loop at the first patient without a phone: nobody after them is reminded."""
    unreachable = await clinic.register(phones=[], emails=[])
    await clinic.book(patient_id=unreachable)
    for number in range(3):
        patient_id = await clinic.register(phones=[f"+7000000001{number}"])
        await clinic.book(patient_id=patient_id)
    clock.advance(hours=25)
    await clinic.tick()
    assert len(await reminders(clinic)) == 3
    [failed] = await clinic.messages(
        patient_id=str(unreachable), purpose="appointment-reminder", status="failed"
    )
    assert failed["failure_code"] == "no-address"


async def test_an_adapter_that_breaks_on_one_message_sends_the_others(clinic: Clinic) -> None:
    broken = await clinic.register(phones=["+70000000066"])
    whatsapp = clinic.notifications.runtime.get(Vendors).adapters[Channel.WHATSAPP]

    class BreaksOnOne:
        provider = "whatsapp"

        async def send(self, letter: Letter) -> Any:
            if letter.to == "+70000000066":
                raise KeyError("a vendor's answer that nobody thought of")
            return await whatsapp.send(letter)

    clinic.notifications.runtime.provide(Vendors({Channel.WHATSAPP: BreaksOnOne()}))
    await clinic.book(patient_id=broken)
    await clinic.book()
    await clinic.send_due()
    assert [m["to"] for m in await clinic.inbox()] == ["+70000000001"]
    assert await clinic.statuses(patient_id=str(broken), purpose="appointment-confirmation") == ["queued"]


async def test_failed_send_not_marked_sent(clinic: Clinic) -> None:
    """Marley swallows the vendor's error and marks the reminder as sent."""
    await clinic.fault("whatsapp", status=503)
    await clinic.book()
    await clinic.send_due()
    assert await clinic.statuses(purpose="appointment-confirmation") == ["queued"]
    assert await clinic.event_names() == ["message-queued"]
    await clinic.try_now()
    assert len(await clinic.inbox()) == 1
    await clinic.callbacks_done()
    assert await clinic.statuses(purpose="appointment-confirmation") == ["read"]


async def test_missed_tick_catch_up(clinic: Clinic, clock: FixedClock) -> None:
    """OpenEMR and Ottehr look at one window of time: what was due while they were down is never sent."""
    await clinic.book()
    clock.advance(hours=35)
    await clinic.tick()
    assert len(await reminders(clinic)) == 1


async def test_after_an_outage_over_both_reminders_one_is_sent(clinic: Clinic, clock: FixedClock) -> None:
    await clinic.book()
    clock.advance(hours=48)
    await clinic.tick()
    assert len(await reminders(clinic)) == 1


async def test_after_the_appointment_nobody_is_reminded_of_it(clinic: Clinic, clock: FixedClock) -> None:
    await clinic.book()
    await clinic.send_due()
    clock.advance(hours=49)
    await clinic.tick()
    assert await reminders(clinic) == []
    assert await clinic.messages(status="planned") == []


async def test_a_message_that_became_useless_while_it_waited_expires(
    clinic: Clinic, clock: FixedClock
) -> None:
    await clinic.book()
    clock.advance(hours=49)
    await clinic.send_due()
    assert await clinic.statuses(purpose="appointment-confirmation") == ["expired"]
    assert await clinic.inbox() == []


async def test_no_repeat_per_tick(clinic: Clinic, clock: FixedClock) -> None:
    """OpenEMR mails the same reminder every hour, since it looks up the wrong column."""
    await clinic.book()
    clock.advance(hours=25)
    for _ in range(5):
        await clinic.tick()
        clock.advance(minutes=15)
    assert len(await reminders(clinic)) == 1


async def test_recurring_occurrence_key(clinic: Clinic, clock: FixedClock) -> None:
    """OpenEMR marks a series as reminded, not its occurrences: each appointment has its own reminders."""
    first, second = await clinic.book(), await clinic.book(starts_at=clinic.in_two_days + timedelta(days=7))
    clock.advance(hours=25)
    await clinic.tick()
    clock.advance(days=7)
    await clinic.tick()
    told = await clinic.messages(purpose="appointment-reminder")
    done = {(m["about_id"], m["occurrence"]) for m in told if m["status"] not in {"planned", "expired"}}
    assert done == {(str(first), "24h"), (str(second), "24h")}


async def test_dedupe_does_not_touch_status(clinic: Clinic) -> None:
    """OpenEMR's dedupe overwrote the status: what comes again changes nothing."""
    appointment_id = await clinic.book()
    await clinic.send_due()
    await clinic.callbacks_done()
    before = await clinic.messages()
    await clinic.appointment("booked", appointment_id)
    await clinic.send_due()
    assert await clinic.messages() == before


async def test_reschedule_cancels_old_reminders(clinic: Clinic, clock: FixedClock) -> None:
    """cal.com still reminds of the old time, since its provider takes only so many cancellations."""
    appointment_id = await clinic.book()
    await clinic.send_due()
    later = clinic.in_two_days + timedelta(days=1)
    await clinic.appointment("rescheduled", appointment_id, 2, starts_at=later)
    await clinic.send_due()
    assert [m["template"] for m in await clinic.inbox()] == [
        "appointment_confirmation",
        "appointment_change",
    ]
    clock.advance(hours=48)
    await clinic.tick()
    assert await reminders(clinic) == []
    clock.advance(hours=1)
    await clinic.tick()
    [reminder] = await reminders(clinic)
    assert "5 марта 2026" in reminder["text"]


async def test_an_older_version_that_comes_late_brings_no_reminder_back(
    clinic: Clinic, clock: FixedClock
) -> None:
    appointment_id = uuid7()
    later = clinic.in_two_days + timedelta(days=1)
    await clinic.appointment("rescheduled", appointment_id, 2, starts_at=later)
    await clinic.appointment("booked", appointment_id, 1)
    await clinic.send_due()
    assert [m["template"] for m in await clinic.inbox()] == ["appointment_change"]
    assert {m["about_version"] for m in await clinic.messages(status="planned")} == {2}


async def test_a_cancelled_appointment_is_told_and_not_reminded_of(clinic: Clinic, clock: FixedClock) -> None:
    appointment_id = await clinic.book()
    await clinic.send_due()
    await clinic.appointment("cancelled", appointment_id, 2)
    await clinic.send_due()
    assert (await clinic.inbox())[-1]["template"] == "appointment_cancellation"
    assert await clinic.messages(status="planned") == []
    clock.advance(hours=25)
    await clinic.tick()
    assert await reminders(clinic) == []


async def test_a_missed_appointment_has_no_reminders_left(clinic: Clinic) -> None:
    appointment_id = await clinic.book()
    await clinic.appointment("missed", appointment_id, 2)
    assert await clinic.messages(status="planned") == []


async def test_what_waits_to_be_sent_goes_with_its_appointment(clinic: Clinic) -> None:
    await clinic.fault("whatsapp", status=503)
    appointment_id = await clinic.book()
    await clinic.send_due()
    await clinic.appointment("cancelled", appointment_id, 2)
    await clinic.try_now()
    assert await clinic.statuses(purpose="appointment-confirmation") == ["cancelled"]
    assert [m["template"] for m in await clinic.inbox()] == ["appointment_cancellation"]


async def test_a_patient_who_confirms_is_not_reminded_twice(clinic: Clinic, clock: FixedClock) -> None:
    appointment_id = await clinic.book()
    clock.advance(hours=25)
    await clinic.tick()
    await clinic.appointment("confirmed", appointment_id, 2, starts_at=clinic.in_two_days - timedelta(days=1))
    await clinic.tick()
    assert len(await reminders(clinic)) == 1
    assert [m["occurrence"] for m in await clinic.messages(status="planned")] == ["2h"]


async def test_a_confirmation_during_an_outage_doesn_t_lose_the_reminder(
    clinic: Clinic, clock: FixedClock
) -> None:
    starts_at = clinic.in_two_days
    appointment_id = await clinic.book()
    clock.advance(hours=26)
    await clinic.appointment("confirmed", appointment_id, 2, starts_at=starts_at)
    await clinic.tick()
    assert len(await reminders(clinic)) == 1


async def test_only_what_happens_now_is_told(clinic: Clinic, clock: FixedClock) -> None:
    example = await clinic.notifications.deliver_example("patients.patient-updated.v1", version=2)
    assert example
    for origin in (Origin.IMPORT, Origin.REPLAY):
        await _deliver_booking(clinic, origin)
    clock.advance(hours=25)
    await clinic.tick()
    assert await clinic.messages() == []
    assert await clinic.inbox() == []


async def _deliver_booking(clinic: Clinic, origin: Origin) -> None:
    example = contracts.examples("scheduling.appointment-booked.v1")[0]
    places = {
        "appointment_id": str(uuid7()),
        "patient_id": str(clinic.patient_id),
        "starts_at": "2026-03-04T07:00:00Z",
        "ends_at": "2026-03-04T07:30:00Z",
    }
    await clinic.notifications.deliver(
        "scheduling.appointment-booked.v1", example["data"] | places, example["private"], origin=origin
    )
