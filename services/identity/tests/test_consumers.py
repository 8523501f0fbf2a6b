"""Events in: patients who can be given a login."""

import pytest
from clinic_identity.app import service
from clinic_identity.tables import patient
from clinic_shared import contracts
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness
from sqlalchemy import select

REGISTERED = "patients.patient-registered.v1"


async def stubs(identity: ServiceHarness) -> list[tuple[object, ...]]:
    async with identity.runtime.database.transaction() as tx:
        return [tuple(row) for row in await tx.fetch_all(select(patient))]


def test_handlers_are_those_of_the_contract() -> None:
    expected = {event.type for event in contracts.load().consumed_by("identity")}
    assert set(service.handlers.subscriptions) == expected


@pytest.mark.parametrize("number", range(len(contracts.examples(REGISTERED))))
async def test_every_example_is_taken_once(identity: ServiceHarness, number: int) -> None:
    example, event_id = contracts.examples(REGISTERED)[number], uuid7()
    for expected in ("applied", "duplicate"):
        disposition = await identity.deliver(
            REGISTERED, example["data"], example.get("private"), event_id=event_id
        )
        assert disposition == expected
    assert len(await stubs(identity)) == 1


async def test_nothing_personal_is_kept_of_a_patient(identity: ServiceHarness) -> None:
    payload = await identity.deliver_example(REGISTERED)
    assert [str(stub) for stub in await stubs(identity)]
    assert payload["name"]["family"] not in str(await stubs(identity))


async def test_an_older_version_that_arrives_late_changes_nothing(identity: ServiceHarness) -> None:
    data = contracts.examples(REGISTERED)[0]["data"]
    await identity.deliver(REGISTERED, {**data, "version": 3, "status": "deceased"})
    await identity.deliver(REGISTERED, data)
    [stub] = await stubs(identity)
    assert stub[1:] == (3, False)
