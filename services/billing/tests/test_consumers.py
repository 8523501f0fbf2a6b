"""Events in: once, twice, late, and malformed."""

import pytest
from clinic_billing import tables
from clinic_billing.app import service
from clinic_shared import contracts
from clinic_shared.consumer import apply
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.events import Origin
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness
from pydantic import ValidationError

from .conftest import Till

EVENT_TYPES = sorted(service.handlers.subscriptions)


def test_the_subscriptions_are_those_of_the_contract() -> None:
    assert set(EVENT_TYPES) == {event.type for event in contracts.load().consumed_by("billing")}


@pytest.mark.parametrize("event_type", EVENT_TYPES)
async def test_every_example_delivered_twice_takes_effect_once(
    billing: ServiceHarness, event_type: str
) -> None:
    for example in contracts.examples(event_type):
        event_id = uuid7()
        first, second = [
            await billing.deliver(event_type, example["data"], example.get("private"), event_id=event_id)
            for _ in range(2)
        ]
        assert (first, second) == ("applied", "duplicate")


async def test_an_older_version_that_arrives_late_changes_nothing(till: Till) -> None:
    changed = {"centre_id": str(till.centre_id), "version": 3, "currency": "KZT"}
    example = contracts.examples("identity.centre-changed.v1")[0]["data"]
    await till.billing.deliver("identity.centre-changed.v1", example | changed)
    await till.billing.deliver(
        "identity.centre-changed.v1", example | changed | {"version": 2, "currency": "RUB"}
    )
    assert {row["currency"] for row in await till.rows(tables.centre)} == {"KZT"}


async def test_after_a_change_of_currency_a_price_in_the_old_one_no_longer_counts(till: Till) -> None:
    example = contracts.examples("identity.centre-changed.v1")[0]["data"]
    changed = {"centre_id": str(till.centre_id), "version": 3, "currency": "KZT"}
    await till.billing.deliver("identity.centre-changed.v1", example | changed)
    await till.complete_visit()
    assert await till.rows(tables.invoice) == []


async def test_a_malformed_visit_is_refused_as_a_whole(till: Till) -> None:
    event_type, subject = "scheduling.appointment-completed.v1", uuid7()
    data = contracts.examples(event_type)[0]["data"] | {"centre_id": "nowhere"}
    envelope = Envelope(
        id=uuid7(),
        source="scheduling",
        type=event_type,
        subject=subject,
        time=till.billing.clock.now(),
        aggregate_version=1,
        partition_key=subject,
        recorded_at=till.billing.clock.now(),
        origin=Origin.LIVE,
        correlation_id=uuid7(),
    )
    with pytest.raises(ValidationError):
        await apply(till.billing.runtime, envelope, encode_body(data, None))
    assert await till.rows(tables.charge_item) == []
