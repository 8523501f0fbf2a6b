"""Events in: once, twice, late, and malformed."""

import pytest
from clinic_scheduling import tables
from clinic_scheduling.app import service
from clinic_shared import contracts
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness
from sqlalchemy import Table, select

EVENT_TYPES = sorted(service.handlers.subscriptions)


async def rows(scheduling: ServiceHarness, table: Table) -> list[dict[str, object]]:
    async with scheduling.runtime.database.transaction() as tx:
        return [dict(row._mapping) for row in await tx.fetch_all(select(table))]


@pytest.mark.parametrize("event_type", EVENT_TYPES)
async def test_an_event_delivered_twice_takes_effect_once(
    scheduling: ServiceHarness, event_type: str
) -> None:
    example = contracts.examples(event_type)[0]
    event_id = uuid7()
    first = await scheduling.deliver(event_type, example["data"], example.get("private"), event_id=event_id)
    second = await scheduling.deliver(event_type, example["data"], example.get("private"), event_id=event_id)
    assert (first, second) == ("applied", "duplicate")


async def test_an_older_version_that_arrives_late_changes_nothing(scheduling: ServiceHarness) -> None:
    await scheduling.deliver_example("identity.centre-changed.v1", version=3, time_zone="Asia/Omsk")
    await scheduling.deliver_example("identity.centre-opened.v1", version=1)
    [centre] = await rows(scheduling, tables.centre)
    assert (centre["version"], centre["time_zone"]) == (3, "Asia/Omsk")


async def test_a_deactivated_practitioner_is_no_longer_offered(scheduling: ServiceHarness) -> None:
    staff_id = str(uuid7())
    await scheduling.deliver_example("identity.staff-member-added.v1", staff_id=staff_id)
    await scheduling.deliver_example("identity.staff-member-deactivated.v1", version=2, staff_id=staff_id)
    [practitioner] = await rows(scheduling, tables.resource)
    assert practitioner["active"] is False


async def test_a_practitioner_whose_name_was_erased_is_kept(scheduling: ServiceHarness) -> None:
    example = contracts.examples("identity.staff-member-added.v1")[0]
    await scheduling.deliver("identity.staff-member-added.v1", example["data"], None)
    [practitioner] = await rows(scheduling, tables.resource)
    assert practitioner["name"] is None
