"""Events in: once, twice, late, malformed; and what must never get in."""

import asyncio
import json
import random
from typing import Any

import pytest
from clinic_reporting import tables
from clinic_reporting.app import service
from clinic_reporting.domain import AppointmentStatus
from clinic_shared import contracts
from clinic_shared.ids import uuid7
from clinic_shared.testing import ServiceHarness
from pydantic import ValidationError
from sqlalchemy import Table, select

from .conftest import Network

EVENT_TYPES = sorted(service.handlers.subscriptions)


async def rows(reporting: ServiceHarness, table: Table) -> list[dict[str, Any]]:
    async with reporting.runtime.database.transaction() as tx:
        return [dict(row._mapping) for row in await tx.fetch_all(select(table))]


def test_exactly_what_the_contracts_say_is_consumed() -> None:
    assert {event.type for event in contracts.load().consumed_by("reporting")} == set(EVENT_TYPES)


def test_appointments_have_the_statuses_of_the_taxonomy() -> None:
    assert set(AppointmentStatus) == set(contracts.load().statuses("appointment"))


async def test_an_event_delivered_twice_takes_effect_once(reporting: ServiceHarness) -> None:
    for event_type in EVENT_TYPES:
        example, event_id = contracts.examples(event_type)[0], uuid7()
        told = (event_type, example["data"], example.get("private"))
        dispositions = [await reporting.deliver(*told, event_id=event_id) for _ in range(2)]
        assert dispositions == ["applied", "duplicate"], event_type


async def test_each_event_leaves_a_row(reporting: ServiceHarness) -> None:
    """What is heard and not counted would be work for nothing, or a figure that is missing."""
    for event_type in EVENT_TYPES:
        await reporting.deliver_example(event_type)
    counted = {name: len(await rows(reporting, table)) for name, table in tables.metadata.tables.items()}
    assert all(counted.values()), counted


async def test_an_older_version_that_arrives_late_changes_nothing(network: Network) -> None:
    appointment_id = await network.appointment("appointment-completed", network.dermatology, version=3)
    await network.appointment(
        "appointment-booked", network.dermatology, version=1, appointment_id=appointment_id
    )
    [fact] = await rows(network.reporting, tables.appointment_fact)
    assert (fact["status"], fact["version"]) == ("completed", 3)


async def test_of_versions_that_arrive_at_once_the_newest_stays(network: Network) -> None:
    appointment_id, result_id = uuid7(), str(uuid7())
    versions = list(range(1, 13))
    random.Random(1).shuffle(versions)
    deliveries = [
        network.appointment(
            "appointment-rescheduled", network.dermatology, version=version, appointment_id=appointment_id
        )
        for version in versions
    ] + [
        network.reporting.deliver_example(
            "patients.lab-result-filed.v1",
            version=version,
            result_id=result_id,
            filed_at=f"2026-03-04T09:00:{version:02}Z",
        )
        for version in versions
    ]
    await asyncio.gather(*deliveries)
    [fact] = await rows(network.reporting, tables.appointment_fact)
    [milestone] = await rows(network.reporting, tables.lab_milestone)
    assert (fact["version"], milestone["reached_at"].second) == (12, 1)


async def test_a_correction_keeps_the_time_of_the_first_receipt(reporting: ServiceHarness) -> None:
    times = {1: "2026-03-04T09:00:00Z", 2: "2026-03-05T09:00:00Z"}
    corrected, received = "lab-integration.lab-result-corrected.v1", "lab-integration.lab-result-received.v1"
    result_id = str(uuid7())
    await reporting.deliver_example(corrected, version=2, result_id=result_id, received_at=times[2])
    await reporting.deliver_example(received, version=1, result_id=result_id, received_at=times[1])
    [milestone] = await rows(reporting, tables.lab_milestone)
    [fact] = await rows(reporting, tables.lab_result_fact)
    assert milestone["reached_at"].isoformat().startswith("2026-03-04T09:00")
    assert fact["version"] == 2


async def test_a_malformed_event_is_refused_and_leaves_nothing(reporting: ServiceHarness) -> None:
    with pytest.raises(ValidationError):
        await reporting.deliver_example("identity.centre-opened.v1", time_zone="Mars/Olympus")
    assert await rows(reporting, tables.centre) == []


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for member in value.values() for text in _texts(member)]
    if isinstance(value, list):
        return [text for member in value for text in _texts(member)]
    return [value] if isinstance(value, str) else []


async def test_nothing_private_gets_into_the_read_models(network: Network) -> None:
    """No name, phone, address, diagnosis, value or text of any event; patients by id only, once."""
    secrets: set[str] = set()
    public: set[str] = set()
    for event_type in EVENT_TYPES:
        for example in contracts.examples(event_type):
            # Codes such as "male" or "ru" are also words of ours; what tells who it is, is longer.
            secrets |= {text for text in _texts(example.get("private")) if len(text) > 6}
            public |= set(_texts(example["data"]))
        await network.reporting.deliver_example(event_type)
    secrets -= public
    assert {"Тестова", "+70000000001"} <= secrets
    model = await network.read_model()
    kept = json.dumps(model, default=str, ensure_ascii=False)
    assert [secret for secret in secrets if secret in kept] == []
    patient_id = contracts.examples("patients.patient-registered.v1")[0]["data"]["patient_id"]
    with_patients = {
        name for name, kept_rows in model.items() if patient_id in json.dumps(kept_rows, default=str)
    }
    assert with_patients == {"registration_fact"}
