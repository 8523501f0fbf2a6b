"""People are told of logins on devices never seen before: when, where from, and what to do."""

from typing import Any

import pytest
from clinic_shared.ids import uuid7

from .conftest import PHONE, Clinic
from .test_staff import reach

SEEN = "identity.new-device-seen.v1"


async def seen(clinic: Clinic, **changes: Any) -> str:
    """Return what a member of staff is told; by SMS, since WhatsApp keeps the wording itself."""
    staff_id = uuid7()
    await reach(clinic, staff_id, phone=PHONE, language="ru", channels=["sms"])
    await clinic.notifications.deliver_example(SEEN, staff_id=str(staff_id), patient_id=None, **changes)
    await clinic.send_due()
    [received] = await clinic.inbox()
    assert received["to"] == PHONE
    return str(received["text"])


async def test_the_owner_is_told_when_and_where_from(clinic: Clinic) -> None:
    said = await seen(clinic, agent="Call +70000000666")
    for part in ("203.0.113.7", "2 марта 2026", "06:00 UTC", "смените пароль"):
        assert part in said
    assert "+70000000666" not in said


@pytest.mark.parametrize("address", [None, "unknown", "call +70000000666"])
async def test_without_an_address_the_rest_is_said(clinic: Clinic, address: str | None) -> None:
    said = await seen(clinic, address=address)
    assert "06:00 UTC" in said
    assert "+70000000666" not in said
