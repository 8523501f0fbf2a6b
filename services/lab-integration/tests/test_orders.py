"""Orders, their numbers, and the results that come back under them."""

from typing import Any

import pytest
from clinic_shared.ids import uuid7

from .conftest import Compose, Laboratory


def answer_to(
    compose: Compose, number: str, *, code: str = "58410-2", control_id: str = "M-1", pid: str = "PID|1"
) -> bytes:
    obr = f"OBR|1|{number}|F-{code}^LIS|{code}^Test^LN|||||||||||||||||||||F"
    return compose(pid, obr, f"OBX|1|NM|{code}||1||||||F", msh={10: control_id})


async def test_an_order_is_told_and_can_be_read(lab: Laboratory) -> None:
    patient_id = await lab.add_patient()
    order = await lab.order(patient_id, clinical_note="fictitious", priority="stat")
    [event] = await lab.lab.events("lab-integration.lab-order-placed.v1")
    assert event.data["placer_order_number"] == order["placer_order_number"]
    assert (event.data["department_id"], event.data["centre_id"]) == (
        str(lab.department_id),
        str(lab.centre_id),
    )
    assert event.private == {"clinical_note": "fictitious"}
    assert (await lab.get(f"/v1/lab/orders/{order['lab_order_id']}"))["priority"] == "stat"
    listed = await lab.get("/v1/lab/orders", patient_id=str(patient_id))
    assert [o["lab_order_id"] for o in listed["items"]] == [order["lab_order_id"]]


async def test_results_under_our_number_are_the_ordered_patient_s(lab: Laboratory, compose) -> None:
    patient_id = await lab.add_patient("UNKNOWN-TO-THE-LAB")
    order = await lab.order(patient_id)
    await lab.send(answer_to(compose, order["placer_order_number"]))
    [event] = await lab.lab.events("lab-integration.lab-result-received.v1")
    assert event.data["patient_id"] == str(patient_id)
    assert event.data["lab_order_id"] == order["lab_order_id"]
    assert event.data["practitioner_id"] == order["practitioner_id"]
    assert (await lab.get(f"/v1/lab/orders/{order['lab_order_id']}"))["status"] == "resulted"


async def test_an_order_of_two_tests_is_partly_resulted_after_the_first(lab: Laboratory, compose) -> None:
    patient_id = await lab.add_patient()
    order = await lab.order(patient_id, tests=[{"code": "A"}, {"code": "B"}])
    path = f"/v1/lab/orders/{order['lab_order_id']}"
    for code, status in (("A", "partly-resulted"), ("B", "resulted")):
        await lab.send(answer_to(compose, order["placer_order_number"], code=code, control_id=code))
        assert (await lab.get(path))["status"] == status


@pytest.mark.parametrize(
    ("written", "is_matched"),
    [
        ("{number}", True),
        ("{number}^POLYCLINIC", True),
        ("{number}^^1.2.3^ISO", False),
        ("{number}^POLYCLINIC^1.2.3^ISO", True),
        ("{number}^LIS", False),
        ("{number}-1^POLYCLINIC", False),
        ("0{number}^POLYCLINIC", False),
    ],
)
async def test_a_number_is_opaque_and_compared_whole(lab: Laboratory, compose, written, is_matched) -> None:
    order = await lab.order(await lab.add_patient())
    number = written.format(number=order["placer_order_number"])
    message_id = await lab.send(answer_to(compose, number))
    expected = ("in-flight", None) if is_matched else ("parked", "unmatched")
    assert await lab.units(message_id) == [expected]


async def test_the_order_s_number_may_stand_in_orc_alone(lab: Laboratory, compose) -> None:
    order = await lab.order(await lab.add_patient())
    orc = f"ORC|RE|{order['placer_order_number']}^POLYCLINIC|F-1"
    message_id = await lab.send(compose("PID|1", orc, "OBR|1||F-1|GLU", "OBX|1|NM|GLU||5||||||F"))
    assert await lab.units(message_id) == [("in-flight", None)]


async def test_an_order_and_an_identifier_of_two_patients_need_a_person(lab: Laboratory, compose) -> None:
    order = await lab.order(await lab.add_patient("MRN-1"))
    await lab.add_patient("MRN-2")
    pid = "PID|1||MRN-2^^^POLYCLINIC^MR"
    message_id = await lab.send(answer_to(compose, order["placer_order_number"], pid=pid))
    assert await lab.units(message_id) == [("parked", "order-of-another-patient")]
    assert await lab.result_events() == []


async def test_results_under_the_number_of_another_laboratory_s_order_need_a_person(
    lab: Laboratory, compose
) -> None:
    order = await lab.order(await lab.add_patient())
    other = Laboratory(lab.lab, client_id="lab-other", secret="another-secret")
    await other.register()
    message_id = await other.send(answer_to(compose, order["placer_order_number"]))
    assert await lab.units(message_id) == [("parked", "order-of-another-lab")]


async def test_the_visit_tells_which_department_orders(lab: Laboratory) -> None:
    patient_id = await lab.add_patient()
    appointment_id = str(uuid7())
    await lab.lab.deliver_example(
        "scheduling.appointment-booked.v1",
        appointment_id=appointment_id,
        patient_id=str(patient_id),
        department_id=str(lab.department_id),
    )
    order = await lab.order(patient_id, department_id=None, appointment_id=appointment_id)
    assert (order["department_id"], order["appointment_id"]) == (str(lab.department_id), appointment_id)


async def place(lab: Laboratory, caller: Any = None, **body: Any) -> Any:
    known = {
        "patient_id": str(uuid7()),
        "partner_id": str(lab.partner_id),
        "department_id": str(lab.department_id),
        "tests": [{"code": "A"}],
    }
    headers = lab.lab.headers(caller or lab.lab.principal("doctor"))
    return await lab.lab.http.post("/v1/lab/orders", json=known | body, headers=headers)


@pytest.mark.parametrize("reference", ["patient_id", "partner_id", "department_id", "appointment_id"])
async def test_what_isn_t_known_yet_may_arrive(lab: Laboratory, reference) -> None:
    patient_id = await lab.add_patient()
    answer = await place(lab, **{"patient_id": str(patient_id), reference: str(uuid7())})
    assert (answer.status_code, answer.json()["reference"]) == (409, reference)


async def test_orders_are_refused_to_whoever_may_not_place_them(lab: Laboratory) -> None:
    patient_id = str(await lab.add_patient())
    elsewhere = lab.lab.principal("doctor", network=False, department_ids=frozenset({uuid7()}))
    assert (await place(lab, elsewhere, patient_id=patient_id)).status_code == 403
    assert (await place(lab, lab.lab.principal("registrar"), patient_id=patient_id)).status_code == 403
    assert (await lab.lab.http.post("/v1/lab/orders", json={})).status_code == 401


async def test_an_order_of_another_place_is_not_there(lab: Laboratory) -> None:
    order = await lab.order(await lab.add_patient())
    elsewhere = lab.lab.principal("doctor", network=False, department_ids=frozenset({uuid7()}))
    headers = lab.lab.headers(elsewhere)
    path = f"/v1/lab/orders/{order['lab_order_id']}"
    assert (await lab.lab.http.get(path, headers=headers)).status_code == 404
    assert (await lab.lab.http.get("/v1/lab/orders", headers=headers)).json()["items"] == []


@pytest.mark.parametrize(
    "body",
    [{"tests": []}, {"priority": "soon"}, {"unknown": 1}, {"tests": [{"code": ""}]}, {"department_id": None}],
)
async def test_what_is_no_order_is_refused(lab: Laboratory, body) -> None:
    answer = await place(lab, **{"patient_id": str(await lab.add_patient())} | body)
    assert answer.status_code == 422


async def test_a_visit_of_another_patient_is_refused(lab: Laboratory) -> None:
    appointment_id = str(uuid7())
    await lab.lab.deliver_example("scheduling.appointment-booked.v1", appointment_id=appointment_id)
    answer = await place(lab, patient_id=str(await lab.add_patient()), appointment_id=appointment_id)
    assert answer.status_code == 422


async def test_a_laboratory_that_is_switched_off_gets_no_orders(lab: Laboratory) -> None:
    await lab.lab.http.put(
        f"/v1/lab/partners/{lab.partner_id}",
        json={"enabled": False},
        headers=lab.headers("system-administrator"),
    )
    assert (await place(lab, patient_id=str(await lab.add_patient()))).status_code == 422


async def test_patients_see_their_own_results_and_no_others(lab: Laboratory, compose) -> None:
    patient_id = await lab.add_patient()
    order = await lab.order(patient_id)
    await lab.send(answer_to(compose, order["placer_order_number"]))
    for mine, status in ((patient_id, 200), (uuid7(), 404)):
        caller = lab.lab.principal("patient", patient_id=mine)
        query = {"patient_id": str(patient_id)}
        answer = await lab.lab.http.get("/v1/lab/results", params=query, headers=lab.lab.headers(caller))
        assert answer.status_code == status
    assert (await lab.lab.http.get("/v1/lab/results", params=query)).status_code == 401
    refused = await lab.lab.http.get("/v1/lab/results", params=query, headers=lab.headers("biller"))
    assert refused.status_code == 403


async def test_a_reflex_test_is_linked_to_what_led_to_it_and_is_the_same_doctor_s(
    lab: Laboratory, compose
) -> None:
    patient_id = await lab.add_patient()
    order = await lab.order(patient_id)
    await lab.send(answer_to(compose, order["placer_order_number"], code="TSH"))
    reflex = compose(
        "PID|1||MRN-1^^^POLYCLINIC^MR",
        "OBR|1||F-T4^LIS|T4^Free T4|||||||||||||||||||||F||||^F-TSH&LIS",
        "OBX|1|NM|T4||9||||||F",
        msh={10: "M-2"},
    )
    await lab.send(reflex)
    first, second = await lab.lab.events("lab-integration.lab-result-received.v1")
    assert second.data["parent_filler_order_number"] == first.data["filler_order_number"] == "F-TSH"
    assert second.data["lab_order_id"] == order["lab_order_id"]
    assert second.data["practitioner_id"] == order["practitioner_id"]
    listed = {r["filler_order_number"]: r for r in await lab.results(patient_id)}
    assert listed["F-T4"]["parent_filler_order_number"] == "F-TSH"
    assert (await lab.get("/v1/lab/obligations"))["items"] == []
