"""Events in: once, twice, late, and malformed."""

import pytest
from clinic_lab_integration import protection, tables
from clinic_lab_integration.app import service
from clinic_lab_integration.domain import Identifier
from clinic_shared import contracts
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness
from pydantic import ValidationError
from sqlalchemy import Table, select

EVENT_TYPES = sorted(service.handlers.subscriptions)


async def rows(lab_integration: ServiceHarness, table: Table) -> list[dict[str, object]]:
    async with lab_integration.runtime.database.transaction() as tx:
        return [dict(row._mapping) for row in await tx.fetch_all(select(table))]


@pytest.mark.parametrize("event_type", EVENT_TYPES)
async def test_an_event_delivered_twice_takes_effect_once(
    lab_integration: ServiceHarness, event_type: str
) -> None:
    example = contracts.examples(event_type)[0]
    event_id = uuid7()
    deliver = lab_integration.deliver
    first = await deliver(event_type, example["data"], example.get("private"), event_id=event_id)
    second = await deliver(event_type, example["data"], example.get("private"), event_id=event_id)
    assert (first, second) == ("applied", "duplicate")


async def test_an_older_version_of_a_laboratory_changes_nothing(lab_integration: ServiceHarness) -> None:
    await lab_integration.deliver_example("identity.lab-changed.v1", version=3, active=False)
    await lab_integration.deliver_example("identity.lab-registered.v1", version=1)
    [partner] = await rows(lab_integration, tables.partner)
    assert (partner["version"], partner["active"]) == (3, False)


async def test_an_older_version_of_a_patient_brings_no_identifier_back(
    lab_integration: ServiceHarness,
) -> None:
    new = [{"authority": "POLYCLINIC", "type": "MR", "value": "NEW"}]
    await lab_integration.deliver_example("patients.patient-updated.v1", version=2, identifiers=new)
    await lab_integration.deliver_example("patients.patient-registered.v1", version=1)
    async with lab_integration.runtime.database.transaction() as tx:
        [row] = await tx.fetch_all(select(tables.patient_identifier))
        assert protection.opened_number(tx, row) == Identifier("POLYCLINIC", "NEW")


async def test_an_erased_patient_has_no_identifiers_left(lab_integration: ServiceHarness) -> None:
    await lab_integration.deliver_example("patients.patient-registered.v1", version=1)
    example = contracts.examples("patients.patient-updated.v1")[0]
    await lab_integration.deliver("patients.patient-updated.v1", example["data"], None)
    assert await rows(lab_integration, tables.patient_identifier) == []


async def test_a_malformed_event_changes_nothing(lab_integration: ServiceHarness, monkeypatch) -> None:
    monkeypatch.setattr(contracts, "validate_event", lambda *_: None)
    with pytest.raises(ValidationError):
        await lab_integration.deliver("identity.lab-registered.v1", {"partner_id": "no uuid"})
    assert await rows(lab_integration, tables.partner) == []
