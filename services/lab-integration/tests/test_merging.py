"""Merged patients: one order of messages, and results that go where the person's chart is."""

from typing import Any
from uuid import UUID

from clinic_shared.ids import uuid7

from .conftest import Laboratory
from .test_turns import BREAK, MEND, execute, message, post, process


async def merge(
    lab: Laboratory, source: UUID, target: UUID, *, merge_id: UUID | None = None, undone: bool = False
) -> UUID:
    """Let patients tell of a merge, and of both records, as it does."""
    merge_id = merge_id or uuid7()
    await lab.lab.deliver_example(
        f"patients.patients-{'unmerged' if undone else 'merged'}.v1",
        version=3 if undone else 2,
        merge_id=str(merge_id),
        source_patient_id=str(source),
        target_patient_id=str(target),
    )
    return merge_id


async def tell(lab: Laboratory, patient: UUID, *numbers: str, status: str, version: int = 2) -> None:
    await lab.lab.deliver_example(
        "patients.patient-updated.v1",
        patient_id=str(patient),
        version=version,
        status=status,
        identifiers=[{"authority": "POLYCLINIC", "type": "MR", "value": number} for number in numbers],
    )


async def merge_whole(lab: Laboratory, source: UUID, target: UUID) -> UUID:
    merge_id = await merge(lab, source, target)
    await tell(lab, source, "MRN-2", status="merged")
    await tell(lab, target, "MRN-1", "MRN-2", status="active")
    return merge_id


async def filed(lab: Laboratory) -> list[Any]:
    return [e for e in await lab.lab.events() if ".lab-result-" in e.type]


async def test_results_for_the_replaced_record_go_to_the_one_in_use(lab: Laboratory, compose) -> None:
    anna, double = await lab.add_patient("MRN-1"), await lab.add_patient("MRN-2")
    await merge_whole(lab, double, anna)
    await post(lab, message(compose, 1, patient="MRN-2"))
    await process(lab)
    assert [UUID(e.data["patient_id"]) for e in await filed(lab)] == [anna]


async def test_a_report_that_was_begun_under_the_one_is_continued_under_the_other(
    lab: Laboratory, compose
) -> None:
    anna, double = await lab.add_patient("MRN-1"), await lab.add_patient("MRN-2")
    await post(lab, message(compose, 1, patient="MRN-2"))
    await process(lab)
    await merge_whole(lab, double, anna)
    await post(lab, message(compose, 2, patient="MRN-2"))
    await process(lab)
    first, second = await filed(lab)
    assert first.data["result_id"] == second.data["result_id"]
    assert (first.data["version"], second.data["version"]) == (1, 2)
    assert [UUID(first.data["patient_id"]), UUID(second.data["patient_id"])] == [double, anna]


async def test_behind_a_failing_message_of_one_record_wait_those_of_the_other(
    lab: Laboratory, compose
) -> None:
    anna, double = await lab.add_patient("MRN-1"), await lab.add_patient("MRN-2")
    other = await lab.add_patient("MRN-3")
    await execute(lab, BREAK)
    first = await post(lab, message(compose, 1, patient="MRN-2", filler="BROKEN"))
    await process(lab)
    await merge_whole(lab, double, anna)
    second = await post(lab, message(compose, 2, patient="MRN-1"))
    third = await post(lab, message(compose, 3, patient="MRN-3"))
    await process(lab)
    assert [e.data["message_id"] for e in await filed(lab)] == [third]
    await execute(lab, MEND)
    lab.lab.clock.advance(seconds=6)
    await process(lab)
    assert [e.data["message_id"] for e in await filed(lab)] == [third, first, second]
    assert [UUID(e.data["patient_id"]) for e in await filed(lab)] == [other, anna, anna]


async def test_what_named_both_and_was_parked_is_matched_by_their_merge(lab: Laboratory, compose) -> None:
    anna, double = await lab.add_patient("MRN-1"), await lab.add_patient("MRN-2")
    both = compose(
        "PID|1||MRN-1^^^POLYCLINIC^MR~MRN-2^^^POLYCLINIC^MR",
        "OBR|1||F-1|GLU^Glucose^LN||||||||||||||||||20260115100100+0300|||F",
        "OBX|1|NM|GLU||5||||||F",
        msh={10: "M-1"},
    )
    await post(lab, both)
    await process(lab)
    assert await filed(lab) == []
    await merge(lab, double, anna)
    [result] = await filed(lab)
    assert UUID(result.data["patient_id"]) == anna


async def test_whatever_is_told_first_of_a_merge_nothing_is_lost(lab: Laboratory, compose) -> None:
    anna, double = await lab.add_patient("MRN-1"), await lab.add_patient("MRN-2")
    await tell(lab, double, "MRN-2", status="merged")
    await post(lab, message(compose, 1, patient="MRN-2"))
    await process(lab)
    await tell(lab, anna, "MRN-1", "MRN-2", status="active")
    await merge(lab, double, anna)
    [result] = await filed(lab)
    assert UUID(result.data["patient_id"]) == anna


async def test_undone_each_number_leads_to_its_own_record_again(lab: Laboratory, compose) -> None:
    anna, double = await lab.add_patient("MRN-1"), await lab.add_patient("MRN-2")
    merge_id = await merge_whole(lab, double, anna)
    await merge(lab, double, anna, merge_id=merge_id, undone=True)
    # Told late, of what was before: changes nothing.
    await merge(lab, double, anna, merge_id=merge_id)
    await tell(lab, anna, "MRN-1", status="active", version=3)
    await tell(lab, double, "MRN-2", status="active", version=3)
    await post(lab, message(compose, 1, patient="MRN-2"))
    await process(lab)
    assert [UUID(e.data["patient_id"]) for e in await filed(lab)] == [double]


async def test_a_chain_of_merges_leads_to_the_record_in_use(lab: Laboratory, compose) -> None:
    anna, double = await lab.add_patient("MRN-1"), await lab.add_patient("MRN-2")
    third = await lab.add_patient("MRN-3")
    await merge(lab, third, double)
    await merge(lab, double, anna)
    await post(lab, message(compose, 1, patient="MRN-3"))
    await process(lab)
    assert [UUID(e.data["patient_id"]) for e in await filed(lab)] == [anna]


async def test_orders_and_results_of_both_records_are_seen_under_either_until_that_is_undone(
    lab: Laboratory, compose
) -> None:
    anna, double = await lab.add_patient("MRN-1"), await lab.add_patient("MRN-2")
    await lab.treat(anna)
    await post(lab, message(compose, 1, patient="MRN-2"))
    await process(lab)
    ordered = await lab.order(double)

    async def listed(what: str, patient: UUID) -> list[Any]:
        return list((await lab.get(f"/v1/lab/{what}", patient_id=str(patient)))["items"])

    merge_id = await merge(lab, double, anna)
    for record in (anna, double):
        assert [order["lab_order_id"] for order in await listed("orders", record)] == [
            ordered["lab_order_id"]
        ]
        assert [result["patient_id"] for result in await listed("results", record)] == [str(double)]
    await merge(lab, double, anna, merge_id=merge_id, undone=True)
    assert await listed("orders", anna) == [] == await listed("results", anna)


async def test_what_is_ordered_for_the_replaced_record_is_the_others(lab: Laboratory) -> None:
    anna, double = await lab.add_patient("MRN-1"), await lab.add_patient("MRN-2")
    await merge(lab, double, anna)
    assert (await lab.order(double))["patient_id"] == str(anna)
