"""Who has read a result hears when it is withdrawn."""

import asyncio
from typing import Any

import pytest
from clinic_patients import tables
from clinic_shared import contracts
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from .conftest import Clinic

TOLD = "patients.retracted-result-read.v1"


@pytest.fixture
async def anna(clinic: Clinic) -> str:
    return str((await clinic.register())["patient_id"])


async def colleague(clinic: Clinic, patient_id: str) -> Principal:
    """Another doctor of the patient."""
    doctor = clinic.caller("doctor", subject=uuid7())
    await clinic.treat(patient_id, practitioner_id=doctor.subject)
    return doctor


async def read(clinic: Clinic, patient_id: str, caller: Principal) -> list[Any]:
    return list((await clinic.read(f"/v1/patients/{patient_id}/observations", caller))["items"])


async def told(clinic: Clinic) -> list[tuple[int, dict[str, int]]]:
    """Return each withdrawal that somebody was named for, as (version, {reader: version they have read})."""
    return [
        (event.data["version"], {r["reader_id"]: r["version"] for r in event.data["readers"]})
        for event in await clinic.patients.events(TOLD)
    ]


async def test_those_who_have_read_what_is_withdrawn_are_named_and_nobody_else(
    clinic: Clinic, anna: str
) -> None:
    early, late, never = [await colleague(clinic, anna) for _ in range(3)]
    await clinic.lab_result("received", patient_id=anna)
    await read(clinic, anna, early)
    await clinic.lab_result("corrected", patient_id=anna)
    for _ in range(2):
        await read(clinic, anna, late)
    await read(clinic, anna, clinic.patient(anna))
    assert await told(clinic) == []
    await clinic.lab_result("retracted", patient_id=anna)
    await clinic.lab_result("retracted", patient_id=anna)
    assert await told(clinic) == [(3, {str(early.subject): 1, str(late.subject): 2})]
    assert str(never.subject) not in str(await clinic.rows(tables.result_reading))


async def test_what_nobody_has_read_is_withdrawn_in_silence(clinic: Clinic, anna: str) -> None:
    await clinic.lab_result("received", patient_id=anna)
    await clinic.lab_result("retracted", patient_id=anna)
    assert await told(clinic) == []


async def test_one_line_of_another_patient_alerts_once(clinic: Clinic, anna: str) -> None:
    doctor = await colleague(clinic, anna)
    await clinic.lab_result("received", patient_id=anna)
    await read(clinic, anna, doctor)
    sent = contracts.examples("lab-integration.lab-result-corrected.v1")[0]["private"]["observations"]
    wrong = [sent[0] | {"status": "W"}, *sent[1:]]
    await clinic.lab_result("corrected", patient_id=anna, observations=wrong)
    await clinic.lab_result("corrected", patient_id=anna, observations=wrong, version=3)
    assert await told(clinic) == [(2, {str(doctor.subject): 1})]


@pytest.mark.parametrize(("seen", "named"), [("final", 1), ("preliminary", 0)])
async def test_a_cancellation_matters_to_those_who_saw_it_released(
    clinic: Clinic, anna: str, seen: str, named: int
) -> None:
    await clinic.lab_result("received", patient_id=anna, status=seen)
    await read(clinic, anna, clinic.caller("doctor"))
    await clinic.lab_result("retracted", patient_id=anna, status="cancelled")
    assert len(await told(clinic)) == named


async def test_whoever_reads_while_it_is_withdrawn_sees_that_or_is_told(clinic: Clinic, anna: str) -> None:
    for _ in range(6):
        doctor, result_id = await colleague(clinic, anna), str(uuid7())
        await clinic.lab_result("received", patient_id=anna, result_id=result_id)
        seen, _ = await asyncio.gather(
            read(clinic, anna, doctor), clinic.lab_result("retracted", patient_id=anna, result_id=result_id)
        )
        [result] = [r for r in seen if r["result_id"] == result_id]
        named = any(str(doctor.subject) in readers for _, readers in await told(clinic))
        assert result["status"] == "entered-in-error" or named
