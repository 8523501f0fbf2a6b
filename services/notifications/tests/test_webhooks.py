"""Vendors' callbacks: signed or refused, repeated, reordered, early, late."""

import itertools
import json
from collections import Counter
from typing import Any, cast
from urllib.parse import urlencode
from uuid import UUID

import httpx
import pytest
from clinic_local.fakes.settings import FakesSettings
from clinic_local.fakes.twilio import sign as sign_twilio
from clinic_local.fakes.whatsapp import notification_body, sign
from clinic_notifications import tables
from clinic_notifications.channels import Accepted, Letter
from clinic_notifications.domain import Channel
from clinic_notifications.sending import Vendors
from clinic_notifications.settings import NotificationSettings
from clinic_shared.ledger import Ledger

from .conftest import PHONE, Clinic

SETTINGS = FakesSettings()
WHATSAPP = "/v1/webhooks/messaging/whatsapp"
TWILIO = "/v1/webhooks/messaging/twilio"


def status(reference: str, name: str, message_id: object = None, code: int | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": reference,
        "status": name,
        "timestamp": "1772431200",
        "recipient_id": "70000000001",
    }
    if message_id is not None:
        made["biz_opaque_callback_data"] = str(message_id)
    if code is not None:
        made["errors"] = [{"code": code, "title": "-"}]
    return made


async def post_whatsapp(
    clinic: Clinic, statuses: list[dict[str, Any]], signature: str | None = None
) -> httpx.Response:
    body = notification_body(SETTINGS.whatsapp_phone_number_id, {"statuses": statuses})
    return await post_body(clinic, body, signature)


async def post_body(clinic: Clinic, body: bytes, signature: str | None = None) -> httpx.Response:
    headers = {
        "content-type": "application/json",
        "x-hub-signature-256": signature or sign(SETTINGS.whatsapp_app_secret, body),
    }
    answer = await clinic.notifications.http.post(WHATSAPP, content=body, headers=headers)
    await clinic.work_off()
    return answer


async def fates(clinic: Clinic) -> list[str]:
    return [row["disposition"] for row in await clinic.rows(tables.callback)]


async def sent_messages(clinic: Clinic, count: int = 1) -> list[dict[str, Any]]:
    """Send some whose vendor says nothing more by itself."""
    clinic.gate.open = False
    for _ in range(count):
        await clinic.book()
    await clinic.send_due()
    await clinic.fakes.post("/_control/reset")
    clinic.gate.open = True
    return await clinic.rows(tables.message)


async def sent_message(clinic: Clinic) -> dict[str, Any]:
    [message] = await sent_messages(clinic)
    return message


async def test_statuses_in_any_order_end_at_the_furthest(clinic: Clinic) -> None:
    orders = list(itertools.permutations(["sent", "delivered", "read"]))
    for message, order in zip(await sent_messages(clinic, len(orders)), orders, strict=True):
        for name in [*order, *order]:
            answer = await post_whatsapp(clinic, [status(message["provider_reference"], name)])
            assert answer.status_code == 200
    told = await clinic.statuses(purpose="appointment-confirmation")
    assert [name for name in told if name != "planned"] == ["read"] * len(orders)
    names = Counter(await clinic.event_names())
    assert names == dict.fromkeys(("message-queued", "message-sent", "message-delivered"), len(orders))


async def test_a_failure_after_delivery_changes_nothing(clinic: Clinic) -> None:
    message = await sent_message(clinic)
    reference = message["provider_reference"]
    await post_whatsapp(clinic, [status(reference, "delivered"), status(reference, "failed", code=131026)])
    assert await clinic.statuses(purpose="appointment-confirmation") == ["delivered"]
    assert len(await clinic.rows(tables.delivery_status)) == 2


async def test_delivery_after_a_failure_doesn_t_bring_a_message_back(clinic: Clinic) -> None:
    message = await sent_message(clinic)
    reference = message["provider_reference"]
    await post_whatsapp(clinic, [status(reference, "failed", code=131026)])
    await post_whatsapp(clinic, [status(reference, "delivered")])
    assert await clinic.statuses(purpose="appointment-confirmation") == ["failed", "queued"]


async def test_a_status_of_nobody_s_message_is_kept(clinic: Clinic) -> None:
    assert (await post_whatsapp(clinic, [status("wamid.UNKNOWN", "sent")])).status_code == 200
    [kept] = await clinic.rows(tables.delivery_status)
    assert (kept["provider_reference"], kept["message_id"]) == ("wamid.UNKNOWN", None)


async def test_a_wrong_signature_is_refused_and_changes_nothing(clinic: Clinic) -> None:
    message = await sent_message(clinic)
    forged = sign("another-secret", b"")
    answer = await post_whatsapp(clinic, [status(message["provider_reference"], "read")], forged)
    assert answer.status_code == 403
    assert answer.json()["type"].endswith("/callback-signature-invalid")
    assert await clinic.statuses(purpose="appointment-confirmation") == ["sent"]
    assert await fates(clinic) == []


async def test_the_signature_counts_over_the_bytes_as_they_came(clinic: Clinic) -> None:
    body = notification_body(SETTINGS.whatsapp_phone_number_id, {"statuses": []})
    reserialised = json.dumps(json.loads(body)).encode()
    answer = await post_body(clinic, reserialised, sign(SETTINGS.whatsapp_app_secret, body))
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "body", [b"[]", b'{"entry":1}', b'{"entry":[{"changes":[{"value":{"statuses":[{"id":""}]}}]}]}']
)
async def test_what_the_vendor_signed_and_nobody_can_read_waits_for_a_person(
    clinic: Clinic, body: bytes
) -> None:
    assert (await post_body(clinic, body)).status_code == 200
    await assert_parked(clinic)


async def test_a_timestamp_beyond_time_waits_for_a_person(clinic: Clinic) -> None:
    beyond = status("wamid.X", "sent") | {"timestamp": "99999999999999999"}
    assert (await post_whatsapp(clinic, [beyond])).status_code == 200
    await assert_parked(clinic)


async def assert_parked(clinic: Clinic) -> None:
    [message] = (await clinic.get("/v1/ops/messages", "system-administrator")).json()["items"]
    assert (message["interface"], message["state"]) == ("whatsapp", "parked")
    assert await ledger_of(clinic, "whatsapp") == {"answered": 1, "parked": 1}


async def ledger_of(clinic: Clinic, interface: str) -> dict[str, int]:
    """What isn't zero of an interface's line, which must add up."""
    runtime = clinic.notifications.runtime
    async with runtime.database.transaction() as tx:
        counted = await Ledger.of(runtime).interfaces[interface](tx)
    assert counted.balanced, counted
    return {name: count for name, count in vars(counted).items() if count}


async def test_every_callback_is_accounted_for(clinic: Clinic) -> None:
    message = await sent_message(clinic)
    reference = message["provider_reference"]
    twice = [status(reference, "delivered")]
    for told in (twice, twice, [status(reference, "delivered") | {"conversation": {}}], []):
        await post_whatsapp(clinic, told)
    await post_twilio(clinic, "queued", sid="SM1")
    await post_twilio(clinic, "sent", sid="SM1")
    assert await ledger_of(clinic, "whatsapp") == {
        "answered": 4,
        "applied": 1,
        "duplicate": 1,
        "superseded": 1,
        "rejected": 1,
    }
    assert await ledger_of(clinic, "twilio") == {"answered": 2, "applied": 1, "rejected": 1}


async def test_what_a_patient_writes_is_kept_once(clinic: Clinic) -> None:
    await clinic.behave(duplicate_every=1)
    reply = {"sender": PHONE, "text": "Test reply"}
    assert (await clinic.fakes.post("/_control/whatsapp/replies", json=reply)).status_code == 202
    await clinic.callbacks_done()
    [kept] = await clinic.rows(tables.reply)
    assert kept["content"]["text"] == {"body": "Test reply"}


async def test_other_notifications_are_taken(clinic: Clinic) -> None:
    body = notification_body(SETTINGS.whatsapp_phone_number_id, {"contacts": [], "errors": [{"code": 1}]})
    assert (await post_body(clinic, body)).status_code == 200
    assert (await post_whatsapp(clinic, [status("wamid.D", "deleted")])).status_code == 200


async def test_meta_s_challenge_is_echoed_to_who_knows_the_token(clinic: Clinic) -> None:
    query = {
        "hub.mode": "subscribe",
        "hub.verify_token": SETTINGS.whatsapp_verify_token,
        "hub.challenge": "1158201444",
    }
    http = clinic.notifications.http
    answer = await http.get(WHATSAPP, params=query)
    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert (await http.get(WHATSAPP, params=query | {"hub.verify_token": "guessed"})).status_code == 403
    assert (await http.get(WHATSAPP, params=query | {"hub.challenge": "<b>"})).status_code == 422
    assert (await http.get(WHATSAPP)).status_code == 422


async def test_the_fake_can_verify_the_subscription(clinic: Clinic) -> None:
    assert (await clinic.fakes.post("/_control/whatsapp/verify")).json() == {"verified": True}


async def post_twilio(
    clinic: Clinic, name: str, *, sid: str, message_id: UUID | None = None, signed_url: str | None = None
) -> httpx.Response:
    query = f"?message_id={message_id}" if message_id else ""
    fields = {"MessageSid": sid, "MessageStatus": name, "To": "+70000000001"}
    settings = cast("NotificationSettings", clinic.notifications.runtime.settings)
    url = signed_url or f"{settings.url}{TWILIO}{query}"
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "x-twilio-signature": sign_twilio(SETTINGS.twilio_auth_token, url, fields),
    }
    answer = await clinic.notifications.http.post(
        f"{TWILIO}{query}", content=urlencode(fields), headers=headers
    )
    await clinic.work_off()
    return answer


async def test_an_sms_is_followed_by_the_id_in_its_callback_s_address(clinic: Clinic) -> None:
    await clinic.fault("whatsapp", code="132015")
    await clinic.book()
    await clinic.send_due()
    await clinic.callbacks_done()
    assert await clinic.statuses(purpose="appointment-confirmation") == ["failed", "delivered"]


async def test_a_twilio_status_signed_for_another_address_is_refused(clinic: Clinic) -> None:
    answer = await post_twilio(clinic, "sent", sid="SM1", signed_url="https://elsewhere.example.org/")
    assert answer.status_code == 403
    assert (await post_twilio(clinic, "sent", sid="SM1")).status_code == 200


async def test_twilio_s_own_states_before_sending_are_no_news(clinic: Clinic) -> None:
    assert (await post_twilio(clinic, "queued", sid="SM1")).status_code == 200
    assert await clinic.rows(tables.delivery_status) == []


async def test_a_status_that_comes_before_we_know_the_reference_is_not_lost(clinic: Clinic) -> None:
    class Scripted:
        provider = "whatsapp"

        async def send(self, letter: Letter) -> Accepted:
            assert letter.template_name == "appointment_confirmation"
            # The vendor is faster than the way back of its own answer, and doesn't hand our id back.
            await post_whatsapp(clinic, [status("wamid.EARLY", "delivered")])
            return Accepted("wamid.EARLY")

    clinic.notifications.runtime.provide(Vendors({Channel.WHATSAPP: Scripted()}))
    await clinic.book()
    await clinic.send_due()
    assert await clinic.statuses(purpose="appointment-confirmation") == ["delivered"]
    assert await clinic.event_names() == ["message-queued", "message-sent", "message-delivered"]
