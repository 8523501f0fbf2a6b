"""What vendors do to us: refusals, silence, outages; and that nobody is written to twice."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from datetime import datetime
from io import BytesIO

import httpx
import structlog
from clinic_notifications import tables
from clinic_notifications.channels.twilio import Twilio
from clinic_notifications.domain import Channel
from clinic_notifications.sending import Sender, Vendors
from clinic_notifications.settings import NotificationSettings
from clinic_shared import metrics, telemetry
from clinic_shared.ids import uuid7
from clinic_shared.testing import eventually
from sqlalchemy import func, select

from .conftest import MAIL, PHONE, Clinic

UNREACHABLE = "+79990131026"
CONFIRMATION = "appointment-confirmation"


async def test_two_senders_never_send_one_message_twice(clinic: Clinic) -> None:
    await clinic.behave(read_receipts=False)
    booked = [await clinic.book() for _ in range(16)]
    senders = [Sender(clinic.notifications.runtime) for _ in range(2)]
    sent = await asyncio.gather(*(sender.send_due() for sender in senders))
    received = Counter(m["request"]["biz_opaque_callback_data"] for m in await clinic.inbox())
    assert sum(sent) == len(received) == len(booked)
    assert set(received.values()) == {1}


async def test_an_answer_that_comes_too_late_leads_to_no_second_message(clinic: Clinic) -> None:
    clinic.lose_patience()
    await clinic.fault("whatsapp", delay_seconds=2, after_accepting=True)
    await clinic.book()
    await clinic.send_due()
    await clinic.callbacks_done()
    assert await clinic.statuses(purpose=CONFIRMATION) == ["read"]
    await clinic.try_now()
    assert len(await clinic.inbox()) == 1
    [message] = await clinic.rows(tables.message)
    assert message["provider_reference"] == (await clinic.inbox())[0]["id"]


async def test_a_call_without_answer_is_not_repeated_within_the_grace(clinic: Clinic) -> None:
    clinic.gate.open = False
    clinic.lose_patience()
    await clinic.fault("whatsapp", delay_seconds=2, after_accepting=True)
    await clinic.book()
    for _ in range(3):
        await clinic.send_due()
    assert len(await clinic.inbox()) == 1
    assert await clinic.statuses(purpose=CONFIRMATION) == ["queued"]


async def test_without_answer_and_callback_a_call_is_repeated_once_and_then_shown(clinic: Clinic) -> None:
    clinic.gate.open = False
    clinic.lose_patience()
    await clinic.fault("whatsapp", delay_seconds=2, after_accepting=True, times=2)
    await clinic.book()
    for _ in range(4):
        await clinic.try_now()
    assert len([m for m in await clinic.inbox() if m["channel"] == "whatsapp"]) == 2
    [failed] = await clinic.messages(purpose=CONFIRMATION, status="failed")
    assert failed["failure_code"] == "provider-error"


async def test_the_late_callback_of_a_repeated_call_still_counts(clinic: Clinic) -> None:
    clinic.gate.open = False
    clinic.lose_patience()
    await clinic.fault("whatsapp", delay_seconds=2, after_accepting=True)
    await clinic.book()
    await clinic.try_now()
    await clinic.try_now()
    clinic.gate.open = True
    await clinic.callbacks_done()
    assert await clinic.statuses(purpose=CONFIRMATION) == ["read"]


async def test_dying_between_the_vendor_s_yes_and_our_record_of_it_sends_nothing_twice(
    clinic: Clinic,
) -> None:
    await clinic.book()
    settings = clinic.notifications.runtime.settings
    environment = {
        **os.environ,
        "CLINIC_DATABASE_URL": settings.database_url.get_secret_value(),
        "CLINIC_AMQP_URL": settings.amqp_url.get_secret_value(),
        "CLINIC_WHATSAPP_BASE_URL": str(clinic.fakes.base_url).rstrip("/"),
        "CLINIC_CRASH_AT": "message.call.after",
    }
    process = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", SEND_ONCE], env=environment, timeout=60, check=False
    )
    assert process.returncode == -9
    await clinic.callbacks_done()
    await clinic.try_now()
    assert len(await clinic.inbox()) == 1
    assert await clinic.statuses(purpose=CONFIRMATION) == ["read"]


SEND_ONCE = """
import asyncio
from datetime import UTC, datetime
from clinic_notifications.app import service
from clinic_notifications.sending import Sender
from clinic_shared.service import running
from clinic_shared.testing import FixedClock

async def main():
    async with running(service, service.settings.load(), clock=FixedClock()) as runtime:
        await Sender(runtime).send_due()

asyncio.run(main())
"""


async def test_an_outage_is_waited_out_with_growing_pauses(clinic: Clinic) -> None:
    await clinic.fault("whatsapp", status=500, times=3)
    await clinic.book()
    for _ in range(3):
        assert await clinic.try_now() == 1
        assert await clinic.send_due() == 0
    await clinic.try_now()
    assert len(await clinic.inbox()) == 1
    [message] = await clinic.rows(tables.message)
    assert (message["attempts"], message["unknown_outcomes"]) == (4, 0)


async def test_a_rate_limit_is_obeyed(clinic: Clinic) -> None:
    await clinic.fault("whatsapp", code="130429", retry_after_seconds=120)
    await clinic.book()
    await clinic.send_due()
    [message] = await clinic.rows(tables.message)
    waits = message["next_attempt_at"] - await _database_now(clinic)
    assert 110 < waits.total_seconds() <= 120


async def test_a_number_without_whatsapp_gets_an_sms_and_then_a_mail(clinic: Clinic) -> None:
    patient_id = await clinic.register(phones=[UNREACHABLE])
    await clinic.book(patient_id=patient_id)

    async def mailed() -> bool:
        await clinic.work_off()
        await clinic.send_due()
        return len(await clinic.inbox()) == 3

    await eventually(mailed)
    assert [m["channel"] for m in await clinic.inbox()] == ["whatsapp", "sms", "email"]
    told = await clinic.messages(patient_id=str(patient_id), purpose=CONFIRMATION)
    assert [(m["channel"], m["status"], m["failure_code"]) for m in told] == [
        ("whatsapp", "failed", "undeliverable"),
        ("sms", "failed", "undeliverable"),
        ("email", "sent", None),
    ]
    assert (await clinic.inbox())[-1]["subject"] == "Вы записаны: 4 марта 2026, 10:00"


async def test_a_refused_template_degrades_to_the_next_channel(clinic: Clinic) -> None:
    await clinic.fault("whatsapp", code="132015")
    await clinic.book()
    await clinic.send_due()
    [sms] = await clinic.inbox()
    assert sms["channel"] == "sms"
    assert "4 марта 2026" in sms["text"]
    assert (await clinic.messages(status="failed"))[0]["failure_code"] == "template-rejected"


async def test_who_is_out_of_the_service_window_gets_an_sms(clinic: Clinic) -> None:
    await clinic.fault("whatsapp", code="131047")
    await clinic.book()

    async def texted() -> bool:
        await clinic.work_off()
        await clinic.send_due()
        return [m["channel"] for m in await clinic.inbox()] == ["whatsapp", "sms"]

    await eventually(texted)


async def test_a_failure_reported_twice_falls_back_once(clinic: Clinic) -> None:
    await clinic.behave(duplicate_every=1)
    patient_id = await clinic.register(phones=[UNREACHABLE], emails=[])
    await clinic.book(patient_id=patient_id)
    for _ in range(3):
        await clinic.send_due()
        await clinic.callbacks_done()
    assert [m["channel"] for m in await clinic.inbox()] == ["whatsapp", "sms"]


async def test_our_own_broken_token_fails_no_message(clinic: Clinic) -> None:
    await clinic.fault("whatsapp", code="190")
    await clinic.book()
    await clinic.send_due()
    assert await clinic.statuses(purpose=CONFIRMATION) == ["queued"]


async def test_a_message_waits_for_the_patient_s_address_to_arrive(clinic: Clinic) -> None:
    patient_id = uuid7()
    await clinic.book(patient_id=patient_id)
    await clinic.send_due()
    assert await clinic.inbox() == []
    await clinic.register(patient_id)
    await clinic.try_now()
    assert [m["to"] for m in await clinic.inbox()] == [PHONE]


async def test_a_dead_patient_is_not_written_to(clinic: Clinic) -> None:
    await clinic.book()
    await clinic.notifications.deliver_example(
        "patients.patient-updated.v1", version=2, patient_id=str(clinic.patient_id), status="deceased"
    )
    await clinic.send_due()
    assert await clinic.inbox() == []
    assert await clinic.statuses(purpose=CONFIRMATION) == ["cancelled"]


async def test_texts_phones_and_addresses_stay_out_of_logs_and_metrics(clinic: Clinic) -> None:
    stream = BytesIO()
    try:
        telemetry.configure_logging("notifications", "DEBUG", stream=stream)
        clinic.lose_patience()
        clinic.gate.open = False
        await clinic.fault("whatsapp", delay_seconds=2, after_accepting=True)
        await clinic.fault("whatsapp", status=503)
        await clinic.book()
        await clinic.try_now()
        await clinic.try_now()
        clinic.gate.open = True
        await clinic.callbacks_done()
    finally:
        structlog.reset_defaults()
    logged = stream.getvalue().decode() + metrics.exposition()[0].decode()
    assert "message_outcome_unknown" in logged
    for secret in (PHONE, PHONE.removeprefix("+"), MAIL, "дерматолог", "Тестова"):
        assert secret not in logged


async def _database_now(clinic: Clinic) -> datetime:
    async with clinic.notifications.runtime.database.transaction() as tx:
        row = await tx.fetch_one(select(func.clock_timestamp().label("now")))
    assert row is not None
    return row.now


async def test_no_text_message_goes_to_a_number_that_the_operator_did_not_name(clinic: Clinic) -> None:
    runtime = clinic.notifications.runtime
    settings = runtime.settings
    assert isinstance(settings, NotificationSettings)
    adapters = dict(runtime.get(Vendors).adapters)
    limited = settings.model_copy(update={"sms_prefixes": "+375,+7111"})
    adapters[Channel.SMS] = Twilio(runtime.get(httpx.AsyncClient), limited)
    del adapters[Channel.WHATSAPP]
    runtime.provide(Vendors(adapters, abroad={Channel.WHATSAPP: "US"}))
    await clinic.book()
    await clinic.send_due()
    await clinic.send_due()
    assert {sent["channel"] for sent in await clinic.inbox()} == {"email"}
    failed = await clinic.messages(purpose=CONFIRMATION, status="failed")
    assert [message["failure_code"] for message in failed] == ["undeliverable"]
