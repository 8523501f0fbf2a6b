"""Codes for logins: by SMS alone, in clear for the vendor's eyes only."""

import base64
import json
import re
from typing import Any
from uuid import UUID

from clinic_shared import contracts
from clinic_shared.encryption.one_way import new_key_pair, open_sealed
from clinic_shared.events import Origin
from clinic_shared.ids import uuid7

from .conftest import PHONE, Clinic, wire
from .test_links import everything_kept

REQUESTED = "identity.one-time-code-requested.v1"
ATTEMPTED = "notifications.one-time-code-attempted.v1"


async def ask(clinic: Clinic, public_key: str) -> UUID:
    request_id = uuid7()
    now = clinic.notifications.clock.now()
    known: dict[str, Any] = {"patient_id": str(clinic.patient_id), "public_key": public_key}
    known |= {"requested_at": wire(now), "expires_at": wire(now.replace(hour=23, minute=59))}
    await clinic.notifications.deliver_example(REQUESTED, request_id=str(request_id), **known)
    return request_id


def code_in(received: dict[str, Any]) -> str:
    found = re.search(r"(?<!\d)\d{6}(?!\d)", received["text"])
    assert found, received["text"]
    return found[0]


async def test_the_code_goes_by_sms_whatever_the_patient_wants_and_identity_alone_can_read_it(
    clinic: Clinic,
) -> None:
    registrar = clinic.notifications.headers(clinic.notifications.principal("registrar"))
    choice = {"channels": ["email"], "opted_out": ["sign-in-code"]}
    path = f"/v1/messages/preferences/{clinic.patient_id}"
    saved = await clinic.notifications.http.put(path, json=choice, headers=registrar)
    assert saved.status_code == 200, saved.text
    private_key, public_key = new_key_pair()
    request_id = await ask(clinic, public_key)
    await clinic.send_due()
    [received] = await clinic.inbox()
    assert (received["channel"], received["to"]) == ("sms", PHONE)
    code = code_in(received)
    [attempted] = await clinic.notifications.events(ATTEMPTED)
    box = base64.b64decode(attempted.private["box"])
    content = json.loads(open_sealed(private_key, box, f"one-time-code:{request_id}"))
    assert content == {"code": code, "number": PHONE}
    kept = await everything_kept(clinic)
    assert "***" in kept
    assert re.search(rf"(?<=[\s'\"]){code}(?=[\s'\"])", kept) is None  # ids hold any six digits


async def test_a_repeated_message_carries_a_code_of_its_own(clinic: Clinic) -> None:
    await clinic.fault("twilio", status=503)
    private_key, public_key = new_key_pair()
    request_id = await ask(clinic, public_key)
    await clinic.send_due()
    await clinic.try_now()
    [received] = await clinic.inbox()
    attempts = await clinic.notifications.events(ATTEMPTED)
    earlier, later = (attempt.data["version"] for attempt in attempts)
    assert earlier < later
    box = base64.b64decode(attempts[-1].private["box"])
    content = json.loads(open_sealed(private_key, box, f"one-time-code:{request_id}"))
    assert content["code"] == code_in(received)


async def test_where_an_sms_fails_no_other_channel_gets_the_code(clinic: Clinic) -> None:
    await clinic.fault("twilio", code="21211")
    await ask(clinic, new_key_pair()[1])
    while await clinic.send_due():
        continue
    assert await clinic.inbox() == []
    assert await clinic.statuses() == ["failed"]


async def test_what_is_replayed_sends_no_code(clinic: Clinic) -> None:
    for example in contracts.examples(REQUESTED):
        await clinic.notifications.deliver(REQUESTED, example["data"], origin=Origin.REPLAY)
    assert await clinic.send_due() == 0
