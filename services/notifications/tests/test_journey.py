"""From a booking to the patient's phone."""

import asyncio

from clinic_notifications.sending import send_messages
from clinic_shared.testing import eventually

from .conftest import Clinic


async def test_a_booking_is_confirmed_on_the_patients_phone_within_moments(clinic: Clinic) -> None:
    stop = asyncio.Event()
    loop = asyncio.create_task(send_messages(clinic.notifications.runtime, stop))
    await clinic.book()
    [received] = await eventually(clinic.inbox, every=0.02)
    stop.set()
    await loop
    assert (received["template"], received["to"]) == ("appointment_confirmation", "+70000000001")
    assert received["language"] == "ru"
    assert "4 марта 2026" in received["text"]
    assert "10:00" in received["text"]
    assert "Дерматология" in received["text"]


async def test_a_message_is_followed_until_it_is_read(clinic: Clinic) -> None:
    await clinic.book()
    await clinic.send_due()
    await eventually(lambda: _is(clinic, "read"))
    assert await clinic.event_names() == ["message-queued", "message-sent", "message-delivered"]


async def _is(clinic: Clinic, status: str) -> bool:
    await clinic.work_off()
    return (await clinic.statuses(purpose="appointment-confirmation")) == [status]
