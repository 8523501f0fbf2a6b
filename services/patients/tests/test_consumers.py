"""Events in: once, twice, late, erased and malformed."""

import pytest
from clinic_patients import tables
from clinic_patients.app import service
from clinic_shared import contracts
from clinic_shared.consumer import apply
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.events import Origin
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness
from pydantic import ValidationError

from .conftest import Clinic

EVENT_TYPES = sorted(service.handlers.subscriptions)


def test_the_handlers_are_those_of_the_contracts() -> None:
    assert set(EVENT_TYPES) == {event.type for event in contracts.load().consumed_by("patients")}


async def test_every_example_takes_effect_once_with_and_without_its_private_part(
    patients: ServiceHarness,
) -> None:
    for event_type in EVENT_TYPES:
        for example in contracts.examples(event_type):
            event_id = uuid7()
            dispositions = [
                await patients.deliver(event_type, example["data"], private, event_id=event_id)
                for private in (None, example.get("private"))
            ]
            assert dispositions == ["applied", "duplicate"], event_type
            again = await patients.deliver(event_type, example["data"], example.get("private"))
            assert again == "applied", event_type


async def test_a_malformed_event_is_refused(patients: ServiceHarness) -> None:
    for event_type in EVENT_TYPES:
        with pytest.raises(ValidationError):
            await apply(patients.runtime, envelope(patients, event_type), encode_body({"version": "x"}, None))


def envelope(patients: ServiceHarness, event_type: str) -> Envelope:
    return Envelope(
        id=uuid7(),
        source=event_type.partition(".")[0],
        type=event_type,
        subject=uuid7(),
        time=patients.clock.now(),
        aggregate_version=1,
        partition_key=uuid7(),
        recorded_at=patients.clock.now(),
        origin=Origin.LIVE,
        correlation_id=uuid7(),
    )


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ("scheduling.appointment-completed.v1", "scheduling.appointment-booked.v1"),
        ("referrals.referral-closed.v1", "referrals.referral-created.v1"),
    ],
)
async def test_an_older_version_that_arrives_late_changes_nothing(
    clinic: Clinic, newer: str, older: str
) -> None:
    await clinic.patients.deliver_example(newer, version=9)
    before = await clinic.rows(tables.timeline_entry)
    await clinic.patients.deliver_example(older)
    assert await clinic.rows(tables.timeline_entry) == before


async def test_an_older_state_of_identity_changes_nothing(clinic: Clinic) -> None:
    closed = contracts.examples("identity.department-closed.v1")[0]["data"]
    await clinic.patients.deliver("identity.department-closed.v1", {**closed, "version": 5})
    await clinic.patients.deliver("identity.department-opened.v1", _opened(closed["department_id"]))
    [department] = [
        row
        for row in await clinic.rows(tables.department)
        if str(row["department_id"]) == closed["department_id"]
    ]
    assert department["active"] is False


def _opened(department_id: str) -> dict[str, object]:
    return {
        **contracts.examples("identity.department-opened.v1")[0]["data"],
        "department_id": department_id,
        "version": 1,
    }
