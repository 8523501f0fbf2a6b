"""Links to choose a password with: sent to their owners, and kept nowhere on the way."""

import hashlib
import re
from typing import Any
from uuid import UUID

import pytest
from clinic_notifications import tables
from clinic_shared import contracts
from clinic_shared.events import Origin, audit_outbox
from clinic_shared.ids import uuid7

from .conftest import MAIL, PHONE, Clinic, wire
from .test_staff import reach

REQUESTED = "identity.access-link-requested.v1"
ATTEMPTED = "notifications.access-link-attempted.v1"


async def ask(clinic: Clinic, **changes: Any) -> UUID:
    request_id = uuid7()
    now = clinic.notifications.clock.now()
    known = {"staff_id": None, "patient_id": None, "requested_at": wire(now)}
    known |= {"expires_at": wire(now.replace(hour=23, minute=59))}
    await clinic.notifications.deliver_example(REQUESTED, request_id=str(request_id), **known | changes)
    return request_id


def token_in(text: str) -> str:
    found = re.search(r"https://clinic\.example/welcome\?token=(al_[\w-]{43})(?![\w-])", text)
    assert found, text
    return found[1]


async def everything_kept(clinic: Clinic) -> str:
    audit = await clinic.rows(audit_outbox)
    events = [(event.data, event.private) for event in await clinic.notifications.events()]
    return str([await clinic.rows(tables.message), events, [bytes(row["record"]) for row in audit]])


async def test_a_member_of_staff_gets_a_link_whose_secret_is_kept_nowhere(clinic: Clinic) -> None:
    staff_id = uuid7()
    await reach(clinic, staff_id, email="testina@example.org", language="en", channels=["email"])
    request_id = await ask(clinic, staff_id=str(staff_id))
    await clinic.send_due()
    [received] = await clinic.inbox()
    assert (received["channel"], received["to"]) == ("email", "testina@example.org")
    token = token_in(received["text"])
    [attempted] = await clinic.notifications.events(ATTEMPTED)
    assert attempted.data["request_id"] == str(request_id)
    assert attempted.private["digest"] == hashlib.sha256(token.encode()).hexdigest()
    kept = await everything_kept(clinic)
    assert "token=***" in kept
    assert token not in kept


async def test_a_patient_who_wants_no_messages_about_it_gets_a_link_of_their_own_all_the_same(
    clinic: Clinic,
) -> None:
    registrar = clinic.notifications.headers(clinic.notifications.principal("registrar"))
    choice = {"channels": ["sms", "email"], "opted_out": ["password-reset"]}
    path = f"/v1/messages/preferences/{clinic.patient_id}"
    await clinic.notifications.http.put(path, json=choice, headers=registrar)
    await ask(clinic, patient_id=str(clinic.patient_id), purpose="reset")
    await clinic.send_due()
    [received] = await clinic.inbox()
    assert received["to"] == PHONE
    token_in(received["text"])


async def test_a_repeated_message_carries_a_link_of_its_own(clinic: Clinic) -> None:
    await clinic.fault("whatsapp", status=503)
    await ask(clinic, patient_id=str(clinic.patient_id))
    await clinic.send_due()
    await clinic.try_now()
    [received] = await clinic.inbox()
    attempts = await clinic.notifications.events(ATTEMPTED)
    digests = [attempt.private["digest"] for attempt in attempts]
    assert len(set(digests)) == 2
    versions = [attempt.data["version"] for attempt in attempts]
    assert versions == sorted(set(versions))
    assert hashlib.sha256(token_in(received["text"]).encode()).hexdigest() == digests[-1]


@pytest.mark.parametrize("contact", [{}, {"phone": PHONE, "email": MAIL, "channels": ["sms", "email"]}])
async def test_identity_is_told_of_a_link_that_reaches_nobody(
    clinic: Clinic, contact: dict[str, Any]
) -> None:
    staff_id = uuid7()
    if contact:
        await reach(clinic, staff_id, **contact)
    await clinic.fault("twilio", code="21211")
    await clinic.fault("postmark", code="406")
    await ask(clinic, staff_id=str(staff_id))
    while await clinic.send_due():
        continue
    last = (await clinic.notifications.events(ATTEMPTED))[-1]
    assert last.data["state"] == "undeliverable"
    assert last.data["failure_code"] == ("undeliverable" if contact else "no-address")
    assert last.private["digest"] is None


async def test_what_is_replayed_sends_no_link(clinic: Clinic) -> None:
    for example in contracts.examples(REQUESTED):
        await clinic.notifications.deliver(REQUESTED, example["data"], origin=Origin.REPLAY)
    assert await clinic.send_due() == 0
