"""Lab results arrive twice, late, corrected and retracted; each version stands in the chart once."""

import asyncio
from typing import Any

import pytest
from clinic_patients import tables
from clinic_patients.chart_domain import ResultVersionConflictError
from clinic_shared import contracts
from clinic_shared.ids import uuid7
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from .conftest import LAB, Clinic

FILED = "patients.lab-result-filed.v1"


@pytest.fixture
async def anna(clinic: Clinic) -> str:
    return str((await clinic.register())["patient_id"])


async def results_of(clinic: Clinic, patient_id: str, caller: Any = "doctor") -> list[dict[str, Any]]:
    return list((await clinic.read(f"/v1/patients/{patient_id}/observations", caller))["items"])


async def test_a_result_is_in_the_chart_as_the_lab_wrote_it(clinic: Clinic, anna: str) -> None:
    await clinic.lab_result("received", patient_id=anna)
    sent = contracts.examples("lab-integration.lab-result-received.v1")[0]
    [result] = await results_of(clinic, anna)
    [version] = result["versions"]
    assert version["observations"] == [o | {"meaning": None} for o in sent["private"]["observations"]]
    assert version["observations"][0]["value"] == "95.10"
    assert version["notes"] == sent["private"]["notes"]
    assert version["report"] == sent["data"]["report"]
    [filed] = await clinic.patients.events(FILED)
    for name in ("result_id", "message_id", "group_index", "report_index", "partner_id", "lab_order_id"):
        assert filed.data[name] == sent["data"][name]


async def test_what_it_means_stands_beside_what_the_lab_wrote(clinic: Clinic, anna: str) -> None:
    [first, *_] = contracts.examples("lab-integration.lab-result-received.v1")[0]["private"]["observations"]
    meaning = {"code": "718-7", "display": "Hemoglobin", "units": "g/L", "value": "95", "panic": "LL"}
    said = first | {"meaning": meaning | {"map_version": 3}}
    for _ in range(2):
        await clinic.lab_result("received", patient_id=anna, observations=[said])
    [result] = await results_of(clinic, anna)
    assert result["versions"][0]["observations"] == [said]


async def test_a_result_that_comes_twice_is_filed_and_reported_once(clinic: Clinic, anna: str) -> None:
    event_id = uuid7()
    assert await clinic.lab_result("received", event_id=event_id, patient_id=anna) == "applied"
    assert await clinic.lab_result("received", event_id=event_id, patient_id=anna) == "duplicate"
    # The inbox forgets after months; the natural key doesn't.
    assert await clinic.lab_result("received", patient_id=anna) == "applied"
    assert len(await clinic.rows(tables.result_version)) == 1
    assert len(await clinic.rows(tables.observation)) == 2
    assert len(await clinic.patients.events(FILED)) == 1


async def test_the_same_result_in_another_message_closes_that_message_too(clinic: Clinic, anna: str) -> None:
    await clinic.lab_result("received", patient_id=anna)
    second = str(uuid7())
    await clinic.lab_result("received", patient_id=anna, message_id=second, group_index=1)
    filed = await clinic.patients.events(FILED)
    assert [(f.data["message_id"], f.data["group_index"]) for f in filed][1] == (second, 1)
    assert len(await clinic.rows(tables.result_version)) == 1


async def test_concurrent_deliveries_of_one_version_file_it_once(clinic: Clinic, anna: str) -> None:
    await asyncio.gather(*(clinic.lab_result("received", patient_id=anna) for _ in range(4)))
    assert len(await clinic.rows(tables.result_version)) == 1
    assert len(await clinic.patients.events(FILED)) == 1


async def test_a_correction_that_overtakes_the_original_stays_the_one_in_force(
    clinic: Clinic, anna: str
) -> None:
    await clinic.lab_result("corrected", patient_id=anna)
    await clinic.lab_result("received", patient_id=anna)
    [result] = await results_of(clinic, anna)
    assert (result["current_version"], result["status"]) == (2, "corrected")
    assert [v["observations"][0]["value"] for v in result["versions"]] == ["125.10", "95.10"]
    assert len(await clinic.patients.events(FILED)) == 2
    [entry] = (await clinic.read(f"/v1/patients/{anna}/timeline?kind=lab-result"))["items"]
    assert (entry["version"], entry["status"]) == (2, "corrected")


async def test_patients_see_the_newest_released_version_only(clinic: Clinic, anna: str) -> None:
    await clinic.lab_result("received", patient_id=anna, status="preliminary", result_id=str(uuid7()))
    assert await results_of(clinic, anna, clinic.patient(anna)) == []
    await clinic.lab_result("received", patient_id=anna)
    await clinic.lab_result("corrected", patient_id=anna)
    [result] = await results_of(clinic, anna, clinic.patient(anna))
    assert [v["version"] for v in result["versions"]] == [2]
    assert len(await results_of(clinic, anna)) == 2


async def test_a_retracted_result_is_closed_to_the_patient_and_marked_for_the_doctor(
    clinic: Clinic, anna: str
) -> None:
    await clinic.lab_result("received", patient_id=anna)
    await clinic.lab_result("retracted", patient_id=anna, notes=["Вымышленное примечание"])
    [for_the_patient] = await results_of(clinic, anna, clinic.patient(anna))
    [shown] = for_the_patient["versions"]
    assert (for_the_patient["status"], shown["observations"], shown["notes"]) == ("entered-in-error", [], [])
    [for_the_doctor] = await results_of(clinic, anna)
    assert for_the_doctor["status"] == "entered-in-error"
    assert [len(v["observations"]) for v in for_the_doctor["versions"]] == [0, 2]
    assert for_the_doctor["versions"][0]["retraction_reason_code"] == "wrong-patient"


async def test_a_result_routed_to_the_right_patient_leaves_the_wrong_chart(clinic: Clinic, anna: str) -> None:
    right = str((await clinic.register())["patient_id"])
    await clinic.lab_result("received", patient_id=anna)
    await clinic.lab_result("retracted", patient_id=anna)
    await clinic.lab_result("corrected", patient_id=right, version=4)
    [in_the_wrong] = await results_of(clinic, anna)
    [in_the_right] = await results_of(clinic, right)
    assert (in_the_wrong["status"], in_the_right["status"]) == ("entered-in-error", "corrected")
    assert [v["version"] for v in in_the_right["versions"]] == [4]


async def test_another_content_under_the_same_version_is_refused_and_changes_nothing(
    clinic: Clinic, anna: str
) -> None:
    await clinic.lab_result("received", patient_id=anna)
    observations = contracts.examples("lab-integration.lab-result-corrected.v1")[0]["private"]["observations"]
    with pytest.raises(ResultVersionConflictError):
        await clinic.lab_result("received", patient_id=anna, observations=observations)
    [result] = await results_of(clinic, anna)
    assert result["versions"][0]["observations"][0]["value"] == "95.10"


async def test_a_result_for_someone_unknown_is_kept(clinic: Clinic) -> None:
    unknown = str(uuid7())
    assert await clinic.lab_result("received", patient_id=unknown) == "applied"
    await clinic.treat(unknown)
    assert len(await results_of(clinic, unknown)) == 1
    assert len(await clinic.patients.events(FILED)) == 1
    assert (await clinic.call("GET", f"/v1/patients/{unknown}")).status_code == 404


async def test_a_result_whose_private_part_was_erased_is_filed(clinic: Clinic, anna: str) -> None:
    data = contracts.examples("lab-integration.lab-result-received.v1")[0]["data"] | {"patient_id": anna}
    await clinic.patients.deliver("lab-integration.lab-result-received.v1", data, None)
    [result] = await results_of(clinic, anna)
    assert result["versions"][0]["observations"] == []
    assert await clinic.lab_result("received", patient_id=anna) == "applied"


@pytest.mark.parametrize(
    "statement",
    ["UPDATE result_version SET status = 'final'", "UPDATE observation SET value = '1'"],
)
async def test_the_database_refuses_to_rewrite_what_a_lab_said(
    clinic: Clinic, anna: str, statement: str
) -> None:
    await clinic.lab_result("received", patient_id=anna)
    with pytest.raises(IntegrityError):
        async with clinic.patients.runtime.database.transaction() as tx:
            await tx.execute(text(statement))


async def test_results_come_in_pages_newest_first(clinic: Clinic, anna: str) -> None:
    made = [str(uuid7()) for _ in range(3)]
    for result_id in made:
        await clinic.lab_result("received", patient_id=anna, result_id=result_id)
    first = await clinic.read(f"/v1/patients/{anna}/observations?limit=2")
    rest = await clinic.read(f"/v1/patients/{anna}/observations?limit=2&cursor={first['next_cursor']}")
    seen = [item["result_id"] for page in (first, rest) for item in page["items"]]
    assert seen == made[::-1]
    assert rest["next_cursor"] is None


async def test_results_that_share_a_transaction_are_filed_as_if_each_came_alone(
    clinic: Clinic, anna: str
) -> None:
    one, two, known = (str(uuid7()) for _ in range(3))
    await clinic.lab_result("received", patient_id=anna, result_id=known)
    unknown = str(uuid7())
    await clinic.patients.deliver_together(
        f"{LAB}-received.v1",
        *(
            {"patient_id": patient_id, "result_id": result_id, "version": version}
            for patient_id, result_id, version in (
                (anna, one, 1),
                (anna, one, 2),
                (anna, known, 1),
                (anna, one, 1),
                (unknown, two, 1),
            )
        ),
    )
    filed = {(str(row["result_id"]), row["version"]) for row in await clinic.rows(tables.result_version)}
    assert filed == {(known, 1), (one, 1), (one, 2), (two, 1)}
    assert len(await clinic.rows(tables.observation)) == 8
    entries = {str(e["source_id"]): e["version"] for e in await clinic.rows(tables.timeline_entry)}
    assert entries == {known: 1, one: 2, two: 1}
    # What has been filed is told once for the line of the message that it came from.
    assert len(await clinic.patients.events(FILED)) == 4


async def test_of_results_that_share_a_transaction_none_is_filed_when_one_contradicts(
    clinic: Clinic, anna: str
) -> None:
    contradicted = str(uuid7())
    await clinic.lab_result("received", patient_id=anna, result_id=contradicted, abnormal_count=0)
    with pytest.raises(ResultVersionConflictError):
        await clinic.patients.deliver_together(
            f"{LAB}-received.v1",
            {"patient_id": anna, "result_id": str(uuid7())},
            {"patient_id": anna, "result_id": contradicted, "critical_count": 7},
        )
    assert len(await clinic.rows(tables.result_version)) == 1
