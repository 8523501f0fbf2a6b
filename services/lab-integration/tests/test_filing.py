"""From an acknowledged message to versions of results, and what became of each part of it."""

import asyncio
from typing import Any

import pytest
from clinic_lab_integration import filing, tables
from clinic_lab_integration.settings import LabSettings
from clinic_shared.ids import uuid7
from clinic_shared.intake_worker import IntakeWorker

from .conftest import MESSAGES, Laboratory, msa

CBC = "OBR|1|{order}|F-1^LIS|58410-2^CBC^LN|||20260115081500+0300|||||||||||||||{reported}||HM|{status}"


def report(
    compose,
    *observations,
    control_id="M-1",
    reported="20260115102500+0300",
    status="F",
    order="",
    patient="MRN-1",
):
    pid = f"PID|1||{patient}^^^POLYCLINIC^MR"
    obr = CBC.format(order=order, reported=reported, status=status)
    return compose(pid, obr, *observations, msh={10: control_id})


def hb(value="112", status="F", flags=""):
    return f"OBX|1|NM|718-7^Haemoglobin^LN||{value}|g/L|120-140|{flags}|||{status}"


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


async def test_two_patients_in_one_message_are_two_units_of_two_charts(lab: Laboratory, sample) -> None:
    patients = [await lab.add_patient("MRN-1"), await lab.add_patient("MRN-2")]
    message_id = await lab.send(sample("two-patients"))
    events = await lab.lab.events("lab-integration.lab-result-received.v1")
    told = [
        (e.data["patient_id"], e.data["group_index"], e.private["observations"][0]["value"]) for e in events
    ]
    assert sorted(told) == sorted([(str(patients[0]), 0, "5.10"), (str(patients[1]), 1, "7.40")])
    await lab.chart_files()
    assert await lab.units(message_id) == [("applied", None)] * 2
    assert await lab.dispositions() == {"answered": 2, "applied": 2}


async def test_one_unknown_patient_does_not_hold_up_the_other(lab: Laboratory, sample) -> None:
    await lab.add_patient("MRN-1")
    message_id = await lab.send(sample("two-patients"))
    await lab.chart_files()
    assert await lab.units(message_id) == [("applied", None), ("parked", "unmatched")]
    assert await lab.dispositions() == {"answered": 2, "applied": 1, "parked": 1}


async def test_a_correction_is_a_version_beside_the_first_and_keeps_what_it_does_not_repeat(
    lab: Laboratory, sample
) -> None:
    patient_id = await lab.add_patient()
    await lab.send(sample("panel"))
    await lab.send(sample("correction"))
    [event] = await lab.lab.events("lab-integration.lab-result-corrected.v1")
    values = {o["code"]: (o["value"], o["status"]) for o in event.private["observations"]}
    assert len(values) == 10
    assert (values["718-7"], values["777-3"]) == (("121", "C"), ("245", "F"))
    assert await lab.result_events() == [("received", 1, "final"), ("corrected", 2, "corrected")]
    assert len(await lab.rows(tables.lab_result_version)) == 2
    [result] = await lab.results(patient_id)
    assert (result["version"], result["status"]) == (2, "corrected")


async def test_preliminary_final_and_retracted_are_versions_of_one_result(lab: Laboratory, compose) -> None:
    await lab.add_patient()
    await lab.send(report(compose, hb("110", "P"), control_id="M-1", status="P"))
    await lab.send(report(compose, hb("112"), control_id="M-2"))
    await lab.send(report(compose, hb("112", "W"), control_id="M-3", status="C"))
    assert await lab.result_events() == [
        ("received", 1, "preliminary"),
        ("received", 2, "final"),
        ("retracted", 3, "entered-in-error"),
    ]
    [retracted] = await lab.lab.events("lab-integration.lab-result-retracted.v1")
    assert retracted.data["retraction_reason_code"] == "wrong-patient"
    assert retracted.private["observations"] == []
    assert len({e.data["result_id"] for e in await lab.lab.events() if ".lab-result-" in e.type}) == 1


async def test_a_cancelled_report_is_retracted(lab: Laboratory, compose) -> None:
    await lab.add_patient()
    await lab.send(report(compose, hb("", "X"), status="X"))
    assert await lab.result_events() == [("retracted", 1, "cancelled")]


async def test_versions_that_arrive_in_the_wrong_order_end_in_the_newest(lab: Laboratory, compose) -> None:
    patient_id = await lab.add_patient()
    await lab.send(
        report(compose, hb("121", "C"), control_id="M-3", status="C", reported="20260115120000+0300")
    )
    late_final = await lab.send(report(compose, hb("112"), control_id="M-2", reported="20260115110000+0300"))
    late_preliminary = await lab.send(report(compose, hb("99", "P"), control_id="M-1", status="P"))
    assert await lab.units(late_final) == [("superseded", None)]
    assert await lab.units(late_preliminary) == [("superseded", None)]
    assert await lab.result_events() == [("corrected", 1, "corrected")]
    [result] = await lab.results(patient_id)
    assert result["status"] == "corrected"
    await lab.chart_files()
    assert await lab.dispositions() == {"answered": 3, "applied": 1, "superseded": 2}


async def test_the_same_content_in_another_message_is_superseded(lab: Laboratory, compose) -> None:
    await lab.add_patient()
    await lab.send(report(compose, hb(), control_id="M-1"))
    again = await lab.send(report(compose, hb(), control_id="M-2"))
    assert await lab.units(again) == [("superseded", None)]
    assert len(await lab.result_events()) == 1


async def test_reports_of_two_laboratories_with_the_same_numbers_are_two_results(
    lab: Laboratory, compose
) -> None:
    await lab.add_patient()
    await lab.send(report(compose, hb("1")))
    other = Laboratory(lab.lab, client_id="lab-other", secret="another-secret")
    await other.register()
    await other.send(report(compose, hb("2")))
    assert [name for name, _, _ in await lab.result_events()] == ["received", "received"]


async def test_two_reports_with_one_number_and_one_code_stay_apart(lab: Laboratory, compose) -> None:
    """Microbiology: the same OBR-3 and OBR-4 for every isolate."""
    await lab.add_patient()
    obr = "OBR|{}||F-1^LIS|600-7^Culture^LN|||||||||||||||||||||F"
    message = compose(
        "PID|1||MRN-1^^^POLYCLINIC^MR", obr.format(1), hb("1"), obr.format(2), hb("2"), msh={10: "M-1"}
    )
    await lab.send(message)
    assert await lab.result_events() == [("received", 1, "final")] * 2
    again = message.replace(b"|M-1|", b"|M-2|").replace(b"||2|", b"||3|")
    await lab.send(again)
    assert (await lab.result_events())[2:] == [("corrected", 2, "corrected")]


async def test_observations_without_code_value_or_order_are_kept(lab: Laboratory, compose) -> None:
    await lab.add_patient()
    message = compose(
        "PID|1||MRN-1^^^POLYCLINIC^MR",
        "OBX|1|TX|||before any order||||||F",
        "OBR|1",
        "OBX|1|||",
        "OBX|2|XX|?||odd",
    )
    await lab.send(message)
    events = await lab.lab.events("lab-integration.lab-result-received.v1")
    observations = [e.private["observations"] for e in sorted(events, key=lambda e: e.data["report_index"])]
    assert [len(found) for found in observations] == [1, 2]
    assert observations[0][0]["value"] == "before any order"
    assert [o["value"] for o in observations[1]] == [None, "odd"]


async def test_a_critical_value_raises_one_obligation_through_all_versions(lab: Laboratory, compose) -> None:
    patient_id = await lab.add_patient()
    order = await lab.order(patient_id)
    number = f"{order['placer_order_number']}^POLYCLINIC"
    await lab.send(report(compose, hb("40", "P", "LL"), status="P", order=number))
    await lab.send(report(compose, hb("40", "F", "LL"), control_id="M-2", order=number))
    [raised] = await lab.lab.events("lab-integration.critical-result-raised.v1")
    assert (raised.data["patient_id"], raised.data["result_version"]) == (str(patient_id), 1)
    assert raised.data["practitioner_id"] == order["practitioner_id"]
    assert raised.private["observations"][0]["value"] == "40"
    assert len(await lab.rows(tables.obligation)) == 1


async def test_results_nobody_ordered_belong_to_the_department_that_looks_after_the_laboratory(
    lab: Laboratory, compose
) -> None:
    answer = await lab.lab.http.put(
        f"/v1/lab/partners/{lab.partner_id}",
        json={"default_department_id": str(lab.department_id)},
        headers=lab.headers("system-administrator"),
    )
    assert answer.status_code == 200, answer.text
    await lab.add_patient()
    await lab.send(report(compose, hb()))
    [event] = await lab.lab.events("lab-integration.lab-result-received.v1")
    assert (event.data["department_id"], event.data["centre_id"]) == (
        str(lab.department_id),
        str(lab.centre_id),
    )


async def test_times_without_a_zone_are_the_laboratory_s(lab: Laboratory, compose) -> None:
    await lab.lab.http.put(
        f"/v1/lab/partners/{lab.partner_id}",
        json={"time_zone": "Europe/Moscow"},
        headers=lab.headers("system-administrator"),
    )
    await lab.add_patient()
    await lab.send(report(compose, hb(), reported="20260115102500"))
    [event] = await lab.lab.events("lab-integration.lab-result-received.v1")
    assert event.data["reported_at"] == "2026-01-15T07:25:00Z"


async def test_one_of_two_reports_filed_leaves_the_group_in_flight(lab: Laboratory, compose) -> None:
    await lab.add_patient()
    second = "OBR|2||F-2^LIS|2345-7^Glucose^LN|||||||||||||||||||||F"
    message_id = await lab.send(report(compose, hb(), second, "OBX|1|NM|2345-7^Glucose^LN||5.1"))
    first, _ = await lab.lab.events("lab-integration.lab-result-received.v1")
    line = ("result_id", "version", "patient_id", "message_id", "group_index", "report_index")
    filed = {name: first.data[name] for name in line}
    await lab.lab.deliver_example("patients.lab-result-filed.v1", **filed)
    assert await lab.units(message_id) == [("in-flight", None)]
    await lab.chart_files()
    assert await lab.units(message_id) == [("applied", None)]


async def test_reports_that_the_chart_files_together_close_their_groups(lab: Laboratory, compose) -> None:
    glucose = "OBR|2||F-2^LIS|2345-7^Glucose^LN|||||||||||||||||||||F", "OBX|1|NM|2345-7^Glucose^LN||5.1"
    await lab.add_patient("MRN-1")
    await lab.add_patient("MRN-2")
    both = await lab.send(report(compose, hb(), *glucose))
    half = await lab.send(report(compose, hb(), *glucose, patient="MRN-2", control_id="M-2"))
    events = await lab.lab.events()
    line = ("result_id", "version", "patient_id", "message_id", "group_index", "report_index")
    first, other, third, _ = [
        {name: event.data[name] for name in line} for event in events if ".lab-result-" in event.type
    ]
    unknown = {**first, "message_id": str(uuid7())}
    await lab.lab.deliver_together("patients.lab-result-filed.v1", first, unknown, third, first, other)
    assert await lab.units(both) == [("applied", None)]
    assert await lab.units(half) == [("in-flight", None)]
    filed = [row["filed_at"] for row in await lab.rows(tables.unit_report)]
    assert [moment is None for moment in filed].count(True) == 1


async def test_a_report_filed_twice_is_filed_once(lab: Laboratory, compose) -> None:
    await lab.add_patient()
    message_id = await lab.send(report(compose, hb()))
    assert await lab.chart_files() == 1
    lab._filed.clear()
    assert await lab.chart_files() == 1
    assert await lab.units(message_id) == [("applied", None)]


async def test_the_chart_s_word_about_a_message_of_another_time_changes_nothing(lab: Laboratory) -> None:
    await lab.lab.deliver_example("patients.lab-result-filed.v1")
    assert await lab.rows(tables.unit_report) == []


async def test_the_same_bytes_eight_times_at_once_have_one_effect_and_one_answer(
    lab: Laboratory, sample
) -> None:
    await lab.add_patient()
    answers = await asyncio.gather(*(lab.post(sample("panel")) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["location"] for answer in answers}) == 1
    await lab.process()
    await lab.chart_files()
    assert await lab.result_events() == [("received", 1, "final")]
    assert await lab.dispositions() == {"answered": 8, "applied": 1, "duplicate": 7}


async def test_the_same_control_id_with_other_bytes_is_processed_and_somebody_is_told(
    lab: Laboratory, compose
) -> None:
    await lab.add_patient()
    first = await lab.send(report(compose, hb("112")))
    second = await lab.send(report(compose, hb("121"), reported="20260115120000+0300"))
    assert await lab.result_events() == [("received", 1, "final"), ("corrected", 2, "corrected")]
    [incident] = (await lab.get("/v1/lab/incidents"))["items"]
    assert (incident["kind"], incident["state"]) == ("control-id-reused", "open")
    assert (incident["message_id"], incident["earlier_message_id"]) == (second, first)
    await lab.chart_files()
    assert await lab.dispositions() == {"answered": 2, "applied": 2}


async def test_another_lab_may_use_the_same_control_id(lab: Laboratory, compose) -> None:
    await lab.add_patient()
    await lab.send(report(compose, hb("1")))
    other = Laboratory(lab.lab, client_id="lab-other", secret="another-secret")
    await other.register()
    await other.send(report(compose, hb("2")))
    assert (await lab.get("/v1/lab/incidents"))["items"] == []


async def test_a_message_that_was_taken_can_be_found_before_it_is_processed(lab: Laboratory, sample) -> None:
    answer = await lab.post(sample("two-patients"))
    assert msa(answer) == ["MSA", "AA", "PATIENTS-0001"]
    message_id = answer.headers["location"].removeprefix(f"{MESSAGES}/")
    assert await lab.units(message_id) == [("in-flight", None)] * 2
    assert await lab.dispositions() == {"answered": 2, "in_flight": 2}


@pytest.mark.parametrize("processing_id", ["T", "D"])
async def test_in_production_what_is_for_tests_reaches_no_chart_by_itself(
    lab: Laboratory, compose, processing_id
) -> None:
    message = compose("PID|1||MRN-1^^^POLYCLINIC^MR", "OBR|1||F-1|GLU", hb(), msh={11: processing_id})
    answer = await lab.post(message)
    production = filing.Processing(parks_test_messages=True)
    assert await IntakeWorker(lab.lab.runtime, {"hl7": production}).process_next()
    patient_id = await lab.add_patient()
    message_id = answer.headers["location"].rpartition("/")[2]
    assert await lab.units(message_id) == [("parked", "not-for-production")]
    assert await lab.result_events() == []
    path = f"/v1/lab/unmatched/{message_id}.0/attach"
    attached = await lab.lab.http.post(path, json={"patient_id": str(patient_id)}, headers=lab.headers())
    assert attached.json()["disposition"] == "in-flight"


@pytest.mark.parametrize(
    ("environment", "told", "parks"),
    [
        ("production", None, True),
        ("development", None, False),
        ("production", True, False),
        ("test", False, True),
    ],
)
def test_whether_test_messages_are_parked_can_be_told(environment, told, parks) -> None:
    urls: dict[str, Any] = {
        "database_url": "postgresql://x?sslmode=verify-full",
        "amqp_url": "amqps://x",
        "token_issuer": "https://clinic.example.org",
    }
    assert LabSettings(environment=environment, take_test_messages=told, **urls).parks_test_messages is parks


def test_production_opens_no_plain_door_for_other_machines() -> None:
    urls: dict[str, Any] = {
        "environment": "production",
        "database_url": "postgresql://x?sslmode=verify-full",
        "amqp_url": "amqps://x",
        "token_issuer": "https://clinic.example.org",
    }
    with pytest.raises(ValueError, match="CLINIC_MLLP_PORT"):
        LabSettings(**urls, mllp_port=2575, mllp_host="10.1.2.3")
    assert LabSettings(**urls, mllp_port=2575, mllp_host="127.0.0.1").plain_doors == []
    assert LabSettings(**urls, mllp_tls_port=2576, mllp_host="10.1.2.3").plain_doors == []
