"""Events in: once and twice."""

import pytest
from clinic_referrals.app import service
from clinic_shared import contracts
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness


@pytest.mark.parametrize("event_type", sorted(service.handlers.subscriptions))
async def test_an_event_delivered_twice_takes_effect_once(referrals: ServiceHarness, event_type: str) -> None:
    example = contracts.examples(event_type)[0]
    data = example["data"] | ({"referral_id": None} if "referral_id" in example["data"] else {})
    event_id = uuid7()
    outcomes = [
        await referrals.deliver(event_type, data, example.get("private"), event_id=event_id) for _ in range(2)
    ]
    assert outcomes == ["applied", "duplicate"]
