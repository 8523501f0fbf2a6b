"""From an acknowledged message to versions of results, and what became of each part of it."""

from clinic_lab_integration import tables

from .conftest import Laboratory


async def test_a_panel_becomes_one_result_of_ten_observations(lab: Laboratory, sample) -> None:
    patient_id = await lab.add_patient()
    message_id = await lab.send(sample("panel"))
    [event] = await lab.lab.events("lab-integration.lab-result-received.v1")
    assert event.data["patient_id"] == str(patient_id)
    assert (event.data["observation_count"], event.data["abnormal_count"]) == (10, 3)
    assert event.private["observations"][7]["value"] == ">30"
    assert await lab.units(message_id) == [("in-flight", None)]
    await lab.chart_files()
    assert await lab.units(message_id) == [("applied", None)]
    assert await lab.dispositions() == {"answered": 1, "applied": 1}
    [result] = await lab.results(patient_id)
    assert (result["version"], result["status"], result["code"]) == (1, "final", "58410-2")
    assert result["filed_at"] is not None


async def test_tables_are_empty_before_anything_comes(lab: Laboratory) -> None:
    assert await lab.rows(tables.lab_unit) == []
